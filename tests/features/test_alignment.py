"""What stands beside a bar was known at its close, still stands, and is never a guess."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.features.alignment import (
    LIQUIDATION_COLUMNS,
    LONGEST_SILENCE,
    not_of_bars,
    with_states,
)
from margincast.specs.features import Standing

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
UTC_TIME = pl.Datetime("us", "UTC")
STANDING = Standing(
    funding=3 * HOUR, open_interest=3 * HOUR, implied_vol=3 * HOUR, options=3 * HOUR
)


def bars(count: int, interval: timedelta = HOUR) -> pl.DataFrame:
    opens = [START + number * interval for number in range(count)]
    return pl.DataFrame({"ts": opens, "close": [100.0] * count}, schema_overrides={"ts": UTC_TIME})


def state(known_at: list[datetime], ts: list[datetime] | None = None, **values: list):
    columns = {"ts": known_at if ts is None else ts, "known_at": known_at, **values}
    return pl.DataFrame(columns, schema_overrides={"ts": UTC_TIME, "known_at": UTC_TIME})


def aligned(frame, states, wanted, interval=HOUR, standing=STANDING):
    return with_states(frame, interval, states, standing, wanted)


def minutes(number: float) -> datetime:
    return START + timedelta(minutes=number)


# --- states ---------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(-300, 700), st.integers(0, 400)), max_size=25),
    st.sampled_from([0, 60, 240]),
    st.integers(1, 500),
)
def test_the_newest_row_known_that_still_stands_as_a_slow_loop_finds_it(
    given_rows, covers, tolerance
):
    ordered = sorted((ts + covers + late, ts) for ts, late in given_rows)
    known_at, ts = [minutes(row[0]) for row in ordered], [minutes(row[1]) for row in ordered]
    values = [float(number) for number in range(len(ordered))]
    rows = state(known_at, ts, funding_rate=values)
    length = timedelta(minutes=covers)
    if covers:
        rows = rows.with_columns(pl.lit(length, dtype=pl.Duration("us")).alias("covers"))
    made = aligned(
        bars(12),
        {"funding": rows},
        ["funding_rate"],
        standing=Standing(funding=timedelta(minutes=tolerance)),
    )
    expected = []
    for number in range(12):
        decided = START + (number + 1) * HOUR
        held = None
        for known, own, value in zip(known_at, ts, values, strict=True):
            if known <= decided and (held is None or own >= held[0]):
                held = (own, value)
        stands = held is not None and decided - held[0] - length <= timedelta(minutes=tolerance)
        expected.append(held[1] if held is not None and stands else None)
    assert made["funding_rate"].to_list() == expected


def test_a_row_that_comes_weeks_late_is_not_fresh():
    """A backfill: the rate of weeks ago is known from now on, and does not stand for today."""
    rows = state([START], [START - timedelta(days=20)], funding_rate=[7.0])
    made = aligned(bars(2), {"funding": rows}, ["funding_rate"])
    assert made["funding_rate"].to_list() == [None, None]


def test_an_interval_ages_from_its_close():
    rows = state([START], [START - 4 * HOUR], implied_volatility=[0.5])
    for covers, expected in ((2 * HOUR, [0.5, None]), (HOUR, [None, None])):
        of_interval = rows.with_columns(pl.lit(covers, dtype=pl.Duration("us")).alias("covers"))
        made = aligned(bars(2), {"implied_vol": of_interval}, ["implied_volatility"])
        assert made["implied_volatility"].to_list() == expected


def test_known_at_the_decision_counts_and_a_microsecond_later_does_not():
    decided = START + HOUR
    for known_at, expected in ((decided, 7.0), (decided + MICROSECOND, None)):
        made = aligned(
            bars(1), {"funding": state([known_at], funding_rate=[7.0])}, ["funding_rate"]
        )
        assert made["funding_rate"].to_list() == [expected]


def test_a_row_stands_as_long_as_it_may_and_a_microsecond_longer_is_too_old():
    decided = START + HOUR
    for age, expected in ((3 * HOUR, 7.0), (3 * HOUR + MICROSECOND, None)):
        rows = state([decided - age], funding_rate=[7.0])
        made = aligned(bars(1), {"funding": rows}, ["funding_rate"])
        assert made["funding_rate"].to_list() == [expected]


def test_an_unknown_value_hides_what_stood_before_it():
    rows = state([START, START + HOUR], open_interest=[5.0, 6.0], open_interest_usd=[9.0, None])
    made = aligned(bars(1), {"open_interest": rows}, ["open_interest", "open_interest_usd"])
    assert made.select("open_interest", "open_interest_usd").rows() == [(6.0, None)]


def test_options_give_the_columns_that_are_theirs_alone():
    states = {
        "options": state([START], skew=[0.1], open_interest=[1e9], implied_volatility=[9.0]),
        "open_interest": state([START], open_interest=[5.0]),
    }
    made = aligned(bars(1), states, ["skew", "open_interest", "implied_volatility"])
    assert made.select("skew", "open_interest", "implied_volatility").rows() == [(0.1, 5.0, None)]


def test_what_no_table_gives_is_null_and_what_is_not_wanted_is_not_added():
    frame = bars(2).with_columns(mark_close=pl.lit(99.0))
    made = aligned(frame, {"funding": state([START], funding_rate=[1.0])}, ["index_close"])
    assert made.columns == ["ts", "close", "mark_close", "index_close"]
    assert made.schema["index_close"] == pl.Float64
    assert made["index_close"].null_count() == 2


def test_no_column_of_bars_stands_in_for_a_table():
    """Whatever else bars hold, what is wanted of a table comes from the table alone."""
    frame = bars(2).with_columns(
        funding_rate=pl.lit(0.05), long_liquidated_usd=pl.lit(9.0), rows=pl.lit(9), known_at="ts",
        covers=pl.lit(9), decided_at="ts",
    )  # fmt: skip
    wanted = ["funding_rate", "long_liquidated_usd"]
    states = {
        "funding": state([START], funding_rate=[1e-4]),
        **sums([START + HOUR, START + 2 * HOUR], [3.0, 4.0], HOUR),
    }
    made = aligned(frame, states, wanted)
    assert made.select(wanted).rows() == [(1e-4, 3.0), (1e-4, 4.0)]
    assert made.drop(wanted).equals(frame.drop(wanted))
    assert aligned(frame, {}, wanted).select(wanted).rows() == [(None, None)] * 2


def test_columns_of_bars_that_go_by_a_tables_name_are_reported():
    frames = {
        "A": bars(1).with_columns(funding_rate=pl.lit(0.05), skew_25_delta_30d=pl.lit(0.1)),
        "B": bars(1).with_columns(funding_rate=pl.lit(0.05), mark_close=pl.lit(1.0)),
        "C": bars(1),
    }
    findings = not_of_bars(frames)
    assert [(found.what, found.count, found.total) for found in findings] == [
        ("bars with the column funding_rate", 2, 3),
        ("bars with the column skew_25_delta_30d", 1, 3),
    ]
    assert {found.severity for found in findings} == {"warning"}
    assert not_of_bars({"C": bars(1)}) == []


@pytest.mark.parametrize(
    ("table", "column"),
    [("funding", "funding_rate"), ("implied_vol", "implied_volatility"), ("options", "skew")],
)
def test_a_table_that_is_read_must_say_how_long_it_stands(table, column):
    rows = {table: state([START], **{column: [1.0]})}
    with pytest.raises(InputError, match=rf'add {table} = "..." below \[standing\]'):
        aligned(bars(1), rows, [column], standing=Standing())


# --- liquidations ---------------------------------------------------------------------------------


def events(known_at: list[datetime], **values: list) -> dict[str, pl.DataFrame]:
    return {"liquidations": state(known_at, **values)}


@given(st.lists(st.tuples(st.integers(-3000, 6000), st.integers(0, 99)), max_size=20))
def test_single_liquidations_add_up_within_the_bar_as_a_slow_loop_adds_them(given_rows):
    ordered = sorted(given_rows)
    known_at = [minutes(row[0]) for row in ordered]
    usd = [float(row[1]) for row in ordered]
    count = 80
    made = aligned(
        bars(count),
        events(known_at, long_liquidated_usd=usd, short_liquidated_usd=[0.0] * len(usd)),
        LIQUIDATION_COLUMNS,
    )
    expected = []
    for number in range(count):
        opened, closed = START + number * HOUR, START + (number + 1) * HOUR
        up = all(
            any(time - LONGEST_SILENCE <= known <= time for known in known_at)
            for time in (opened, closed)
        )
        within = [
            value for known, value in zip(known_at, usd, strict=True) if opened < known <= closed
        ]
        expected.append(sum(within) if up else None)
    assert made["long_liquidated_usd"].to_list() == expected
    assert made["short_liquidated_usd"].to_list() == [
        None if value is None else 0.0 for value in expected
    ]


def test_a_liquidation_at_a_close_belongs_to_the_bar_that_closes():
    known_at = [START, START + HOUR, START + HOUR + MICROSECOND]
    made = aligned(
        bars(2),
        events(known_at, long_liquidated_usd=[1.0, 2.0, 4.0], short_liquidated_usd=[0.0] * 3),
        ["long_liquidated_usd"],
    )
    assert made["long_liquidated_usd"].to_list() == [2.0, 4.0]
    assert "short_liquidated_usd" not in made.columns


def sums(known_at: list[datetime], usd: list[float], covers: timedelta, opens=None):
    ts = [known - covers for known in known_at] if opens is None else opens
    rows = state(known_at, ts, long_liquidated_usd=usd, short_liquidated_usd=usd)
    return {"liquidations": rows.with_columns(pl.lit(covers).alias("covers"))}


@given(
    st.lists(
        st.tuples(st.integers(0, 31), st.sampled_from([0, 0, 0, 1, 10, 59, 60, 150])), max_size=40
    ),
    st.sampled_from([15, 30, 60]),
)
def test_a_bar_is_known_by_the_sums_that_lie_in_it_and_were_known_by_its_close(given_rows, covers):
    """Against a slow loop; a sum may be given again, or too late, and then says nothing."""
    length = timedelta(minutes=covers)
    ordered = sorted((minutes((open_ + 1) * covers + late), open_) for open_, late in given_rows)
    opens = [minutes(open_ * covers) for _, open_ in ordered]
    usd = [float(2 ** (number % 40)) for number in range(len(ordered))]
    known_at = [known for known, _ in ordered]
    made = aligned(bars(8), sums(known_at, usd, length, opens), ["long_liquidated_usd"])
    expected = []
    for bar in range(8):
        closed = START + (bar + 1) * HOUR
        within = [
            (own, value)
            for known, own, value in zip(known_at, opens, usd, strict=True)
            if closed - HOUR <= own < closed and known <= closed
        ]
        needed = [closed - HOUR + number * length for number in range(60 // covers)]
        whole = sorted(own for own, _ in within) == needed
        expected.append(sum(value for _, value in within) if whole else None)
    assert made["long_liquidated_usd"].to_list() == expected


def test_a_sum_that_comes_late_is_in_no_bar():
    known_at = [minutes(60), minutes(150), minutes(190), minutes(240)]
    opens = [minutes(60 * number) for number in range(4)]
    made = aligned(
        bars(5), sums(known_at, [1.0, 10.0, 100.0, 1000.0], HOUR, opens), ["long_liquidated_usd"]
    )
    assert made["long_liquidated_usd"].to_list() == [1.0, None, None, 1000.0, None]


def test_sums_that_straddle_a_close_are_refused():
    with pytest.raises(InputError, match=r"opens at 2024-01-01 00:30:00.* lies in two bars of 1h"):
        aligned(bars(4), sums([minutes(90)], [1.0], HOUR), ["long_liquidated_usd"])


@pytest.mark.parametrize("covers", [timedelta(hours=2), timedelta(days=1), timedelta(minutes=40)])
def test_sums_that_do_not_lie_within_a_bar_are_refused(covers):
    with pytest.raises(InputError, match="do not fit bars of 1h: a sum must lie within a bar"):
        aligned(bars(4), sums([START + covers], [1.0], covers), ["long_liquidated_usd"])


# --- the future -----------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 2880), min_size=1, max_size=40),
    st.integers(0, 47),
    st.sampled_from(["events", "sums", "funding"]),
)
def test_rows_known_later_change_nothing(offsets, last, kind):
    opens = [minutes(offset) for offset in sorted(offsets)]
    known_at = list(opens)
    if kind == "sums":
        opens = [minutes(20 * (offset // 20)) for offset in sorted(offsets)]
        known_at = sorted(own + timedelta(minutes=20 + 7 * (own.minute % 3)) for own in opens)
    usd = [1.1 ** (number % 50) for number in range(len(known_at))]
    decided = START + (last + 1) * HOUR

    def made(limit: datetime | None) -> pl.DataFrame:
        if kind == "events":
            states = events(known_at, long_liquidated_usd=usd, short_liquidated_usd=usd)
        elif kind == "sums":
            states = sums(known_at, usd, timedelta(minutes=20), opens)
        else:
            states = {"funding": state(known_at, funding_rate=usd)}
        if limit is not None:
            states = {
                name: rows.filter(pl.col("known_at") <= limit) for name, rows in states.items()
            }
        return aligned(bars(48), states, [*LIQUIDATION_COLUMNS, "funding_rate"])

    whole, cut = made(None).head(last + 1), made(decided).head(last + 1)
    assert whole.equals(cut, null_equal=True)
