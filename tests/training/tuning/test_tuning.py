"""Tuning never does worse than the spec on its own folds, and the same seed finds the same head."""

import json
from concurrent.futures import Future
from dataclasses import replace

import optuna
import pytest
from tests.training.tuning.study_cases import LEVELS, job, simulated_panel

from margincast.core.errors import InputError
from margincast.training.tuning.selection import front_table
from margincast.training.tuning.tune import tune_head
from margincast.training.tuning.workers import OneThread

COMPLETE = optuna.trial.TrialState.COMPLETE


@pytest.fixture(scope="module")
def panel():
    return simulated_panel(0, 800)


@pytest.fixture(scope="module")
def tuned(panel):
    return tune_head(job(), [panel], LEVELS, 1)


def tried(tuned) -> list[tuple[dict, float | None]]:
    return [(trial.params, trial.values) for trial in tuned.study.trials]


def test_the_spec_is_tried_first_and_nothing_worse_is_chosen(panel):
    seen: list[optuna.trial.FrozenTrial] = []
    spec = job()
    tuned = tune_head(spec, [panel], LEVELS, 1, seen.append)
    first, *others = tuned.study.trials
    assert first.params == {"rounds": 10, "learning_rate": spec.model.head.learning_rate}
    assert first.user_attrs["source"] == "spec"
    assert tuned.trial.value <= first.value
    assert [trial.number for trial in seen] == list(range(6))
    assert len(others) == 5
    assert all(2 <= trial.params["rounds"] <= 40 for trial in tuned.study.trials)


def test_only_keys_of_the_space_change_and_to_the_best_trial(tuned):
    spec = job()
    expected = spec.model.head.model_copy(update=tuned.study.best_params)
    assert tuned.model == spec.model.model_copy(update={"head": expected})
    assert isinstance(tuned.model.head.rounds, int)
    assert isinstance(tuned.model.head.learning_rate, float)


def test_the_same_seed_finds_the_same_and_another_looks_elsewhere(panel, tuned):
    again = tune_head(job(), [panel], LEVELS, 2)
    other = tune_head(job("tuning.seed=2"), [panel], LEVELS, 1)
    assert tried(tuned) == tried(again)
    assert tuned.model == again.model
    assert tried(tuned)[0] == tried(other)[0]
    assert tried(tuned)[1:] != tried(other)[1:]


def test_a_spec_that_learns_nothing_is_improved_upon(panel):
    tuned = tune_head(
        job("model.head.learning_rate=0.01", "model.head.rounds=2"), [panel], LEVELS, 1
    )
    assert tuned.trial.value < 0.99 * tuned.study.trials[0].value
    assert tuned.model.head.rounds > 2


def test_every_horizon_counts_and_none_outweighs_another(panel):
    spec = job("tuning.trials=3")
    wide = replace(
        panel,
        frame=panel.frame.assign(fast=panel.frame["fast"] * 8),
        outcomes={side: 8 * values for side, values in panel.outcomes.items()},
        log_range=8 * panel.log_range,
    )
    alone = tune_head(spec, [panel], LEVELS, 1)
    # of the same market, with losses eight times as large
    both = tune_head(spec, [panel, wide], LEVELS, 1)
    for one, two in zip(alone.study.trials, both.study.trials, strict=True):
        assert one.params == two.params
        assert two.value == pytest.approx(one.value, rel=0.01)
    other = tune_head(spec, [panel, simulated_panel(1)], LEVELS, 1)
    assert other.study.trials[1].value != pytest.approx(alone.study.trials[1].value, rel=1e-6)


def test_trees_that_see_what_widens_the_market_beat_the_scale_alone(tuned):
    # the reference is the scale times one quantile; the feature that doubles the width is known
    assert tuned.trial.value < 0.97
    assert tuned.candidates[0].held_out.loss < 0.99


def test_folds_are_steps_and_a_hopeless_trial_is_given_up_after_one(panel):
    spec = job(
        "tuning.trials=12", "tuning.folds=3", "tuning.sampler=random",
        "tuning.space.rounds={low=1, high=40, log=true, integer=true}",
    )  # fmt: skip
    study = tune_head(spec, [panel], LEVELS, 1).study
    assert all(
        list(trial.intermediate_values) == list(range(3))
        for trial in study.trials
        if trial.state == COMPLETE
    )
    given_up = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    assert given_up
    assert all(len(trial.intermediate_values) < 3 for trial in given_up)
    best = study.best_trial.intermediate_values
    assert all(trial.value > best[trial.last_step] for trial in given_up)
    patient = tune_head(
        spec.model_copy(update={"tuning": spec.tuning.model_copy(update={"pruner": "none"})}),
        [panel], LEVELS, 1,
    ).study  # fmt: skip
    assert [trial.state for trial in patient.trials] == [COMPLETE] * 12


class Refusing(OneThread):
    """Workers that refuse heads of more rounds than they are told."""

    most_rounds = 10

    def submit(self, head, step):
        if head.rounds <= self.most_rounds:
            return super().submit(head, step)
        refused = Future()
        refused.set_exception(InputError(f"too many rounds: {head.rounds}"))
        return refused


def test_a_trial_whose_fit_is_refused_is_kept_as_failed_and_the_study_goes_on(panel):
    def workers(folds, _workers, threads):
        return Refusing(folds, threads)

    study = tune_head(job("tuning.trials=8"), [panel], LEVELS, 1, make_workers=workers).study
    failed = [trial for trial in study.trials if trial.state.name == "FAIL"]
    assert 0 < len(failed) < 8
    for trial in failed:
        assert trial.user_attrs["error"] == f"too many rounds: {trial.params['rounds']}"


def test_a_study_of_which_nothing_is_left_names_the_causes(panel):
    class RefusingAll(Refusing):
        most_rounds = 0

    with pytest.raises(InputError, match=r"all 3 trials of study perp-8h-.* failed: too many rou"):
        tune_head(
            job("tuning.trials=3"), [panel], LEVELS, 1,
            make_workers=lambda folds, _, threads: RefusingAll(folds, threads),
        )  # fmt: skip


def test_a_trial_outside_the_exceedance_band_is_not_chosen_while_one_is_inside(panel):
    limit = 1.03
    spec = job(
        "tuning.sampler=random", "tuning.pruner=none", f"tuning.exceedance_ratio_max={limit}"
    )
    tuned = tune_head(spec, [panel], LEVELS, 1)
    largest = {}
    for trial in tuned.study.trials:
        ratios = trial.user_attrs["exceedance_ratios"]
        largest[trial.number] = max(ratios.values())
        for level, ratio in ratios.items():
            beyond = trial.constraints[f"exceedance_ratio_{level}"]
            assert beyond == pytest.approx(max(-ratio, ratio - limit))
    least_loss = min(tuned.study.trials, key=lambda trial: trial.value)
    assert largest[least_loss.number] > limit
    inside = [trial for trial in tuned.study.trials if largest[trial.number] <= limit]
    assert tuned.trial.value == min(trial.value for trial in inside) == tuned.study.best_value


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii"])
def test_several_objectives_leave_a_front_of_which_the_first_decides(panel, sampler):
    objectives = ("loss", "procyclicality", "mean_margin")
    spec = job(
        f"tuning.objectives={json.dumps(objectives)}",
        "tuning.pruner=none",
        f"tuning.sampler={sampler}",
        "tuning.trials=5",
    )
    tuned = tune_head(spec, [panel], LEVELS, 1)
    values = {trial.number: trial.values for trial in tuned.study.trials}
    for trial in tuned.study.trials:
        assert trial.values == [trial.user_attrs[name] for name in objectives]
    unbeaten = {
        one
        for one, own in values.items()
        if not any(
            other != own and all(x <= y for x, y in zip(other, own, strict=True))
            for other in values.values()
        )
    }
    front = front_table(tuned.study, objectives)
    assert set(front["trial"]) == unbeaten
    assert tuned.trial.values[0] == front["loss"].min()
    assert front.columns.tolist() == ["trial", *objectives, "rounds", "learning_rate"]
