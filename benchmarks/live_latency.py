"""How long a new margin takes after the row that makes it possible.

A live engine starts from ten days of the simulated market (``training/demo.toml``, which decides
at every minute here), and follows one contract or more in a session like that of ``margincast
live``: every row is read from its line, looked at, and given to the features; the bar that
completes a decision is timed from its line to the snapshot with the new margins on the board. A
fallback is timed from the line of a crossed book to the snapshot. Budget: 20 ms for the 99th
percentile of a new margin. Beside it stands the same table as batch scoring makes it, from features
on.

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


class Timer:
    """Milliseconds of the clock and of the processor: on a busy machine the first is not ours."""

    def start(self) -> None:
        """Begin."""
        self._clock, self._processor = time.perf_counter(), time.process_time()

    def stop(self) -> tuple[float, float]:
        """Return both since the beginning."""
        clock, processor = time.perf_counter(), time.process_time()
        return 1e3 * (clock - self._clock), 1e3 * (processor - self._processor)


def main() -> None:
    """Feed two hours, and print the percentiles."""
    parser = argparse.ArgumentParser(description="latency of live margins")
    parser.add_argument("--hours", type=int, default=2, help="hours that are followed")
    parser.add_argument("--contracts", type=int, default=1, choices=(1, 2, 3))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        case = live_case(Path(folder), timedelta(hours=arguments.hours), arguments.contracts)
        taken = _followed(case)
        batch = _batch(case)
    heading = ("median", "p99", "median CPU", "p99 CPU")
    print(f"{'milliseconds of':28}{'count':>7}" + "".join(f"{name:>12}" for name in heading))
    for what, values in taken.items():
        figures = np.quantile(values, [0.5, 0.99], axis=0).T.ravel()
        print(f"{what:28}{len(values):7,}" + "".join(f"{one:12.2f}" for one in figures))
    median, high = np.quantile(taken["bar to new margins"], [0.5, 0.99], axis=0)
    verdict = "kept" if high[0] <= BUDGET_MILLISECONDS else "EXCEEDED"
    print(
        f"a new margin within {BUDGET_MILLISECONDS:g} ms (p99): {verdict}; {high[1]:.1f} ms of CPU"
    )
    print(f"a batch from features to the same table: {batch / median[0]:.0f} x as long")


def _followed(case: Case) -> dict[str, list[tuple[float, float]]]:
    session = case.session
    board = session.keeper.board
    timer = Timer()
    taken: dict[str, list[tuple[float, float]]] = {
        "row": [],
        "bar to new margins": [],
        "crossed book to fallback": [],
    }
    decided = session.decisions
    for line in case.lines:
        timer.start()
        session.receive([line])
        session.work(0.0)
        lasted = timer.stop()
        if session.decisions == decided:
            taken["row"].append(lasted)
            continue
        decided = session.decisions
        taken["bar to new margins"].append(lasted)
        assert board.current is not None
        before = board.current
        crossed = _crossed(line)
        timer.start()
        session.receive([crossed])
        session.work(0.0)
        session.look()
        taken["crossed book to fallback"].append(timer.stop())
        assert board.current is not before
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
