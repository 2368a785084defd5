"""What other processes do in the tests of tracking: real ones, forked from one that is warm."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from margincast.training.tracking import StoreUnreachableError, Tracker


def context() -> ForkServerContext:
    """Processes that start with MLflow imported, and nothing of the test's connections."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["margincast.training.tracking"])
    return found


def start(what: Callable[..., None], *arguments: object) -> BaseProcess:
    process = context().Process(target=what, args=arguments, daemon=True)
    process.start()
    return process


def log_into(uri: str, workspace: Path, run_id: str, number: int) -> None:
    """Attach to a run, and open one below it."""
    tracker = Tracker(uri, "contract", workspace)
    with tracker.attached(run_id) as parent:
        for step in range(3):
            parent.log_metrics({f"of_process_{number}": float(step)}, step=step)
        with tracker.run(f"worker-{number}", parent=parent) as child:
            child.log_parameters({"number": number})


def first_job(uri: str, workspace: Path, barrier: "object") -> None:
    """Make a tracker of an experiment that does not exist yet, at the same moment as another."""
    barrier.wait()
    with Tracker(uri, "raced", workspace).run(f"job-{os.getpid()}") as run:
        run.log_metrics({"pinball": 1.0})


def end_by_signal(uri: str, workspace: Path, number: int) -> None:
    """Send oneself a signal in the middle of a run."""
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with Tracker(uri, "signals", workspace).run(f"signal-{number}") as run:
        run.log_metrics({"pinball": 1.0})
        os.kill(os.getpid(), number)
        signal.pause()


def fill_the_disk(uri: str, workspace: Path, answers: "object") -> None:
    """Log small things, then a file larger than the disk takes, then small things again."""
    big = workspace / "big.bin"
    big.write_bytes(b"x" * 3_000_000)
    tracker = Tracker(uri, "full", workspace)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
    try:
        with tracker.run("full") as run:
            run.log_metrics({"before": 1.0})
            run.log_artifact(big)
    except StoreUnreachableError as error:
        answers.put(str(error))


def wait_for_a_lock(uri: str, workspace: Path, answers: "object", go_on: "object") -> None:
    """Log while another process holds the store's write lock for longer than anyone waits."""
    said: list[str] = []
    tracker = Tracker(uri, "locked", workspace, said.append)
    with tracker.run("locked") as run:
        run.log_metrics({"before": 1.0})
        answers.put(run.run_id)
        go_on.wait()
        run.log_metrics({"while_locked": 2.0})
    answers.put(said)
