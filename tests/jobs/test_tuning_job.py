"""What tuning reports: the chosen head beside the spec's own, on time that no trial saw."""

from datetime import timedelta

import pytest
from tests.training.tuning.study_cases import LEVELS, job, simulated_panel

from margincast.jobs.tuning import candidates_with_confidence
from margincast.training.tuning.tune import tune_head

HORIZON = timedelta(hours=8)


@pytest.fixture(scope="module")
def tuned():
    # the spec's own head has learned next to nothing
    spec = job("tuning.candidates=2", "model.head.rounds=1", "model.head.learning_rate=0.001")
    return tune_head(spec, [simulated_panel(0, count=1500)], LEVELS, 1)


def test_the_chosen_trial_leads_the_candidates_and_the_specs_own_head_is_always_among_them(tuned):
    table = candidates_with_confidence(tuned, HORIZON)
    assert table["role"].tolist() == ["chosen", "candidate", "spec"]
    assert table["trial"].tolist()[0] == tuned.trial.number
    assert table["trial"].tolist()[-1] == 0
    assert table["study_loss"].is_monotonic_increasing
    assert table["rounds"].tolist()[-1] == 1


def test_on_time_no_trial_saw_a_head_that_knows_nothing_is_told_from_one_that_learned(tuned):
    table = candidates_with_confidence(tuned, HORIZON).set_index("role")
    assert table.loc["chosen", "held_out_loss"] < table.loc["spec", "held_out_loss"]
    assert table.loc["chosen", "confidence_set_p_value"] > 0.1
    assert table.loc["spec", "confidence_set_p_value"] < 0.1
    assert table["held_out_coverage_error"].between(0, 1).all()


def test_without_held_out_time_there_is_a_table_of_the_study_alone():
    spec = job("tuning.held_out_share=0", "tuning.trials=2")
    tuned = tune_head(spec, [simulated_panel(0, count=300)], LEVELS, 1)
    table = candidates_with_confidence(tuned, HORIZON)
    assert not [name for name in table if name.startswith(("held_out", "confidence"))]
    assert table["study_loss"].notna().all()
