"""How long a stream takes for one update and for the feature row of one decision.

One contract, which leads itself. Updates: a snapshot of 20 levels, a trade, a bar, a state.
Decisions: each shipped set from a warm history, with the snapshots and trades of each second.
Budget: 2 ms for the 99th percentile of an update. A decision has no budget of its own; beside it
stands what Polars takes to plan the set's columns over a single row, one expression a column and
nothing to compute: no stream that runs them as they are written can be faster.

Run: ``POLARS_MAX_THREADS=1 python benchmarks/stream_latency.py``
"""

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from margincast.features.order_book.statistics import signals_of
from margincast.features.plan import Plan
from margincast.features.sharing import Staged, run
from margincast.features.stream import FeatureStream
from margincast.features.trade_flow.reduction import window_columns
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec

WORKSPACE = Path(__file__).resolve().parents[1]
BUDGET_MILLISECONDS = 2.0
START = datetime(2026, 1, 1, tzinfo=UTC)
LEVELS = 20
WARM_ROWS = {"bars-1h": 2000, "demo-1m": 1500, "book-1m": 90}
TABLES = {
    "bars-1h": ("bars", "implied_vol"),
    "demo-1m": ("bars", "book", "trades"),
    "book-1m": ("book", "trades"),
}


class Timer:
    """Milliseconds of calls, by what they do."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}

    def __call__(self, what: str, call: Callable[..., object], *arguments: object) -> None:
        """Time a call."""
        started = time.perf_counter()
        call(*arguments)
        self.taken.setdefault(what, []).append(1e3 * (time.perf_counter() - started))


def main() -> None:
    """Feed each shipped set, and print the percentiles."""
    parser = argparse.ArgumentParser(description="latency of a feature stream")
    parser.add_argument("--decisions", type=int, default=200, help="decisions timed of each set")
    arguments = parser.parse_args()
    timer = Timer()
    for name, tables in TABLES.items():
        feature_set = load_spec(WORKSPACE / "features" / f"{name}.toml", FeatureSet)
        _run(timer, name, feature_set, tables, arguments.decisions)
        _plan_alone(timer, name, feature_set, arguments.decisions)
    print(f"{'milliseconds of':28}{'count':>8}{'median':>9}{'p99':>9}  budget")
    for what, taken in timer.taken.items():
        median, high = np.quantile(taken, [0.5, 0.99])
        verdict = "kept" if high <= BUDGET_MILLISECONDS else "EXCEEDED"
        verdict = verdict if what.startswith("update") else ""
        print(f"{what:28}{len(taken):8,}{median:9.3f}{high:9.3f}  {verdict}")


def _run(
    timer: Timer, name: str, feature_set: FeatureSet, tables: tuple[str, ...], decisions: int
) -> None:
    rng = np.random.default_rng(1)
    interval, symbol = feature_set.grid.interval, feature_set.grid.leader
    stream = FeatureStream(feature_set, tables, timedelta(0) if "book" in tables else None)
    rows = WARM_ROWS[name]
    close = 100.0
    for place in range(rows + decisions):
        opened = START + place * interval
        timed = place >= rows
        moved = close * float(np.exp(rng.normal(0, 0.002)))
        calls: list[tuple[str, Callable[..., object], dict[str, Any]]] = []
        if "bars" in tables:
            bar = {"ts": opened, "open": close, "close": moved, "volume": 1.0}
            bar |= {"high": max(close, moved) * 1.001, "low": min(close, moved) * 0.999}
            calls.append(("update: bar", stream.update_bar, bar))
        if "book" in tables:
            for second in range(0, 60, 1 if timed or name == "book-1m" else 30):
                at = opened + timedelta(seconds=second + 0.5)
                calls.append(("update: snapshot", stream.update_book, _snapshot(rng, at, moved)))
                trade = {"ts": at, "price": moved, "size": 1.0 + second, "side": "buy"}
                calls.append(("update: trade", stream.update_trade, trade))
        if "implied_vol" in tables:
            state = {"ts": opened, "implied_volatility": 0.5 * moved / 100}
            update_state = partial(stream.update_state, "implied_vol")
            calls.append(("update: state", update_state, state))
        for what, update, row in calls:
            if timed:
                timer(what, update, symbol, row)
            else:
                update(symbol, row)
        if timed:
            timer(f"decision: {name}", stream.decide, opened + interval)
        elif place > rows - 5 or not place % 10:
            stream.decide(opened + interval)
        close = moved


def _plan_alone(timer: Timer, name: str, feature_set: FeatureSet, times: int) -> None:
    """Time the set's columns over one row, a stage at a time as a stream runs them."""
    grid, plan = feature_set.grid, Plan.of(feature_set)
    over_bars = [column.expression for column in (*plan.own, *plan.of_leader)]
    signals = signals_of(feature_set.book, grid.interval, grid.minimum_present)
    over_book = [column for signal in signals for column in signal.columns()]
    over_trades = window_columns(feature_set.trades, grid.interval, grid.minimum_present)
    of_market = [column.expression for column in (*plan.against, *plan.across)]
    queries = []
    for columns in (over_bars, over_book, over_trades, of_market):
        read = {name for column in columns for name in column.meta.root_names()}
        row = pl.DataFrame({"ts": [START], **dict.fromkeys(read - {"ts"}, 1.0)})
        row = row.with_columns(pl.col("^is_leader$").cast(pl.Boolean))
        queries.append(Staged.of(columns).query(row, ("ts",)))
    for _ in range(times):
        timer(f"planning alone: {name}", lambda: [run(query) for query in queries])


def _snapshot(rng: np.random.Generator, ts: datetime, mid: float) -> dict[str, Any]:
    sizes = rng.lognormal(0, 1, (LEVELS, 2))
    row: dict[str, Any] = {"ts": ts}
    for level, (bid_size, ask_size) in enumerate(sizes.tolist()):
        step = mid * 1e-4 * (level + 0.5)
        row |= {
            f"bid_price_{level}": mid - step,
            f"bid_size_{level}": bid_size,
            f"ask_price_{level}": mid + step,
            f"ask_size_{level}": ask_size,
        }
    return row


if __name__ == "__main__":
    main()
