"""Runs end in a true state, hold what was logged, and a store that is down says what to do."""

import io
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from margincast.core.errors import InputError
from margincast.training.tracking import (
    ERROR_TAG,
    MAXIMUM_METRICS,
    TRUNCATED_TAG,
    StoreUnreachableError,
    Tracker,
    connect,
    flatten_parameters,
    resolve_uri,
)

URI = "sqlite:///mlruns/mlflow.db"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, migrated_store):
    folder = tmp_path_factory.mktemp("a workspace with spaces")
    migrated_store(folder)
    return folder


@pytest.fixture(scope="module")
def tracker(workspace):
    return Tracker(URI, "tests", workspace)


def artifact_text(tracker, run, name, tmp_path):
    tmp_path.mkdir(exist_ok=True)
    path = tracker.client.download_artifacts(run.run_id, name, str(tmp_path))
    return Path(path).read_text(encoding="utf-8")


def status_of(tracker, run):
    return tracker.client.get_run(run.run_id).info.status


def test_everything_lies_in_the_workspace_wherever_one_stands(
    tracker, workspace, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    again = Tracker(URI, "tests", workspace)
    with again.run("elsewhere") as run:
        run.log_table(pd.DataFrame({"level": [0.99]}), "levels")
    assert again.experiment_id == tracker.experiment_id
    assert (workspace / "mlruns" / "mlflow.db").is_file()
    written = workspace / "mlruns" / "artifacts" / run.run_id / "artifacts" / "levels.csv"
    assert written.read_text() == "level\n0.99\n"
    assert list(tmp_path.iterdir()) == []


def test_a_run_holds_what_was_logged(tracker, tmp_path):
    table = pd.DataFrame({"model": ["margincast", "ewma_fhs"], "pinball": [0.671, 0.744]})
    (tmp_path / "spec.toml").write_text("seed = 7\n")
    with tracker.run("whole", {"job": "perp-8h"}) as run:
        assert run.log_parameters({"target": {"levels": (0.99, 0.995)}, "seed": 7}) == 0
        run.log_metrics({"pinball_0.99": 0.671})
        run.log_artifact(tmp_path / "spec.toml", "specs")
        run.log_table(table, "summary")
    found = tracker.client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "whole"
    assert found.data.params == {"target.levels": "[0.99, 0.995]", "seed": "7"}
    assert found.data.metrics == {"pinball_0.99": 0.671}
    assert found.data.tags["job"] == "perp-8h"
    assert artifact_text(tracker, run, "specs/spec.toml", tmp_path / "specs") == "seed = 7\n"
    text = artifact_text(tracker, run, "summary.csv", tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), table, check_dtype=False)


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("too\nshort"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_an_exception_ends_the_run_and_is_passed_on(tracker, error, status):
    opened = []

    def fails():
        with tracker.run("ends badly") as run:
            opened.append(run)
            raise error

    with pytest.raises(type(error)) as caught:
        fails()
    assert caught.value is error
    assert status_of(tracker, opened[0]) == status
    kept = tracker.client.get_run(opened[0].run_id).data.tags.get(ERROR_TAG)
    assert kept == ("ValueError: too\nshort" if status == "FAILED" else None)


def test_long_values_are_cut_and_counted(tracker):
    with tracker.run("long") as run:
        assert run.log_parameters({"a": "x" * 10_000, "b": "y" * 6_000, "c": "z"}) == 1
        assert run.log_parameters({"d": ["symbol"] * 5_000}) == 1
    data = tracker.client.get_run(run.run_id).data
    assert data.params["a"] == "x" * 5_997 + "..."
    assert data.params["b"] == "y" * 6_000
    assert data.tags[TRUNCATED_TAG] == "2"


def test_more_parameters_than_one_request_takes_are_all_logged(tracker):
    with tracker.run("many") as run:
        run.log_parameters({f"p{number}": number for number in range(250)})
    params = tracker.client.get_run(run.run_id).data.params
    assert params == {f"p{number}": str(number) for number in range(250)}


def test_a_parameter_cannot_be_changed_afterwards(tracker):
    with tracker.run("changed") as run:
        run.log_parameters({"seed": 1})
        run.log_parameters({"seed": 1})
        with pytest.raises(InputError, match="refused"):
            run.log_parameters({"seed": 2})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_is_not_known_is_refused_and_nothing_written(tracker, value):
    with tracker.run("unknown") as run:
        with pytest.raises(InputError, match="expected_shortfall"):
            run.log_metrics({"pinball": 0.5, "expected_shortfall": value})
        run.log_metrics({f"m{number}": 1.0 for number in range(MAXIMUM_METRICS)})
    assert "pinball" not in tracker.client.get_run(run.run_id).data.metrics


def test_a_run_holds_at_most_forty_metrics_over_all_calls(tracker):
    with tracker.run("full") as run:
        run.log_metrics({f"m{number}": 1.0 for number in range(MAXIMUM_METRICS)})
        run.log_metrics({"m0": 2.0})
        with pytest.raises(InputError, match="at most 40"):
            run.log_metrics({"one_more": 1.0})
    metrics = tracker.client.get_run(run.run_id).data.metrics
    assert len(metrics) == MAXIMUM_METRICS
    assert metrics["m0"] == 2.0


def test_an_artifact_that_is_not_there_is_refused(tracker, tmp_path):
    with tracker.run("absent") as run, pytest.raises(InputError, match="no such file"):
        run.log_artifact(tmp_path / "absent.html")


def test_runs_open_at_the_same_time_do_not_mix(tracker):
    def fold(number):
        with tracker.run(f"fold-{number}", parent=parent) as child:
            child.log_metrics({"fold": float(number)})
            child.log_parameters({"number": number})
        return child.run_id

    with tracker.run("parent") as parent, ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(fold, range(8)))
    for number, run_id in enumerate(ids):
        found = tracker.client.get_run(run_id)
        assert found.data.metrics == {"fold": float(number)}
        assert found.data.params == {"number": str(number)}
        assert tracker.client.get_parent_run(run_id).info.run_id == parent.run_id


def test_a_deleted_experiment_says_how_to_restore_it(tracker, workspace):
    other = Tracker(URI, "short-lived", workspace)
    other.client.delete_experiment(other.experiment_id)
    with pytest.raises(InputError, match="restore"):
        Tracker(URI, "short-lived", workspace)


def test_a_server_that_is_down_is_noticed_at_once(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(StoreUnreachableError, match="start the MLflow server"):
        Tracker(f"http://user:secret@127.0.0.1:{port}", "tests", tmp_path)
    assert time.monotonic() - started < 10.0


def test_a_password_is_not_shown(tmp_path):
    with pytest.raises(StoreUnreachableError) as caught:
        connect("http://user:secret@127.0.0.1:1", tmp_path, create=True)
    assert "secret" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match="driver that is not installed"):
            connect(f"postgresql+pg8000://127.0.0.1:{port}/db", tmp_path, create=True)


def test_a_file_that_is_no_store_is_left_alone(tmp_path):
    path = tmp_path / "mlruns" / "mlflow.db"
    path.parent.mkdir()
    path.write_text("something precious")
    with pytest.raises(StoreUnreachableError, match="not an SQLite file"):
        Tracker(URI, "tests", tmp_path)
    assert path.read_text() == "something precious"


def test_a_damaged_store_is_an_input_error(tracker, workspace, tmp_path):
    # the header says SQLite, and all that follows is noise
    whole = (workspace / "mlruns" / "mlflow.db").read_bytes()
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(whole[:100] + b"\xff" * 4_000)
    with pytest.raises(StoreUnreachableError):
        connect(URI, tmp_path, create=False)


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "mlruns").write_text("a file where the folder should be")
    with pytest.raises(StoreUnreachableError, match="check the path and its permissions"):
        Tracker(URI, "tests", tmp_path)


def test_looking_for_a_store_does_not_make_one(tmp_path):
    with pytest.raises(StoreUnreachableError, match="train a model first"):
        connect(URI, tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_relative_paths_start_at_the_workspace_and_others_stay(tmp_path):
    assert resolve_uri(URI, tmp_path) == f"sqlite:///{tmp_path.resolve()}/mlruns/mlflow.db"
    for uri in (
        f"sqlite:///{tmp_path.resolve()}/elsewhere.db",
        "http://host:5000",
        "postgresql+psycopg2://host/db",
        "databricks",
    ):
        assert resolve_uri(uri, tmp_path) == uri


@pytest.mark.parametrize(
    "uri", ["./mlruns", "file:///tmp/mlruns", "", "sqlite://", "sqlite:///", "sqlite:///:memory:"]
)
def test_stores_that_cannot_work_are_refused_with_one_that_can(uri, tmp_path):
    with pytest.raises(InputError, match=r"sqlite:///mlruns/mlflow\.db"):
        resolve_uri(uri, tmp_path)


def test_a_path_that_a_uri_cannot_hold_is_refused(tmp_path):
    with pytest.raises(InputError, match="rename the folder"):
        resolve_uri(URI, tmp_path / "50%")


def test_parameters_are_flattened_without_loss():
    nested = {"a": {"b": {"c": 1.5}, "d": None}, "e": True, "f": ["x", 2], "g": "text"}
    assert flatten_parameters(nested) == {
        "a.b.c": "1.5",
        "a.d": "null",
        "e": "true",
        "f": '["x", 2]',
        "g": "text",
    }


def test_a_first_run_is_silent_and_reports_to_nobody(tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from margincast.training.tracking import Tracker\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "tracker = Tracker('sqlite:///mlruns/mlflow.db', 'first', Path(sys.argv[1]))\n"
        "with tracker.run('one') as run:\n"
        "    run.log_metrics({'pinball': 1.0})\n"
        "assert get_telemetry_client() is None\n"
    )
    # MLflow is quiet by itself where it believes to be under test or in continuous integration
    betrays = ("PYTEST", "CI", "GITHUB", "GITLAB", "JENKINS", "MLFLOW", "DO_NOT_TRACK")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(betrays)}
    done = subprocess.run(  # noqa: S603 - the test's own interpreter and script
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
