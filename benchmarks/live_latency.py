"""How long a new margin takes after the row that makes it possible.

A live engine starts from ten days of the simulated market (``training/demo.toml``, three
contracts), and follows two hours more in a session like that of ``margincast live``: every row is
read from its line, looked at, and given to the features; the bar that completes a decision is timed
from its line to the snapshot with the new margins on the board. A fallback is timed from the line
of a crossed book to the snapshot. Budget: 20 ms for the 99th percentile of a new margin. Beside it
stands the same decision as batch scoring makes it, from features to table.

Run: ``POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 python -m benchmarks.live_latency``
"""

import argparse
import json
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
from benchmarks.live_case import Case, live_case

BUDGET_MILLISECONDS = 20.0


def main() -> None:
    """Feed two hours, and print the percentiles."""
    parser = argparse.ArgumentParser(description="latency of live margins")
    parser.add_argument("--hours", type=int, default=8, help="hours that are followed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        case = live_case(Path(folder), timedelta(hours=arguments.hours))
        taken = _followed(case)
        batch = _batch(case)
    print(f"{'milliseconds of':34}{'count':>8}{'median':>9}{'p99':>9}  budget")
    for what, values in taken.items():
        median, high = np.quantile(values, [0.5, 0.99])
        verdict = ""
        if what.startswith("bar to new margins"):
            verdict = "kept" if high <= BUDGET_MILLISECONDS else "EXCEEDED"
        print(f"{what:34}{len(values):8,}{median:9.3f}{high:9.3f}  {verdict}")
    live = float(np.median(taken["bar to new margins"]))
    print(f"a batch from features to the same table: {batch:.0f} ms, {batch / live:.0f} x as long")


def _followed(case: Case) -> dict[str, list[float]]:
    session = case.session
    board = session.keeper.board
    taken: dict[str, list[float]] = {
        "row": [],
        "bar to new margins": [],
        "crossed book to fallback": [],
    }
    decided = session.decisions
    for line in case.lines:
        started = time.perf_counter()
        session.receive([line])
        session.work(0.0)
        lasted = 1e3 * (time.perf_counter() - started)
        if session.decisions == decided:
            taken["row"].append(lasted)
            continue
        decided = session.decisions
        taken["bar to new margins"].append(lasted)
        assert board.current is not None
        before = board.current
        crossed = _crossed(line)
        started = time.perf_counter()
        session.receive([crossed])
        session.work(0.0)
        session.look()
        assert board.current is not before
        taken["crossed book to fallback"].append(1e3 * (time.perf_counter() - started))
        session.receive([_crossed(line, sound=True)])
        session.work(0.0)
        session.clock.hear(session.clock.now() + session.spec.recovery.quiet)
        session.look()
        session.work(0.0)
    return taken


def _crossed(bar: bytes, *, sound: bool = False) -> bytes:
    """Return a book at a bar's close, crossed or not."""
    row = json.loads(bar)
    bid, ask = row["close"] * (0.9999 if sound else 1.01), row["close"]
    sizes = {"bid_size_0": 1.0, "ask_size_0": 1.0}
    book = {"table": "book", "symbol": row["symbol"], "ts": row["ts"]}
    return json.dumps(book | {"bid_price_0": bid, "ask_price_0": ask} | sizes).encode()


def _batch(case: Case) -> float:
    """Return the milliseconds in which batch scoring makes the first table."""
    at = case.situation.newest
    lasted = []
    for _ in range(5):
        started = time.perf_counter()
        case.situation.scored_at(at, case.start.policy, case.start.schedule)
        lasted.append(1e3 * (time.perf_counter() - started))
    return float(np.median(lasted))


if __name__ == "__main__":
    main()
