"""How long the MLflow pages of a study of 5,000 trials take to open, in headless Chromium.

The study is logged as ``margincast train`` logs one: the best trials as runs, all in a table. A
study of 20 trials in another experiment of the same store stands for what the pages cost by
themselves; pages of both are opened in turn in one browser, from the request until what is looked
for can be seen, and the fastest of each counts. Budget: 2 s a page on a quiet machine. Where others
use the cores the ratio says what the 5,000 trials add.

Run: ``python benchmarks/study_view.py`` (needs ``margincast[dev]`` and a Chromium)
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import optuna
from playwright.sync_api import BrowserContext, sync_playwright

from margincast.training.tracking import Tracker
from margincast.training.tracking.study import log_study

BUDGET_SECONDS = 2.0
STORE = "sqlite:///mlruns/mlflow.db"
RUNS = 20
PAGES = (
    ("runs of the experiment", "experiments/{experiment}/runs", "study (job)"),
    ("the job's run", "experiments/{experiment}/runs/{run}", "study (job)"),
    (
        "table of all trials",
        "experiments/{experiment}/runs/{run}/artifacts/tuning/trials.csv",
        "params_num_leaves",
    ),
)
"""Title, place and what is waited for."""
PATIENCE_SECONDS = 60.0


def main() -> None:
    """Log a study, serve it and time its pages."""
    parser = argparse.ArgumentParser(description="time the MLflow pages of a large study")
    parser.add_argument("--trials", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        workspace = Path(name)
        large = logged_study(workspace, "large", arguments.trials)
        small = logged_study(workspace, "small", RUNS)
        with server(workspace) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
            context = browser.new_context(viewport={"width": 1600, "height": 1000})
            print(f"{arguments.trials:,} trials; load of the machine {os.getloadavg()[0]:.1f}")
            for title, path, text in PAGES:
                found: dict[str, list[float]] = {"large": [], "small": []}
                # the first time only warms server and browser
                for _ in range(arguments.repeats + 1):
                    for size, (experiment, run) in (("large", large), ("small", small)):
                        url = f"{address}/#/{path.format(experiment=experiment, run=run)}"
                        found[size].append(seen_after(context, url, text))
                seconds, alone = min(found["large"]), min(found["small"])
                verdict = "kept" if seconds <= BUDGET_SECONDS else "EXCEEDED"
                print(
                    f"{title}: {seconds:.2f} s, budget {BUDGET_SECONDS} s ({verdict}); "
                    f"{seconds / alone:.2f} times that of {RUNS} trials"
                )
            browser.close()


def logged_study(workspace: Path, name: str, count: int) -> tuple[str, str]:
    """Log a made-up study; returns the ids of experiment and run."""
    rng = np.random.default_rng(1)
    study = optuna.create_study()
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "rounds": optuna.distributions.IntDistribution(60, 160),
        "num_leaves": optuna.distributions.IntDistribution(3, 6),
        "min_data_factor": optuna.distributions.FloatDistribution(20.0, 80.0),
    }
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    trials = [
        optuna.trial.create_trial(
            state=states[int(rng.uniform() < 0.3)],
            params={
                "rounds": int(rng.integers(60, 161)),
                "num_leaves": int(rng.integers(3, 7)),
                "min_data_factor": float(rng.uniform(20, 80)),
            },
            distributions=space,
            value=float(rng.lognormal(0, 0.02)),
        )
        for _ in range(count)
    ]
    study.add_trials(trials)
    tracker = Tracker(STORE, name, workspace)
    with tracker.run("study (job)") as run:
        log_study(tracker, study, run, ["loss"], RUNS)
    return tracker.experiment_id, run.run_id


@contextmanager
def server(workspace: Path) -> Iterator[str]:
    """Run an MLflow server on a workspace's store; yields its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri",
        f"sqlite:///{workspace / 'mlruns' / 'mlflow.db'}", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    log = (workspace / "server.log").open("wb")
    process = subprocess.Popen(  # noqa: S603  # this interpreter, arguments of this file
        command, stdout=log, stderr=log, start_new_session=True
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not answers(f"{address}/health"):
            if time.monotonic() > deadline:
                raise SystemExit((workspace / "server.log").read_text())
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        log.close()


def answers(url: str) -> bool:
    """Say whether somebody answers at an address."""
    try:
        with urllib.request.urlopen(url, timeout=2.0):  # noqa: S310  # our own server
            return True
    except OSError:
        return False


def seen_after(context: BrowserContext, url: str, text: str) -> float:
    """Return the seconds from asking for a page until a text can be seen on it."""
    page = context.new_page()
    started = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.get_by_text(text).first.wait_for(state="visible", timeout=PATIENCE_SECONDS * 1000)
    seconds = time.perf_counter() - started
    page.close()
    return seconds


if __name__ == "__main__":
    main()
