"""Which trial is chosen, when a study ends, and whose trials are taken back."""

import subprocess
import sys
import time

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.training.tuning.study_cases import job

from margincast.specs.training import Head
from margincast.specs.tuning import NOT_TUNABLE, TUNABLE
from margincast.training.tuning.selection import chosen_trial, front_table, within_band
from margincast.training.tuning.trials import (
    announce,
    began,
    converged,
    counted,
    has_live_owner,
    ranked,
    recover,
    this_process,
)

DISTRIBUTION = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}


def study_of(*trials, objectives=1) -> optuna.Study:
    """A study of (values, violation) pairs, None for a trial that was given up."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize"] * objectives)
    for trial in trials:
        values, beyond = trial or (None, 0.0)
        study.add_trial(
            optuna.trial.create_trial(
                params={"x": 0.5},
                distributions=DISTRIBUTION,
                values=values,
                state=optuna.trial.TrialState.COMPLETE if trial else
                optuna.trial.TrialState.PRUNED,
                system_attrs={"constraints:exceedance_ratio_0.9": beyond},
            )
        )  # fmt: skip
    return study


@given(st.lists(st.tuples(st.floats(0.5, 1.5), st.sampled_from([-0.3, 0.0, 0.1, 0.4])), min_size=1))
def test_the_chosen_trial_is_the_best_within_the_band_or_the_nearest_to_it(pairs):
    study = study_of(*(([value], beyond) for value, beyond in pairs))
    chosen = chosen_trial(study)
    inside = [value for value, beyond in pairs if beyond <= 0]
    assert within_band(chosen) == bool(inside)
    if inside:
        assert chosen.value == min(inside) == study.best_value
    else:
        nearest = min(beyond for _, beyond in pairs)
        assert chosen.value == min(value for value, beyond in pairs if beyond == nearest)
    assert ranked(study.trials)[0].number == chosen.number


def tuning(patience=3, gain=0.01, **others):
    spec = job().tuning
    return spec.model_copy(update={"patience_trials": patience, "least_gain": gain, **others})


@pytest.mark.parametrize(
    ("trials", "ended"),
    [
        ([1.0, 1.0, 1.0], False),  # as many as patience has
        ([1.0, 1.0, 1.0, 1.0], True),
        ([1.0, 1.0, 0.98, 1.0], False),  # a gain of 2 %
        ([1.0, 1.0, 0.995, 1.0], True),  # a gain of less than 1 %
        ([1.0, None, None, None], True),  # all given up
        ([None, None, None, None], False),  # nothing to better yet
        ([1.0, 0.9, 0.9, 0.9, 0.9], True),
    ],
)
def test_a_study_ends_when_as_many_trials_as_patience_has_bring_no_gain(trials, ended):
    study = study_of(*(None if value is None else ([value], -0.1) for value in trials))
    assert converged(study, tuning()) is ended
    assert converged(study, tuning(patience=0)) is False


def test_coming_into_the_band_is_a_gain_whatever_it_costs():
    outside, inside = ([0.8], 0.2), ([0.9], -0.1)
    assert converged(study_of(outside, outside, outside, outside), tuning())
    assert not converged(study_of(outside, outside, inside, outside), tuning())
    # what lies outside is none, however small its loss
    assert converged(study_of(inside, inside, outside, outside, outside), tuning())


def test_a_study_of_several_objectives_ends_when_nothing_new_is_on_the_front():
    several = tuning(objectives=("loss", "mean_margin"))
    best, worse, other = ([1.0, 1.0], 0.0), ([1.1, 1.1], 0.0), ([2.0, 0.5], 0.0)
    assert converged(study_of(best, worse, worse, worse, objectives=2), several)
    study = study_of(best, worse, other, worse, objectives=2)
    assert not converged(study, several)
    front = front_table(study, several.objectives)
    assert front["trial"].tolist() == [0, 2]
    assert front["mean_margin"].tolist() == [1.0, 0.5]


def test_a_trial_is_taken_back_only_from_whoever_is_gone():
    study = study_of()
    mine, dead, reused, elsewhere, silent = (study.ask(DISTRIBUTION) for _ in range(5))
    here = this_process()
    mine.set_user_attr("process", here)
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    dead.set_user_attr("process", here | {"pid": child.pid})
    # a new process may have the number of an old one
    reused.set_user_attr("process", here | {"began": "1"})
    for trial, age in ((elsewhere, 10.0), (silent, 10_000.0)):
        trial.set_user_attr("process", here | {"host": "another"})
        trial.set_user_attr("alive_at", time.time() - age)
    alive = [has_live_owner(trial) for trial in study.trials]
    assert alive == [True, False, False, True, False]
    assert recover(study) == 3
    assert recover(study) == 0
    queue = [trial for trial in study.trials if trial.state.name == "WAITING"]
    assert [trial.user_attrs["retry_of"] for trial in queue] == [1, 2, 4]
    # they are tried again as they were
    again = study.ask(DISTRIBUTION)
    assert again.params == dead.params
    assert [trial.number for trial in counted(study)] == [0, 3, again.number]


@pytest.mark.parametrize("announced", ["the dead one", "nobody", "the living", "elsewhere"])
def test_a_trial_nobody_signed_is_taken_back_unless_somebody_else_may_be_about_to(announced):
    # killed between taking a trial and signing it: no name stands on it
    study = study_of()
    begun = study.ask(DISTRIBUTION)
    announce(study)  # whoever recovers has signed all of his own
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        other = this_process() | {"pid": child.pid, "began": began(child.pid)}
        if announced == "the dead one":
            child.communicate(b"\n")
        if announced == "elsewhere":
            other |= {"host": "another"}
        if announced != "nobody":
            study.set_user_attr("process other", other)
        alive = announced in {"the living", "elsewhere"}
        assert recover(study) == (0 if alive else 1)
        assert [trial.number for trial in counted(study)] == ([0] if alive else [])
        child.kill()
    if not alive:
        assert study.ask(DISTRIBUTION).params == begun.params


def test_every_key_of_the_head_is_either_searched_or_refused_with_a_reason():
    assert set(TUNABLE) | set(NOT_TUNABLE) == set(Head.model_fields)
    assert not set(TUNABLE) & set(NOT_TUNABLE)
    assert np.all([len(reason) > 20 for reason in NOT_TUNABLE.values()])
