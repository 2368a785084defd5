"""No look-ahead, proved: ten thousand other futures leave every feature as it was, to the last bit.

The check itself stands in ``look_ahead.py``; it must also catch leaks that are planted here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from tests.features.look_ahead import Check, Outcome, build_from_frames, moved
from tests.features.look_ahead_changes import CHANGES, blank
from tests.features.look_ahead_files import build_from_files
from tests.features.look_ahead_market import (
    FIRST,
    LEADER,
    ROWS,
    START,
    STEP,
    Market,
    Rows,
    random_market,
)
from tests.features.look_ahead_rooms import MOVE, Room, room, rooms

from margincast.data.trades import read_trades
from margincast.features import alignment, pipeline, trade_flow
from margincast.features.library import LIBRARY, Window, feature
from margincast.features.order_book import on_decisions, reduction
from margincast.features.order_book.snapshots import (
    BOOK_FEATURES,
    FloatArray,
    Snapshots,
    book_feature,
)

CHECKOUT = Path(__file__).resolve().parents[2]
CASES = 10_000
ROOMS = rooms()
NAMES = [part.name for part in ROOMS]
ANY = Check()

SELDOM_KNOWN = {
    "depth_recovery": "the depth of a book must have dropped just so long ago",
    "depth_restored": "a large trade must have taken depth",
    "hill_tail_index": "ten of sixty moves must lie in the tail",
}
"""Functions whose value is often not defined, on any data."""


def finished(check: Check, parts: list[Room], cases: int, seed: int = 0) -> Outcome:
    outcome = Outcome()
    for so_far in check.run(parts, cases, seed):
        outcome = so_far
    return outcome


def few(name: str, contracts: int) -> Room:
    (found,) = [part for part in ROOMS if part.name == name]
    return Room(name, found.features, found.tables, contracts, found.together, 1.0)


def cases_of(part: Room) -> int:
    return round(CASES * part.share / sum(each.share for each in ROOMS)) + 1


def known_share(outcome: Outcome, column: str) -> float:
    known, of = outcome.known[column]
    return known / of


# --- the check over the whole library -------------------------------------------------------------


@pytest.mark.parametrize("part", ROOMS, ids=NAMES)
def test_no_other_future_moves_a_bit_of_the_past(part):
    outcome = finished(ANY, [part], cases_of(part))
    assert outcome.failures == []
    assert outcome.cases[part.name] >= cases_of(part)
    # that nothing moved says little of values that are not known; the last room is too small to
    # tell, and holds the same columns as the others
    if part is not ROOMS[-1]:
        for column in outcome.known:
            seldom = any(name in column for name in SELDOM_KNOWN)
            assert known_share(outcome, column) > (0.05 if seldom else 0.6), column
    # every change happened to every table that the room reads
    if cases_of(part) > 500:
        for table in part.tables:
            for change in CHANGES:
                assert outcome.changes[f"{table}: {change.__name__}"] > 0


def test_the_rooms_hold_every_function_and_all_the_cases():
    held = {(family, line.function) for part in ROOMS for family, line in part.lines}
    assert held == set(LIBRARY)
    # and so does the room in which all families meet
    assert {(family, line.function) for family, line in ROOMS[-1].lines} == set(LIBRARY)
    assert sum(cases_of(part) for part in ROOMS) >= CASES


@pytest.mark.parametrize("threads", [1, 2])
def test_the_past_stays_for_any_number_of_threads(threads):
    code = (
        "import json, polars\n"
        "from tests.features.look_ahead import Check\n"
        "from tests.features.look_ahead_rooms import rooms\n"
        "for outcome in Check().run(rooms()[-1:], 3, 7): pass\n"
        "print(json.dumps([polars.thread_pool_size(), outcome.total, outcome.failures]))\n"
    )
    done = subprocess.run(  # noqa: S603  # our own interpreter on the text above
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
        env=os.environ | {"POLARS_MAX_THREADS": str(threads)},
    )
    assert done.returncode == 0, done.stderr
    pool, total, failures = json.loads(done.stdout)
    assert (pool, failures) == (threads, [])
    assert total >= 3


# --- through the readers --------------------------------------------------------------------------


@pytest.fixture
def through_files(tmp_path) -> Check:
    """The check from Parquet files on; a reader refuses what a feed must not leave empty."""
    changes = [change for change in CHANGES if change is not blank]
    return Check(partial(build_from_files, tmp_path / "market"), changes, 6)


@pytest.mark.parametrize(
    ("name", "contracts", "cases"),
    [
        ("bars 1", 3, 24),
        ("derivatives 1", 3, 24),
        ("book", 3, 24),
        ("trades", 3, 24),
        ("everything", 2, 2),
    ],
)
def test_no_other_future_moves_the_past_through_the_readers(through_files, name, contracts, cases):
    outcome = finished(through_files, [few(name, contracts)], cases)
    assert outcome.failures == []


def late_snapshots(rng: np.random.Generator) -> tuple[Market, Market, dict[str, int]]:
    """A market with some snapshots late, or absent, and the decision that they come after."""
    market = random_market(rng, 4, ("bars", "book"))
    last, late, absent = {}, {}, {}
    for symbol, contract in market.items():
        book = contract["book"]
        last[symbol] = FIRST + STEP * int(rng.integers(ROWS // 2, ROWS - 1))
        age = last[symbol] - book.known_at
        chosen = (age >= 0) & (age < 2 * STEP) & (rng.random(len(book)) < 0.3)
        arrival = last[symbol] + rng.integers(1, 2 * STEP, len(book))
        known_at = np.where(chosen, arrival, book.known_at)
        late[symbol] = {**contract, "book": replace(book, known_at=known_at)}
        absent[symbol] = {**contract, "book": book.take(~chosen)}
    return late, absent, last


@pytest.mark.parametrize("seed", range(4))
def test_a_late_snapshot_holds_back_no_other_and_counts_for_nothing_before(tmp_path, seed):
    part = few("book", 4)
    late, absent, last = late_snapshots(np.random.default_rng(seed))
    with_late, without = (
        build_from_files(tmp_path / "market", part, market) for market in (late, absent)
    )
    assert moved(without, with_late, last) == []


@pytest.mark.parametrize("later", [[], ["sell"], [None, "sell", "buy"]])
def test_what_side_later_trades_are_on_changes_no_earlier_one(tmp_path, later):
    # that a feed has both sides is seen when it has, not before
    side = ["buy"] * 50 + later
    ts = [START + second * timedelta(seconds=1) for second in range(len(side))]
    frame = pl.DataFrame({"ts": ts, "price": 100.0, "size": 1.0, "side": side})
    (tmp_path / "trades").mkdir()
    frame.write_parquet(tmp_path / "trades" / "BTCUSDT.parquet")
    read = read_trades(tmp_path, ["trades"], []).frames["BTCUSDT"].collect()
    assert read["side"].to_list() == [None] * 50 + later


# --- a feed that is silent: it may have ended -----------------------------------------------------

SEEN = ["relative_spread_last", "trade_count_2d", MOVE]
OF_BOOKS_AND_TRADES = {
    "bars": [{"function": "log_return", "windows": ["12h"]}],
    "book": [{"function": "relative_spread", "statistics": ["last", "mean"], "windows": ["2d"]}],
    "trades": [{"function": "trade_count", "windows": ["2d"]}],
}
BESIDE = room(
    "beside the leader's book and trades",
    OF_BOOKS_AND_TRADES
    | {"market": [{"function": "leader_gap", "columns": SEEN, "windows": ["1d"]}]},
    contracts=3,
)
TRADES_ALONE = replace(few("trades", 3), tables=("bars", "trades"))
SILENT = {
    "book": ({"book"}, few("book", 3), "all"),
    "trades": ({"trades"}, few("trades", 3), "all"),
    "trades without a book": ({"trades"}, TRADES_ALONE, "all"),
    "funding": ({"funding"}, few("derivatives 1", 3), "all"),
    "the leader's index": ({"implied_vol"}, few("implied_vol", 1), "the leader"),
    "the leader's bars": ({"bars"}, BESIDE, "the leader"),
    "all of the leader": ({"bars", "book", "trades"}, BESIDE, "the leader"),
    "the leader's bars beside its index": ({"bars"}, few("implied_vol", 2), "the leader"),
}
"""Which tables are silent, in which room, of which contracts."""


def silenced(rows: Rows, silent_from: int, at: int, *, ends: bool) -> Rows:
    """Rows of a feed that is silent until a decision; that goes on after it, or has ended."""
    silent = (rows.known_at > silent_from) & (rows.known_at <= at)
    if ends:
        return rows.take(rows.known_at <= silent_from)
    if rows.table == "bars":  # a missing bar is a hole in the grid
        return replace(rows, values=np.where(silent[:, None], np.nan, rows.values))
    return rows.take(~silent)


def with_silence(case: str) -> list[str]:
    """What moves until a decision if a silent feed never goes on instead of later."""
    tables, part, of = SILENT[case]
    found = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        market = random_market(rng, part.contracts, part.tables)
        at = FIRST + STEP * int(rng.integers(ROWS // 2, ROWS - 10))
        silent_from = at - STEP * int(rng.integers(1, 3))
        goes_on, ended = (
            {
                symbol: {
                    table: silenced(rows, silent_from, at, ends=ends)
                    if table in tables and (of == "all" or symbol == LEADER)
                    else rows
                    for table, rows in contract.items()
                }
                for symbol, contract in market.items()
            }
            for ends in (False, True)
        )
        before, after = (build_from_frames(part, one) for one in (goes_on, ended))
        found += moved(before, after, dict.fromkeys(market, at))
    return found


@pytest.mark.parametrize("case", SILENT)
def test_whether_a_silent_feed_will_go_on_moves_nothing(case):
    assert with_silence(case) == []


@pytest.mark.parametrize("case", ["book", "trades without a book", "all of the leader"])
def test_a_grid_that_ends_with_its_feed_is_caught(monkeypatch, case):
    def to_the_last_row(intervals, interval, until=None):
        return on_decisions(intervals, interval)

    for module in (reduction, trade_flow.reduction):
        monkeypatch.setattr(module, "on_decisions", to_the_last_row)
    assert with_silence(case) != []


# --- planted leaks, each caught by the same check -------------------------------------------------


@pytest.fixture
def plant() -> Iterator[Callable[[], None]]:
    """Take features that a test registers out of the library again."""
    known, known_kernels = dict(LIBRARY), dict(BOOK_FEATURES)
    yield lambda: None
    for registered, before in ((LIBRARY, known), (BOOK_FEATURES, known_kernels)):
        for key in set(registered) - set(before):
            del registered[key]


def leaking(family: str, **line: object) -> Room:
    """A room of one line, built of few contracts."""
    return room("leak", {family: [line]}, contracts=8)


def caught(part: Room, cases: int = 60, check: Check = ANY) -> bool:
    return bool(finished(check, [part], cases).failures)


WINDOWED = {"windows": ["2d"]}


def test_a_bar_feature_that_reads_one_bar_ahead_is_caught(plant):
    @feature("bars", "fraction")
    def leaked_low(window: Window) -> pl.Expr:
        return pl.col("low").shift(-1) / pl.col("close") - 1

    assert caught(leaking("bars", function="leaked_low", **WINDOWED))


def test_a_bar_feature_with_a_centred_window_is_caught(plant):
    @feature("bars", "fraction")
    def leaked_centre(window: Window) -> pl.Expr:
        return pl.col("close").rolling_mean(2 * window.rows + 1, center=True, min_samples=1)

    assert caught(leaking("bars", function="leaked_centre", **WINDOWED))


def test_a_bar_feature_scaled_by_the_whole_sample_is_caught(plant):
    @feature("bars", "number")
    def leaked_score(window: Window) -> pl.Expr:
        return (pl.col("volume") - pl.col("volume").mean()) / pl.col("volume").std()

    assert caught(leaking("bars", function="leaked_score", **WINDOWED))


def test_a_bar_feature_that_knows_how_many_rows_there_will_be_is_caught(plant):
    @feature("bars", "number")
    def leaked_age(window: Window) -> pl.Expr:
        return pl.int_range(pl.len()) / pl.len()

    assert caught(leaking("bars", function="leaked_age", **WINDOWED))


def test_a_state_read_one_row_ahead_is_caught(plant):
    @feature("derivatives", "fraction", argument="nothing")
    def leaked_funding() -> pl.Expr:
        return pl.col("funding_rate").shift(-1)

    assert caught(leaking("derivatives", function="leaked_funding"))


def test_a_book_kernel_that_reads_the_next_snapshot_is_caught(plant):
    @book_feature("fraction", argument="nothing")
    def leaked_mid(book: Snapshots) -> FloatArray:
        return np.append(book.mid[1:], np.nan) / book.mid - 1

    line = {"function": "leaked_mid", "statistics": ["last"]}
    assert caught(leaking("book", **line))


def test_a_trade_feature_that_reads_the_next_interval_is_caught(plant):
    @feature("trades", "number")
    def leaked_count(window: Window) -> pl.Expr:
        return pl.col("trade_count").rolling_mean(window.rows).shift(-1)

    assert caught(leaking("trades", function="leaked_count", **WINDOWED))


def test_a_feature_that_reads_the_leader_a_row_later_is_caught(plant):
    @feature("market", "fraction", argument="columns and windows")
    def leaked_leader(column: str, window: Window) -> pl.Expr:
        return pl.col(f"leader's {column}").shift(-window.rows)

    sections = {
        "bars": [{"function": "log_return", "windows": ["12h"]}],
        "market": [{"function": "leaked_leader", "columns": [MOVE], "windows": ["12h"]}],
    }
    assert caught(room("leak", sections, contracts=8))


def test_a_cross_section_over_a_later_row_is_caught(monkeypatch):
    honest = pipeline.across_contracts

    def a_row_later(plan, table):
        ahead = table.with_columns(pl.col(MOVE).shift(-1).over("symbol", order_by="ts").alias(MOVE))
        seen = honest(plan, ahead).select("symbol", "ts", f"market_median_{MOVE}")
        return table.join(seen, on=["symbol", "ts"], how="left")

    monkeypatch.setattr(pipeline, "across_contracts", a_row_later)
    sections = {
        "bars": [{"function": "log_return", "windows": ["12h"]}],
        "market": [{"function": "market_median", "columns": [MOVE]}],
    }
    assert caught(room("leak", sections, contracts=3, together=True), 20)


def test_a_state_joined_forward_in_time_is_caught(monkeypatch):
    def forward(decided, rows, tolerance, at="decided_at"):
        return decided.join_asof(
            rows, left_on=at, right_on="known_at", strategy="forward", tolerance=tolerance
        ).drop("known_at", strict=False)

    monkeypatch.setattr(alignment, "_with_newest", forward)
    assert caught(leaking("derivatives", function="funding_rate"))


@pytest.mark.parametrize(
    ("family", "line"),
    [
        ("book", {"function": "relative_spread", "statistics": ["last"]}),
        ("trades", {"function": "trade_count", **WINDOWED}),
        ("derivatives", {"function": "funding_rate"}),
    ],
)
def test_a_reader_that_takes_a_rows_own_time_for_its_arrival_is_caught(family, line):
    def believing(part: Room, market: Market) -> pd.DataFrame:
        believed = {
            symbol: {
                table: rows if table == "bars" else replace(rows, known_at=rows.ts).ordered()
                for table, rows in contract.items()
            }
            for symbol, contract in market.items()
        }
        return build_from_frames(part, believed)

    assert caught(leaking(family, **line), check=Check(believing))


def test_the_planted_leaks_are_gone():
    assert not [name for _, name in LIBRARY if name.startswith("leaked")]
    assert not [name for name in BOOK_FEATURES if name.startswith("leaked")]
