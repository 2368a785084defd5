"""Injected faults: each one is where the list says, and nothing else has changed."""

from datetime import UTC, datetime, timedelta
from typing import get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from margincast.core.errors import InputError
from margincast.data.simulated.feed_faults import (
    UNIT_FACTOR,
    FaultKind,
    InjectedFault,
    faults_table,
    inject_faults,
)
from margincast.data.simulated.market import simulate_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts

KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
IN_PLACE = (
    "locked_book",
    "crossed_book",
    "empty_book_side",
    "unit_change",
    "price_spike",
    "negative_size",
)


@pytest.fixture(scope="module")
def clean() -> dict[str, pl.DataFrame]:
    parameters = MarketParameters(contracts=select_contracts(["SIM-BTC", "SIM-ALT"]))
    start = datetime(2025, 1, 1, tzinfo=UTC)
    return simulate_market(parameters, days=1, seed=1, start=start).tables


def feed(tables: dict[str, pl.DataFrame], fault: InjectedFault) -> pl.DataFrame:
    return tables[fault.table].filter(pl.col("symbol") == fault.symbol)


def only(
    clean: dict[str, pl.DataFrame], kind: FaultKind, table: str, seed: int = 0
) -> tuple[pl.DataFrame, pl.DataFrame, InjectedFault]:
    """One fault of one kind in one contract's rows of a table: before, after, and the fault."""
    before = clean[table].filter(pl.col("symbol") == "SIM-ALT")
    faulty, faults = inject_faults({table: before}, faults_per_feed=1, seed=seed, kinds=[kind])
    assert [fault.kind for fault in faults] == [kind]
    return before, faulty[table], faults[0]


def test_the_same_seed_gives_the_same_faults_and_another_one_others(clean) -> None:
    first, again, other = (inject_faults(clean, faults_per_feed=5, seed=s) for s in (1, 1, 2))
    assert first[1] == again[1] != other[1]
    for table in clean:
        assert_frame_equal(first[0][table], again[0][table])


def test_no_faults_leave_everything_as_it_is(clean) -> None:
    faulty, faults = inject_faults(clean, faults_per_feed=0, seed=1)
    assert faults == ()
    for table in clean:
        assert_frame_equal(faulty[table], clean[table])


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 25))
def test_rows_that_no_fault_names_are_the_clean_ones(clean, seed: int, count: int) -> None:
    faulty, faults = inject_faults(clean, faults_per_feed=count, seed=seed)
    for table, frame in faulty.items():
        assert frame.columns == clean[table].columns
        for symbol in ("SIM-BTC", "SIM-ALT"):
            own = [fault for fault in faults if (fault.table, fault.symbol) == (table, symbol)]
            before = clean[table].filter(pl.col("symbol") == symbol)
            after = frame.filter(pl.col("symbol") == symbol)
            rows = [row for fault in own for row in fault.rows]
            assert len(rows) == len(set(rows))
            removed = sum(f.row_count for f in own if f.kind == "missing_stretch")
            added = sum(f.row_count for f in own if f.kind == "duplicated_rows")
            assert len(after) == len(before) - removed + added
            untouched = after.filter(~pl.int_range(pl.len()).is_in(rows))
            kept = len(untouched)
            assert (
                len(untouched.join(before, on=before.columns, how="semi", nulls_equal=True)) == kept
            )
            assert untouched["ts"].is_sorted()


def test_kinds_go_round_so_that_every_possible_one_occurs(clean) -> None:
    _, faults = inject_faults(clean, faults_per_feed=9, seed=3)
    assert {fault.kind for fault in faults} == set(KINDS)
    whole = [fault for fault in faults if fault.kind == "time_zone_shift"]
    assert len(whole) == 1
    alone = [f for f in faults if (f.table, f.symbol) == (whole[0].table, whole[0].symbol)]
    assert alone == whole


def test_a_missing_stretch_is_gone(clean) -> None:
    before, after, fault = only(clean, "missing_stretch", "bars")
    gap = after["ts"].diff().drop_nulls().max()
    assert gap == (fault.row_count + 1) * timedelta(minutes=1)
    assert_frame_equal(
        after, before.filter(~pl.col("ts").is_between(fault.first_ts, fault.last_ts))
    )
    assert fault.rows == ()


def test_duplicated_rows_follow_their_twins(clean) -> None:
    before, after, fault = only(clean, "duplicated_rows", "bars")
    assert_frame_equal(after.unique(maintain_order=True), before)
    for row in fault.rows:
        assert after.row(row) == after.row(row - 1)
    assert after[list(fault.rows)]["ts"].to_list()[0] == fault.first_ts


@pytest.mark.parametrize("table", ["bars", "trades", "book"])
def test_rows_out_of_order_are_all_there_and_run_backwards(clean, table: str) -> None:
    before, after, fault = only(clean, "out_of_order_rows", table)
    assert_frame_equal(
        after.sort("ts", maintain_order=True), before.sort("ts"), check_row_order=True
    )
    backwards = np.flatnonzero(after["ts"].diff().dt.total_microseconds().to_numpy()[1:] < 0) + 1
    assert backwards.tolist() == [fault.rows[0]]


def test_books_are_locked_crossed_or_empty_where_it_says(clean) -> None:
    for kind, sign in (("locked_book", 0), ("crossed_book", -1)):
        _, after, fault = only(clean, kind, "book")
        spread = np.sign((after["ask_price_0"] - after["bid_price_0"]).to_numpy())
        assert np.flatnonzero(spread != 1).tolist() == list(fault.rows)
        assert (spread[list(fault.rows)] == sign).all()
    _, after, fault = only(clean, "empty_book_side", "book")
    side = fault.detail.removeprefix("no ").removesuffix("s")
    for column in (f"{side}_price_0", f"{side}_size_9"):
        assert np.flatnonzero(after[column].is_null()).tolist() == list(fault.rows)


def test_a_unit_change_leaves_notional_as_it_was(clean) -> None:
    before, after, fault = only(clean, "unit_change", "trades")
    rows = list(fault.rows)
    assert_frame_equal(
        after.select(pl.col("price") * pl.col("size")),
        before.select(pl.col("price") * pl.col("size")),
        rel_tol=1e-12,
    )
    ratio = (after["price"] / before["price"]).to_numpy()
    assert np.flatnonzero(ratio != 1.0).tolist() == rows
    assert ratio[rows] == pytest.approx(UNIT_FACTOR)


def test_a_spike_is_one_price_and_a_negative_size_is_negative(clean) -> None:
    before, after, fault = only(clean, "price_spike", "bars")
    assert np.flatnonzero(after["high"] != before["high"]).tolist() == list(fault.rows)
    assert fault.row_count == 1
    assert_frame_equal(after.drop("high"), before.drop("high"))
    for table, column in (
        ("trades", "size"),
        ("bars", "volume"),
        ("open_interest", "open_interest"),
    ):
        _, after, fault = only(clean, "negative_size", table)
        assert np.flatnonzero(after[column] < 0.0).tolist() == list(fault.rows)


def test_a_shifted_feed_is_shifted_by_whole_hours(clean) -> None:
    before, after, fault = only(clean, "time_zone_shift", "bars")
    shift = (after["ts"] - before["ts"]).unique().to_list()
    assert len(shift) == 1
    assert shift[0] != timedelta(0)
    assert shift[0] % timedelta(hours=1) == timedelta(0)
    assert fault.detail == f"{shift[0] // timedelta(hours=1):+d} hours"
    assert_frame_equal(after.drop("ts"), before.drop("ts"))


def test_the_list_of_faults_is_a_table(clean) -> None:
    _, faults = inject_faults(clean, faults_per_feed=3, seed=3)
    table = faults_table(faults)
    assert table["row_count"].to_list() == [fault.row_count for fault in faults]
    assert table["rows"].to_list() == [list(fault.rows) for fault in faults]
    assert faults_table([]).schema == table.schema


def test_rows_of_one_time_and_short_feeds_are_left_alone() -> None:
    ts = pl.Series("ts", [datetime(2025, 1, 1, tzinfo=UTC)] * 30).cast(pl.Datetime("us", "UTC"))
    one_time = pl.DataFrame({"symbol": ["A"] * 30, "ts": ts, "price": np.arange(30.0)})
    for rows, kind in ((one_time, "out_of_order_rows"), (one_time[:5], "missing_stretch")):
        faulty, faults = inject_faults({"trades": rows}, faults_per_feed=1, seed=1, kinds=[kind])
        assert faults == ()
        assert_frame_equal(faulty["trades"], rows)


def test_unknown_kinds_and_counts_below_zero_are_refused(clean) -> None:
    with pytest.raises(InputError, match="no fault is called 'typo'; choose among missing"):
        inject_faults(clean, faults_per_feed=1, seed=1, kinds=["typo"])
    with pytest.raises(InputError, match="zero or more, found -1 and 1"):
        inject_faults(clean, faults_per_feed=-1, seed=1)
