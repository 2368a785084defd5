"""A study's best trials become runs, its table keeps every state, its figures are drawn."""

import io
from pathlib import Path

import optuna
import pandas as pd
import pytest

from margincast.training.tracking import Tracker
from margincast.training.tracking.study import log_study


@pytest.fixture(scope="module")
def tracker(store_of, tmp_path_factory):
    return Tracker(store_of("sqlite"), "studies", tmp_path_factory.mktemp("studies"))


def text_of(tracker, run, name, folder):
    return Path(tracker.client.download_artifacts(run.run_id, name, str(folder))).read_text()


def children_of(tracker, run):
    return tracker.client.search_runs(
        [tracker.experiment_id], f"tags.mlflow.parentRunId = '{run.run_id}'"
    )


def study_with_all_states():
    def objective(trial):
        x = trial.suggest_float("x", -1.0, 1.0)
        trial.suggest_int("leaves", 2, 8)
        if trial.number == 3:
            raise optuna.TrialPruned
        if trial.number == 4:
            raise ValueError("diverged")
        return x

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    study.optimize(objective, n_trials=13, catch=(ValueError,))
    study.ask()
    return study


def test_the_best_trials_become_runs_and_the_table_keeps_every_state(tracker, tmp_path):
    study = study_with_all_states()
    with tracker.run("tuning") as parent:
        assert log_study(tracker, study, parent, ["loss"], top=2) == 2
    finished = sorted(trial.value for trial in study.trials if trial.state.name == "COMPLETE")
    children = children_of(tracker, parent)
    assert len(finished) == 11
    assert sorted(child.data.metrics["loss"] for child in children) == finished[:2]
    for child in children:
        trial = study.trials[int(child.data.tags["trial_number"])]
        assert child.data.params == {name: str(value) for name, value in trial.params.items()}
        assert child.info.status == "FINISHED"
        assert child.info.start_time == int(trial.datetime_start.timestamp() * 1000)
        assert child.info.end_time == int(trial.datetime_complete.timestamp() * 1000)
    table = pd.read_csv(io.StringIO(text_of(tracker, parent, "tuning/trials.csv", tmp_path)))
    assert table["number"].tolist() == list(range(14))
    states = {"COMPLETE": 11, "PRUNED": 1, "FAIL": 1, "RUNNING": 1}
    assert table["state"].value_counts().to_dict() == states
    assert (table.loc[table["state"] == "COMPLETE", "seconds"] >= 0).all()
    files = {
        Path(item.path).name for item in tracker.client.list_artifacts(parent.run_id, "tuning")
    }
    assert files == {
        "trials.csv", "history.png", "slices.png", "parallel.png", "importances.png",
    }  # fmt: skip


def finished_trial(values, constraint=None):
    trial = optuna.trial.create_trial(
        params={"x": values[0]},
        distributions={"x": optuna.distributions.FloatDistribution(0, 4)},
        values=values,
    )
    if constraint is not None:
        trial.set_constraint("coverage", constraint)
    return trial


def test_of_several_objectives_the_pareto_front_becomes_runs(tracker):
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.add_trials(
        finished_trial(values) for values in [(1.0, 3.0), (2.0, 2.0), (2.5, 2.5), (3.0, 1.0)]
    )
    with tracker.run("two") as parent:
        assert log_study(tracker, study, parent, ["loss", "rise"], top=20) == 3
    children = children_of(tracker, parent)
    shown = sorted((child.data.metrics["loss"], child.data.metrics["rise"]) for child in children)
    assert shown == [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]


def test_a_trial_that_breaks_a_constraint_comes_after_all_that_keep_it(tracker, tmp_path):
    study = optuna.create_study()
    study.add_trials(
        finished_trial([value], constraint)
        for value, constraint in [(1.0, 0.5), (2.0, -0.1), (3.0, 0.0), (0.5, 0.1)]
    )
    with tracker.run("constraints") as parent:
        assert log_study(tracker, study, parent, ["loss"], top=3) == 3
    shown = {
        child.data.metrics["loss"]: child.data.metrics["constraint_coverage"]
        for child in children_of(tracker, parent)
    }
    assert shown == {2.0: -0.1, 3.0: 0.0, 0.5: 0.1}
    table = pd.read_csv(io.StringIO(text_of(tracker, parent, "tuning/trials.csv", tmp_path)))
    assert table["constraint_coverage"].tolist() == [0.5, -0.1, 0.0, 0.1]


def test_a_study_of_one_trial_or_none_has_a_table_and_no_figures(tracker):
    study = optuna.create_study()
    with tracker.run("none") as parent:
        assert log_study(tracker, study, parent, ["loss"], top=20) == 0
    study.add_trial(finished_trial([1.0]))
    with tracker.run("one") as parent:
        assert log_study(tracker, study, parent, ["loss"], top=20) == 1
    assert [item.path for item in tracker.client.list_artifacts(parent.run_id, "tuning")] == [
        "tuning/trials.csv"
    ]
