"""How long MLflow's pages take to show a study of 5,000 trials logged as a training job does.

The best trials are runs below the job's, every trial is a line of a table, and figures lie beside
it. Against it: the same study with a run for every trial, and a job without a study, whose pages
cost what MLflow's pages cost. Three pages are opened in headless Chromium until what they are for
is drawn: the experiment's table of runs, the job's run, and the history of the search among its
artifacts. The first opening of each, which also fetches the scripts, does not count; of the others
the fastest does, because a busy machine only adds to it.

Budget: 2 s a page.

Run: ``python benchmarks/study_view.py`` (Chromium and Playwright must be there; the study with a
run for every trial takes minutes to log).
"""

import argparse
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import optuna
from playwright.sync_api import Page, sync_playwright

from margincast.training.tracking import Tracker
from margincast.training.tracking.pages import experiment_page, run_page
from margincast.training.tracking.study import log_study

URI = "sqlite:///mlruns/mlflow.db"
BUDGET_SECONDS = 2.0
SHOWN = 20
PATIENCE_MILLISECONDS = 120_000
OURS, EVERY_TRIAL, NONE = "as margincast logs it", "a run for every trial", "no study"


def main() -> None:
    """Log both studies, open the pages of both and print the seconds."""
    parser = argparse.ArgumentParser(description="MLflow's pages of a large study")
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5, help="openings of each page")
    arguments = parser.parse_args()

    study = study_of(arguments.trials)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        jobs = {}
        for name, top in ((NONE, 0), (OURS, SHOWN), (EVERY_TRIAL, arguments.trials)):
            began = time.perf_counter()
            jobs[name] = log(study, name, workspace, top)
            print(f"{name}: logged in {time.perf_counter() - began:.1f} s")
        with served(workspace) as address:
            seconds = {
                name: opened(address, experiment, run, arguments.repeats, has_study=name != NONE)
                for name, (experiment, run) in jobs.items()
            }
    print(f"{arguments.trials:,} trials; seconds until drawn")
    for page, ours in seconds[OURS].items():
        kept = "kept" if ours <= BUDGET_SECONDS else "EXCEEDED"
        ratios = ", ".join(
            f"{ours / seconds[other][page]:.2f} times {other}"
            for other in (NONE, EVERY_TRIAL)
            if page in seconds[other]
        )
        print(f"{page:>10}: {ours:.2f} s (budget {BUDGET_SECONDS:g} s: {kept}); {ratios}")


def study_of(trials: int) -> optuna.Study:
    """Make a finished study over the head's parameters."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng = np.random.default_rng(1)
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "rounds": optuna.distributions.IntDistribution(50, 500),
        "num_leaves": optuna.distributions.IntDistribution(3, 15),
        "learning_rate": optuna.distributions.FloatDistribution(0.01, 0.2, log=True),
        "feature_fraction": optuna.distributions.FloatDistribution(0.2, 1.0),
    }
    study = optuna.create_study(direction="minimize")
    began = datetime(2026, 1, 1)  # noqa: DTZ001  # Optuna's times are local and have no zone
    for number in range(trials):
        parameters = {
            "rounds": int(rng.integers(50, 501)),
            "num_leaves": int(rng.integers(3, 16)),
            "learning_rate": float(rng.uniform(0.01, 0.2)),
            "feature_fraction": float(rng.uniform(0.2, 1.0)),
        }
        trial = optuna.trial.create_trial(
            params=parameters, distributions=space, value=float(rng.normal(1.0, 0.05))
        )
        trial.datetime_start = began + number * timedelta(seconds=10)
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=9)
        study.add_trial(trial)
    return study


def log(study: optuna.Study, name: str, workspace: Path, top: int) -> tuple[str, str]:
    """Log a study below a job's run, none if none of it is shown; returns the ids."""
    tracker = Tracker(URI, name, workspace)
    with tracker.run("job", {"margincast.kind": "training job"}) as run:
        if top:
            log_study(tracker, study, run, ["pinball_ratio"], top)
    return tracker.experiment_id, run.run_id


@contextmanager
def served(workspace: Path) -> Iterator[str]:
    """Serve a workspace's pages as ``margincast ui`` does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = "from margincast.cli import main; main()"
    command = [sys.executable, "-c", program, "ui", "--workspace", str(workspace)]
    server = subprocess.Popen(  # noqa: S603  # our own command
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(address):
            if server.poll() is not None:
                raise SystemExit("the server did not start")
            time.sleep(0.1)
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def opened(
    address: str, experiment: str, run: str, repeats: int, *, has_study: bool
) -> dict[str, float]:
    """Return the fewest seconds until each page is drawn."""
    of_run = run_page(experiment, run)
    pages: dict[str, tuple[str, Callable[[Page], None]]] = {
        "experiment": (
            experiment_page(experiment),
            lambda page: page.get_by_role("link", name="job", exact=True).first.wait_for(),
        ),
        "job": (of_run, lambda page: page.get_by_text("About this run").first.wait_for()),
        "study": (
            f"{of_run}/artifacts/tuning/history.png",
            lambda page: page.wait_for_selector("img[src^='blob:'], .image-container img, canvas"),
        ),
    }
    if not has_study:
        del pages["study"]
    seconds = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MILLISECONDS)
        for name, (link, drawn) in pages.items():
            took = []
            for _ in range(repeats + 1):
                # an empty page between, or the same address would not be opened again
                page.goto("about:blank")
                began = time.perf_counter()
                page.goto(f"{address}/{link}")
                drawn(page)
                took.append(time.perf_counter() - began)
            seconds[name] = min(took[1:])
        browser.close()
    return seconds


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5):  # noqa: S310  # our own server
            return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
