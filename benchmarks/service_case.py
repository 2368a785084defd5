"""A workspace with a service to measure: margins of a bundle's forecasts, published, and a key."""

import contextlib
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from benchmarks.margin_levels import schedule_of

from margincast.core.types import FloatArray
from margincast.jobs.serve import create_key
from margincast.margin.background import Background
from margincast.margin.beside_maintenance import InitialInputs
from margincast.margin.level_inputs import LevelInputs
from margincast.margin.levels import costs_of
from margincast.margin.tier_rows import tier_rows
from margincast.serving.batch import levels_from
from margincast.serving.publications.store import PublicationStore
from margincast.serving.scored import Origin, policy_hash
from margincast.specs.loading import load_spec
from margincast.specs.serving import MarginPolicy

CHECKOUT = Path(__file__).resolve().parents[1]
CALL = [sys.executable, "-c", "from margincast.cli import main; main()"]


def write_workspace(folder: Path, symbols: list[str], forecasts: FloatArray, tiers: int) -> str:
    """Write a workspace whose one publication margins some forecasts; return a key.

    Args:
        folder: that is made.
        symbols: contracts, sorted.
        forecasts: of longs and shorts, fractions, shape (C, 2).
        tiers: of every contract.
    """
    for name in ("features", "training", "serving", "mlruns"):
        (folder / name).mkdir(parents=True)
    text = (CHECKOUT / "serving" / "service.toml").read_text(encoding="utf-8")
    (folder / "serving" / "service.toml").write_text(text, encoding="utf-8")
    policy = load_spec(
        CHECKOUT / "serving" / "perp-8h.toml", MarginPolicy, ["limits.multiplier_cap=1000"]
    )
    schedule = schedule_of(symbols, tiers, np.random.default_rng(8))
    rows = tier_rows(symbols, schedule, policy)
    at = datetime.now(UTC).replace(microsecond=0)
    moment = np.datetime64(at.replace(tzinfo=None), "us")
    costs, reasons = costs_of(rows, policy, {})
    inputs = LevelInputs(
        rows.symbols,
        forecasts,
        np.full(len(symbols), moment),
        np.full(len(symbols), "", dtype=object),
        costs,
        reasons,
        Background.none(len(rows), moment),
        InitialInputs.unknown(len(symbols), policy),
    )
    origin = Origin("benchmark/1", "0" * 64, policy_hash(policy, schedule))
    PublicationStore(folder / "publications" / policy.name).publish(
        levels_from(inputs, policy, schedule, origin, ()),
        policy=policy,
        schedule=schedule,
        overrides=(),
        by="benchmark",
        reason="to be measured",
        follows=0,
    )
    return create_key(folder, "benchmark", ["read"], expires=None, who="benchmark")


@contextlib.contextmanager
def serving(
    folder: Path, workers: int, *settings: str, ready: bool = True
) -> Iterator[tuple[int, "subprocess.Popen[bytes]", float]]:
    """Serve a workspace; gives the port, the process, and the seconds from start to ready.

    Args:
        folder: the workspace.
        workers: processes that answer.
        settings: further values of its configuration.
        ready: whether margins that are young enough are waited for, or any answer.
    """
    options = (
        "address.port=0",
        f"address.workers={workers}",
        "limits.requests_per_second=1e6",
        *settings,
    )
    command = [*CALL, "serve", str(folder), *(f"--set={one}" for one in options)]
    log = folder / "serve.log"
    started = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)  # noqa: S603  # our own
    try:
        port = 0
        while not port:
            found = re.search(r"http://127.0.0.1:([0-9]+)", log.read_text())
            port = int(found[1]) if found else 0
            time.sleep(0.02)
        wait_for(f"http://127.0.0.1:{port}/{'ready' if ready else 'health'}")
        yield port, process, time.perf_counter() - started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def wait_for(address: str) -> None:
    """Wait until an address answers."""
    while True:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(address, timeout=5) as answer,  # noqa: S310  # this machine
        ):
            if answer.status == 200:
                return
        time.sleep(0.02)


def get(target: str, key: str, *headers: str) -> str:
    """Return a whole request as text."""
    lines = (f"GET {target} HTTP/1.1", "host: 127.0.0.1", f"authorization: Bearer {key}", *headers)
    return "\r\n".join(lines) + "\r\n\r\n"
