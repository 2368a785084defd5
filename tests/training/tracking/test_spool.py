"""Nothing that a job logs is lost when MLflow goes away: order, times and links are kept."""

import contextlib
import shutil
import signal
import sqlite3
import threading
import time

import pandas as pd
import pytest
from tests.training.tracking.processes import (
    context,
    end_by_signal,
    fill_the_disk,
    first_job,
    start,
    wait_for_a_lock,
)

from margincast.core.errors import InputError
from margincast.training.tracking import ERROR_TAG, PastRun, StoreUnreachableError, Tracker
from margincast.training.tracking.operations import LogBatch
from margincast.training.tracking.spool import Session, Target, waiting_sessions
from margincast.training.tracking.synchronise import KILLED, Replay


class StopHereError(Exception):
    """Stops a synchronisation half-way."""


@pytest.fixture(scope="module", autouse=True)
def locked_job(tmp_path_factory, migrated_store):
    """A job whose store another process locks; MLflow gives up after 20 s, so it starts first."""
    folder = tmp_path_factory.mktemp("locked")
    uri = f"sqlite:///{migrated_store(folder)}"
    answers, go_on = context().Queue(), context().Event()
    process = start(wait_for_a_lock, uri, folder, answers, go_on)
    answers.get(timeout=60)
    with write_lock(uri) as let_go:
        go_on.set()
        yield uri, folder, answers, process, let_go


@pytest.fixture
def workspace(tmp_path):
    return tmp_path


@pytest.fixture
def through(gate, workspace):
    """A tracker whose server is reached through the gate, and what it said."""
    said: list[str] = []
    tracker = Tracker(f"http://127.0.0.1:{gate.port}", "outage", workspace, said.append)
    return tracker, said


def log_a_job(tracker, folder, between=lambda: None, *, tag):
    """A job as `train` logs it: parameters, a child, metrics over steps, files, linked runs."""
    evidence = folder / "evidence"
    evidence.mkdir(exist_ok=True)
    (evidence / "tests.txt").write_text("kupiec")
    with tracker.run("job", {"margincast.kind": "job", "of_test": tag}) as job:
        job.log_parameters({"seed": 1})
        job.log_metrics({"loss": 3.0}, step=0)
        between()
        job.log_metrics({"loss": 2.0}, step=1)
        job.log_metrics({"loss": 1.0}, step=2)
        tracker.log_past_run(
            PastRun("trial-0", 1_000, 2_000, "FAILED", {"x": 1.0}, {"v": 0.5}), job
        )
        with tracker.run("peer", {"margincast.job_run": job.run_id, "of_test": tag}) as peer:
            peer.log_metrics({"pinball": 0.25})
            peer.log_table(pd.DataFrame({"level": [0.99]}), "levels")
        job.log_artifact(evidence, "evidence")
        job.set_tags({"margincast.gate": "passed"})
    return tag


def seen(tracker, tag):
    """What MLflow shows of a job, without ids and times that differ from run to run."""
    runs = tracker.client.search_runs([tracker.experiment_id], f"tags.of_test = '{tag}'")
    jobs = [run for run in runs if run.info.run_name == "job"]
    (job,) = jobs
    children = tracker.client.search_runs(
        [tracker.experiment_id], f"tags.mlflow.parentRunId = '{job.info.run_id}'"
    )
    (peer,) = [run for run in runs if run.info.run_name == "peer"]
    assert peer.data.tags["margincast.job_run"] == job.info.run_id
    times = []
    shown = {}
    for run in (job, peer, *children):
        histories = {
            name: tracker.client.get_metric_history(run.info.run_id, name)
            for name in run.data.metrics
        }
        shown[run.info.run_name] = {
            "status": run.info.status,
            "parameters": run.data.params,
            "metrics": {
                name: [(point.step, point.value) for point in points]
                for name, points in histories.items()
            },
            "gate": run.data.tags.get("margincast.gate"),
            "files": sorted(item.path for item in tracker.client.list_artifacts(run.info.run_id)),
        }
        if run.info.run_name in {"job", "peer"}:
            times += [run.info.start_time, run.info.end_time]
    points = tracker.client.get_metric_history(job.info.run_id, "loss")
    ordered = [job.info.start_time, *(point.timestamp for point in points), job.info.end_time]
    assert ordered == sorted(ordered)
    assert job.info.start_time <= peer.info.start_time <= peer.info.end_time <= job.info.end_time
    return shown


def replay(tracker):
    return Replay(tracker.client, tracker.uri, tracker.experiment_id, {})


def synchronise(tracker, workspace, stop_after=None):
    """Synchronise all sessions; stop after so many operations."""
    count = 0

    def on_operation():
        nonlocal count
        count += 1
        if count == stop_after:
            raise StopHereError

    for session in waiting_sessions(workspace):
        assert session.hold()
        try:
            replay(tracker).synchronise(session, on_operation)
        finally:
            session.release()
    return count


@pytest.mark.slow
def test_a_server_that_goes_away_mid_run_loses_nothing(through, gate, workspace):
    tracker, said = through
    log_a_job(tracker, workspace, tag="whole")
    assert said == []
    started = time.time_ns() // 1_000_000
    log_a_job(tracker, workspace, gate.shut, tag="broken")
    ended = time.time_ns() // 1_000_000
    (sentence,) = said
    assert "margincast sync" in sentence
    with pytest.raises(StoreUnreachableError, match="operation 1"):
        synchronise(tracker, workspace)
    gate.open()
    time.sleep(0.05)
    assert synchronise(tracker, workspace) > 8
    assert seen(tracker, "broken") == seen(tracker, "whole")
    (job,) = tracker.client.search_runs(
        [tracker.experiment_id], "tags.of_test = 'broken' and attributes.run_name = 'job'"
    )
    assert started <= job.info.start_time <= job.info.end_time <= ended
    assert waiting_sessions(workspace) == []
    # and the next run is told to MLflow again
    with tracker.run("after") as run:
        run.log_metrics({"pinball": 1.0})
    assert tracker.client.get_run(run.run_id).info.status == "FINISHED"


def test_a_synchronisation_interrupted_anywhere_does_everything_once(through, gate, workspace):
    tracker, _ = through
    log_a_job(tracker, workspace, gate.shut, tag="cut")
    gate.open()
    kept = sum(1 for session in waiting_sessions(workspace) for _ in session.entries())
    for _ in range(kept):
        # the answer to every operation is lost: it is performed, but not noted
        (session,) = waiting_sessions(workspace)
        done = session.folder / "done"
        before = done.read_text() if done.exists() else "0"
        with pytest.raises(StopHereError):
            synchronise(tracker, workspace, stop_after=1)
        done.write_text(before)
        with pytest.raises(StopHereError):
            synchronise(tracker, workspace, stop_after=1)
    assert synchronise(tracker, workspace) == 0
    log_a_job(tracker, workspace, tag="uncut")
    assert seen(tracker, "cut") == seen(tracker, "uncut")


def test_a_run_that_was_kept_is_found_by_a_later_session(through, gate, workspace):
    tracker, _ = through
    gate.shut()
    with tracker.run("first") as first:
        pass
    with tracker.run("second", parent=first) as second:
        second.set_tags({"margincast.job_run": first.run_id})
    gate.open()
    assert len(waiting_sessions(workspace)) == 2
    synchronise(tracker, workspace)
    (found,) = tracker.client.search_runs(
        [tracker.experiment_id], "attributes.run_name = 'second'", max_results=1
    )
    parent = tracker.client.get_parent_run(found.info.run_id)
    assert parent.info.run_name == "first"
    assert found.data.tags["margincast.job_run"] == parent.info.run_id


def test_a_job_that_still_runs_is_left_alone(through, gate, workspace):
    tracker, _ = through
    gate.shut()
    with tracker.run("running"):
        (session,) = waiting_sessions(workspace)
        assert not session.hold()
    assert session.hold()
    session.release()


# Journals


@pytest.fixture
def sqlite_tracker(store_of, workspace):
    return Tracker(store_of("sqlite"), "journals", workspace)


def kept_session(workspace, operations):
    session = Session.begin(workspace, Target("sqlite:///nowhere", "journals"))
    for operation in operations:
        session.keep(operation)
    return session


def test_a_line_that_was_being_written_is_left_out_and_a_damaged_one_named(workspace):
    session = kept_session(workspace, [LogBatch(run="a", tags={"n": str(n)}) for n in range(3)])
    journal = session.folder / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-5])
    assert [entry.number for entry in session.entries()] == [1, 2]
    journal.write_bytes(whole.replace(b'"kind": "log_batch"', b'"kind": "log_bitch"', 1))
    with pytest.raises(InputError, match="line 1, is damaged"):
        list(session.entries())


def test_what_mlflow_refuses_is_named_and_nothing_after_it_is_told(sqlite_tracker, workspace):
    with sqlite_tracker.run("refused") as run:
        run.log_parameters({"seed": 1})
    session = kept_session(
        workspace,
        [
            LogBatch(run=run.run_id, tags={"a": "1"}),
            LogBatch(run=run.run_id, parameters={"seed": "2"}),
            LogBatch(run=run.run_id, tags={"b": "1"}),
        ],
    )
    for _ in range(2):
        with pytest.raises(InputError, match=r"operation 2 \(log_batch\).*refused"):
            replay(sqlite_tracker).synchronise(session, lambda: None)
    tags = sqlite_tracker.client.get_run(run.run_id).data.tags
    assert "a" in tags
    assert "b" not in tags
    # the operator gives the refused line up
    journal = session.folder / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[0] + lines[2])
    assert replay(sqlite_tracker).synchronise(session, lambda: None) == 1
    assert "b" in sqlite_tracker.client.get_run(run.run_id).data.tags


def test_a_journal_holds_no_password(workspace):
    tracker_target = Target("postgresql+psycopg2://user:***@host/db", "e")
    session = Session.begin(workspace, tracker_target)
    assert session.target == tracker_target
    assert session.folder.stat().st_mode & 0o077 == 0


# Faults


def test_an_artifact_store_that_cannot_be_written_is_an_outage_and_mended_later(
    store_of, workspace
):
    said: list[str] = []
    tracker = Tracker(store_of("sqlite"), "unwritable", workspace, said.append)
    artifacts = workspace / "mlruns" / "artifacts"
    shutil.rmtree(artifacts)
    artifacts.write_text("a file where the folder should be")
    with tracker.run("unwritable") as run:
        run.log_metrics({"pinball": 1.0})
        run.log_table(pd.DataFrame({"level": [0.99]}), "levels")
        run.log_metrics({"pinball": 2.0}, step=1)
    assert len(said) == 1
    found = tracker.client.get_run(run.run_id)
    assert (found.info.status, found.data.metrics) == ("RUNNING", {"pinball": 1.0})
    artifacts.unlink()
    synchronise(tracker, workspace)
    found = tracker.client.get_run(run.run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"pinball": 2.0})
    assert (artifacts / run.run_id / "artifacts" / "levels.csv").read_text() == "level\n0.99\n"


def test_a_full_disk_is_said_and_what_was_logged_stays(store_of, workspace):
    answers = context().Queue()
    process = start(fill_the_disk, store_of("sqlite"), workspace, answers)
    message = answers.get(timeout=60)
    process.join()
    assert "File too large" in message
    assert "free space" in message
    tracker = Tracker(store_of("sqlite"), "full", workspace)
    (run,) = tracker.client.search_runs([tracker.experiment_id])
    assert run.data.metrics == {"before": 1.0}
    # that it failed was small enough to be kept
    synchronise(tracker, workspace)
    run = tracker.client.get_run(run.info.run_id)
    assert run.info.status == "FAILED"
    assert "File too large" in run.data.tags[ERROR_TAG]


@pytest.mark.slow
def test_two_first_jobs_of_one_experiment_at_once(store_of, workspace):
    barrier = context().Barrier(2)
    jobs = [start(first_job, store_of("sqlite"), workspace, barrier) for _ in range(2)]
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    tracker = Tracker(store_of("sqlite"), "raced", workspace)
    runs = tracker.client.search_runs([tracker.experiment_id])
    assert [run.data.metrics for run in runs] == [{"pinball": 1.0}] * 2
    assert [run.info.status for run in runs] == ["FINISHED"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_interrupted_process_leaves_no_run_that_runs_for_ever(
    store_of, workspace, number
):
    process = start(end_by_signal, store_of("sqlite"), workspace, int(number))
    process.join()
    assert process.exitcode != 0
    tracker = Tracker(store_of("sqlite"), "signals", workspace)
    (run,) = tracker.client.search_runs(
        [tracker.experiment_id], f"attributes.run_name = 'signal-{int(number)}'"
    )
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"pinball": 1.0}
    assert run.info.start_time <= run.info.end_time <= time.time_ns() // 1_000_000
    assert (run.data.tags.get(ERROR_TAG) == KILLED) == (number == signal.SIGKILL)
    assert waiting_sessions(workspace) == []


def test_a_job_of_another_experiment_is_not_closed(store_of, workspace):
    tracker = Tracker(store_of("sqlite"), "alive", workspace)
    with tracker.run("alive") as run:
        Tracker(store_of("sqlite"), "alive", workspace)
        Tracker(store_of("sqlite"), "other", workspace)
        assert tracker.client.get_run(run.run_id).info.status == "RUNNING"


def test_a_clock_that_is_set_back_moves_nothing_before_its_start(store_of, workspace, monkeypatch):
    tracker = Tracker(store_of("sqlite"), "clock", workspace)
    real, jump = time.time_ns, 3_600 * 10**9
    with tracker.run("clock") as run:
        run.log_metrics({"loss": 1.0}, step=0)
        monkeypatch.setattr(time, "time_ns", lambda: real() - jump)
        run.log_metrics({"loss": 2.0}, step=1)
        past = tracker.log_past_run(PastRun("trial", 5_000, 4_000, metrics={"v": 1.0}), run)
    info = tracker.client.get_run(run.run_id).info
    points = tracker.client.get_metric_history(run.run_id, "loss")
    times = [info.start_time, *(point.timestamp for point in points), info.end_time]
    assert times == sorted(times)
    assert times[-1] - times[0] < 60_000
    trial = tracker.client.get_run(past).info
    assert (trial.start_time, trial.end_time) == (5_000, 5_000)


@contextlib.contextmanager
def write_lock(uri):
    """Hold the write lock of an SQLite store; returns how to let it go."""
    connection = sqlite3.connect(
        uri.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False
    )
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection.rollback
    finally:
        connection.close()


def test_a_short_lock_is_waited_for(store_of, workspace):
    uri = store_of("sqlite")
    said: list[str] = []
    tracker = Tracker(uri, "short-lock", workspace, said.append)
    with tracker.run("waits") as run, write_lock(uri) as let_go:
        threading.Timer(0.5, let_go).start()
        run.log_metrics({"pinball": 1.0})
    assert said == []
    assert tracker.client.get_run(run.run_id).data.metrics == {"pinball": 1.0}


def test_a_lock_that_nobody_lets_go_is_an_outage(locked_job):
    uri, workspace, answers, process, let_go = locked_job
    (sentence,) = answers.get(timeout=60)
    process.join()
    assert "database is locked" in sentence
    let_go()
    tracker = Tracker(uri, "locked", workspace)
    synchronise(tracker, workspace)
    (run,) = tracker.client.search_runs([tracker.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"before": 1.0, "while_locked": 2.0}
