"""One contract for every store: what is logged is read back whole, of processes too."""

import io
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow.entities import ViewType
from tests.training.tracking.processes import log_into, start

from margincast.training.tracking import PastRun, Tracker
from margincast.training.tracking.operations import DatasetRecord

STORES = (
    "sqlite",
    pytest.param("server", marks=pytest.mark.slow),
    pytest.param("postgres", marks=pytest.mark.slow),
)
DATASET = DatasetRecord(
    name="bars",
    digest="0" * 36,
    source='{"entries": ["bars"]}',
    schema_text='{"columns": ["close"]}',
    profile='{"contracts": 2}',
    context="training",
)


@pytest.fixture(scope="module", params=STORES)
def store(request, store_of):
    return store_of(request.param)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="module")
def tracker(store, workspace):
    return Tracker(store, "contract", workspace)


def text_of(tracker, run, name, folder):
    return Path(tracker.client.download_artifacts(run.run_id, name, str(folder))).read_text()


def test_what_is_logged_is_read_back_whole(tracker, workspace, tmp_path):
    table = pd.DataFrame({"symbol": ["BTC", "ETH"], "pinball": [0.1, 0.2]})
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    (evidence / "tests.txt").write_text("kupiec")
    with tracker.run("job", {"margincast.kind": "training job"}) as run:
        run.log_parameters({"target": {"levels": [0.99]}, "seed": 1})
        for step, value in enumerate([3.0, 2.0, 1.0]):
            run.log_metrics({"loss": value}, step=step)
        run.log_table(table, "tables/contracts")
        run.log_record({"passed": True}, "gate")
        run.log_figure(Figure(), "plots/empty")
        run.log_artifact(evidence, "evidence")
        run.log_datasets([DATASET])
        trial = PastRun("trial-0", 1_000, 2_000, "FAILED", {"x": 0.5}, {"loss": 4.0}, {"a": "b"})
        child_id = tracker.log_past_run(trial, run)
    found = tracker.client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"target.levels": "[0.99]", "seed": "1"}
    history = tracker.client.get_metric_history(run.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    times = [found.info.start_time, *(point.timestamp for point in history), found.info.end_time]
    assert times == sorted(times)
    (dataset,) = found.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("bars", "0" * 36)
    assert dataset.dataset.source == DATASET.source
    assert {tag.key: tag.value for tag in dataset.tags} == {"mlflow.data.context": "training"}
    text = text_of(tracker, run, "tables/contracts.csv", tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), table)
    assert text_of(tracker, run, "evidence/tests.txt", tmp_path) == "kupiec"
    names = {item.path for item in tracker.client.list_artifacts(run.run_id)}
    assert names == {"tables", "gate.json", "plots", "evidence"}
    child = tracker.client.get_run(child_id)
    assert (child.info.status, child.info.start_time, child.info.end_time) == (
        "FAILED",
        1_000,
        2_000,
    )
    assert child.data.params == {"x": "0.5"}
    assert tracker.client.get_parent_run(child_id).info.run_id == run.run_id
    # nothing waits for MLflow
    assert list((workspace / "mlruns" / "spool").iterdir()) == []


def test_processes_write_into_one_run_at_once(tracker, store, workspace):
    with tracker.run("shared") as run:
        workers = [start(log_into, store, workspace, run.run_id, number) for number in range(2)]
        run.log_metrics({"own": 1.0})
        for worker in workers:
            worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    found = tracker.client.get_run(run.run_id)
    assert found.data.metrics == {"own": 1.0, "of_process_0": 2.0, "of_process_1": 2.0}
    for number in range(2):
        history = tracker.client.get_metric_history(run.run_id, f"of_process_{number}")
        assert [point.value for point in history] == [0.0, 1.0, 2.0]
    children = tracker.client.search_runs(
        [tracker.experiment_id], f"tags.mlflow.parentRunId = '{run.run_id}'"
    )
    assert sorted(child.data.params["number"] for child in children) == ["0", "1"]
    assert {child.info.status for child in children} == {"FINISHED"}


def test_a_failed_run_is_found_as_failed(tracker):
    def fail():
        with tracker.run("fails"):
            raise ValueError("too short")

    with pytest.raises(ValueError, match="too short"):
        fail()
    (found,) = tracker.client.search_runs(
        [tracker.experiment_id], "attributes.run_name = 'fails'", ViewType.ACTIVE_ONLY
    )
    assert found.info.status == "FAILED"
