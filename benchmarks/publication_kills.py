"""Kill -9 of scoring and publishing at random moments: nothing torn, nothing published lost.

What is claimed: whenever a publisher is killed, every table that can be read is whole, every
publication that was there still is, byte by byte, and the next run starts clean. Half of the kills
hit the command (``margincast score --publish`` on the simulated market, killed anywhere between its
start and its end), half a process that does nothing but publish a venue's table, so that most of
them hit the writing itself.

Run: ``python -m benchmarks.publication_kills``
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from margincast.core.digest import digest_of_file
from margincast.serving.publications.store import PublicationStore, store_of

CHECKOUT = Path(__file__).resolve().parents[1]
SMALL = (
    "target.horizons=30m",
    "target.levels=[0.9, 0.95, 0.99]",
    "model.window=30d",
    "model.head.rounds=8",
    "model.head.min_data_factor=10.0",
    "model.tail.threshold_level=0.95",
    "model.tail.from_level=0.99",
    "model.calibration.folds=3",
    "tuning.trials=1",
    "tracking.explained_decisions=0",
    "data.simulated.days=10",
    "backtest.start=2026-01-06",
    "backtest.end=2026-01-09",
    "backtest.refit_every=4d",
    'backtest.peers=["static", "ewma_fhs"]',
    "gate.pinball_ratio_max=10.0",
    (
        "gate.coverage=[{level=0.9, exceedance_ratio_min=0.0, exceedance_ratio_max=100.0, "
        "expected_exceedances_min=0.0}]"
    ),
    "gate.battery.levels=[0.9]",
    "gate.battery.not_failed_min=0.0",
    "gate.procyclicality.largest_one_day_rise_max=1e6",
    "gate.procyclicality.peak_to_trough_max=1e6",
)
"""A champion of seconds: what is proved here is the writing, not the model."""


def main() -> None:
    """Kill, look, and count."""
    parser = argparse.ArgumentParser(description="kill -9 during score and publish")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        half = arguments.kills // 2
        told = [
            kill_publishers(folder / "bare", half, rng),
            kill_commands(folder / "workspace", arguments.kills - half, rng),
        ]
    for name, found in zip(("publishing alone", "score --publish"), told, strict=True):
        parts = ", ".join(f"{count} {what}" for what, count in sorted(found.items()))
        print(f"{name}: {sum(found.values())} kills ({parts}); no torn table, nothing lost")


def kill_publishers(folder: Path, kills: int, rng: np.random.Generator) -> Counter[str]:
    """Kill processes that publish one large table after the other."""
    command = [sys.executable, "-m", "benchmarks.publication_kills_publisher", str(folder)]
    return _kill(
        command, PublicationStore(folder), kills, lambda: float(rng.uniform(0.0, 1.0)), lambda: None
    )


def kill_commands(workspace: Path, kills: int, rng: np.random.Generator) -> Counter[str]:
    """Kill ``margincast score --publish`` anywhere in its life."""
    _run("init", str(workspace))
    spec = workspace / "training" / "demo.toml"
    _run("train", str(spec), *(part for text in SMALL for part in ("--set", text)))
    out = workspace / "out" / "margins"
    policy = workspace / "serving" / "demo.toml"
    minutes = iter(range(10_000))

    def command() -> list[str]:
        minute = next(minutes)
        at = f"2026-01-10T{12 + minute // 60:02}:{minute % 60:02}"
        return [
            *_MARGINCAST, "score", str(policy), "--out", str(out), "--at", at, "--publish",
            "--reason", f"kill {minute}",
        ]  # fmt: skip

    begun = time.monotonic()
    subprocess.run(command(), check=True, capture_output=True)  # noqa: S603  # our own command
    lasts = time.monotonic() - begun
    print(f"one score --publish lasts {lasts:.1f} s")

    def look() -> None:
        for path in out.glob("*.parquet"):
            pq.read_table(path)

    store = store_of(workspace, "demo")

    def moment() -> float:
        # the end of a run is where files are written: every second kill falls there
        return float(rng.uniform(rng.choice((0.0, 0.8)), 1.02) * lasts)

    told = _kill(command, store, kills, moment, look)
    last = store.last_number
    subprocess.run(command(), check=True, capture_output=True)  # noqa: S603  # our own command
    assert store.last_number == last + 1, "a clean run publishes"
    assert not list(store.folder.glob(".new-*")), "and leaves nothing behind"
    return told


_MARGINCAST = [sys.executable, "-c", "from margincast.cli import main; main()"]


def _run(*arguments: str) -> None:
    subprocess.run([*_MARGINCAST, *arguments], check=True, capture_output=True)  # noqa: S603  # our own command


def _kill(
    command: list[str] | Callable[[], list[str]],
    store: PublicationStore,
    kills: int,
    moment: Callable[[], float],
    look: Callable[[], None],
) -> Counter[str]:
    known: dict[str, str] = {}
    told: Counter[str] = Counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    for _ in range(kills):
        process = subprocess.Popen(  # noqa: S603  # our own command
            command() if callable(command) else command,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=CHECKOUT, env=environment,
            start_new_session=True,
        )  # fmt: skip
        if not callable(command):
            assert process.stdout is not None
            process.stdout.readline()  # it is about to publish
        before = len(known)
        time.sleep(moment())
        ended = process.poll() is not None
        if not ended:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        left = bool(list(store.folder.glob(".new-*")))
        known = _intact(store, known)
        look()
        if ended:
            told["came too late"] += 1
        elif left:
            told["while a publication was written"] += 1
        else:
            told["after publishing" if len(known) > before else "before publishing"] += 1
    return told


def _intact(store: PublicationStore, known: dict[str, str]) -> dict[str, str]:
    """Check that a store is whole and has all that it had; return what it has now."""
    fresh = PublicationStore(store.folder)
    if not store.folder.is_dir():
        return known
    last = fresh.last_number
    if last:
        assert len(fresh.records()) == last
        assert len(fresh.read(last).levels) == fresh.read(last).record.levels
    found = {
        str(path): digest_of_file(path)
        for number in range(1, last + 1)
        for path in (store.folder / f"{number:06}").rglob("*")
        if path.is_file()
    }
    lost = [path for path, digest in known.items() if found.get(path) != digest]
    assert not lost, f"lost or changed: {lost[:3]}"
    return found


if __name__ == "__main__":
    main()
