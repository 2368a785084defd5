"""States and flows are known when they could have been, and what cannot be is refused by row."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.quality import found
from margincast.data.states import StateTable, read_states

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
OHLC = ("open", "high", "low", "close")


def times(count: int, step: timedelta = HOUR) -> list[datetime]:
    return [START + number * step for number in range(count)]


def read(folder: Path, table: str, **columns: list) -> StateTable:
    folder.mkdir(exist_ok=True)
    pl.DataFrame(columns).write_parquet(folder / "BTC.parquet")
    return read_states(folder.parent, [folder.name], table)


def rows(folder: Path, table: str, **columns: list) -> pl.DataFrame:
    return read(folder, table, **columns).frames["BTC"]


# --- what is read, and when it is known -----------------------------------------------------------


def test_funding_is_known_at_its_own_time(tmp_path):
    made = rows(tmp_path / "f", "funding", ts=times(2, 8 * HOUR), funding_rate=[1e-4, -2e-4])
    assert made.columns == ["ts", "known_at", "funding_rate"]
    assert made["known_at"].to_list() == made["ts"].to_list() == times(2, 8 * HOUR)
    assert made["funding_rate"].to_list() == [1e-4, -2e-4]


def test_an_index_is_known_at_the_close_of_its_bar_as_a_fraction(tmp_path):
    ohlc = {f"dvol_{part}": [60.0, 61.0, 62.5] for part in OHLC}
    made = rows(tmp_path / "v", "implied_vol", ts=times(3), **ohlc)
    assert made.columns == ["ts", "known_at", "implied_volatility", "covers"]
    assert made["covers"].to_list() == [HOUR] * 3
    assert made["known_at"].to_list() == [ts + HOUR for ts in times(3)]
    assert made["implied_volatility"].to_list() == pytest.approx([0.6, 0.61, 0.625])


def test_the_first_step_says_how_long_a_row_covers_and_missing_ones_are_counted(tmp_path):
    ts = [time for number, time in enumerate(times(10)) if number not in (4, 5, 7)]
    table = read(
        tmp_path / "v",
        "implied_vol",
        ts=ts,
        **dict.fromkeys(OHLC, 50.0),
    )
    assert table.frames["BTC"]["known_at"].to_list() == [time + HOUR for time in ts]
    (finding,) = found(table.findings)
    assert (finding.what, finding.count, finding.total) == ("missing intervals of 1h", 3, 10)
    assert finding.first == START + 3 * HOUR


def test_a_store_says_how_long_a_row_covers(tmp_path):
    # two rows a day apart: their distance alone would say a day
    folder = tmp_path / "table=implied_vol_1h" / "venue=deribit"
    folder.mkdir(parents=True)
    prices = {part: [50.0, 55.0] for part in OHLC}
    pl.DataFrame({"ts": times(2, 24 * HOUR), **prices}).write_parquet(folder / "BTC.parquet")
    made = read_states(tmp_path, ["table=implied_vol_1h/venue=deribit"], "implied_vol")
    assert made.frames["BTC"]["known_at"].to_list() == [ts + HOUR for ts in times(2, 24 * HOUR)]


def test_rows_of_a_store_must_not_overlap(tmp_path):
    folder = tmp_path / "table=implied_vol_4h" / "venue=deribit"
    folder.mkdir(parents=True)
    pl.DataFrame({"ts": times(2), **dict.fromkeys(OHLC, 50.0)}).write_parquet(folder / "X.parquet")
    with pytest.raises(InputError, match=r"cover 4h each, and 1 open\(s\) before the row before"):
        read_states(tmp_path, ["table=implied_vol_4h/venue=deribit"], "implied_vol")


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 9)),
        min_size=2, max_size=8, unique_by=lambda row: row[0],
    ),
    cut=st.integers(1, 20),
)  # fmt: skip
def test_rows_to_come_do_not_move_when_earlier_ones_were_known(tmp_path_factory, rows, cut):
    """A file as it was once, and as it is now: they agree on what was known, or it is refused."""
    folder = tmp_path_factory.mktemp("interval") / "v"

    def known(some):
        made = read(
            folder, "implied_vol",
            ts=[START + open_ * HOUR for open_, _ in some],
            received_at=[START + (open_ + delay) * HOUR for open_, delay in some],
            **{part: [50.0 + open_ for open_, _ in some] for part in OHLC},
        )  # fmt: skip
        return made.frames["BTC"].filter(pl.col("known_at") <= START + cut * HOUR)

    (first, _), (second, _) = sorted(rows, key=sum)[:2]
    before = [row for row in rows if sum(row) <= cut]
    if any((open_ - first) % (second - first) for open_, _ in rows):
        with pytest.raises(InputError, match="the time between the first two"):
            known(rows)
    elif len(before) > 1:
        assert known(rows).equals(known(before))


def test_open_interest_comes_in_contracts_in_usd_or_as_bars_of_its_value(tmp_path):
    plain = rows(tmp_path / "a", "open_interest", ts=times(2), open_interest=[10, 12])
    assert plain["open_interest"].to_list() == [10.0, 12.0]
    assert plain["open_interest_usd"].to_list() == [None, None]
    both = rows(
        tmp_path / "b", "open_interest",
        ts=times(2), open_interest=[10.0, 12.0], open_interest_usd=[1e6, None],
    )  # fmt: skip
    assert both["open_interest_usd"].to_list() == [1e6, None]
    bars = rows(
        tmp_path / "c", "open_interest",
        ts=times(2, 24 * HOUR), open=[1.0, 2.0], high=[9.0, 9.0], low=[0.0, 0.0], close=[2.0, 3.0],
    )  # fmt: skip
    assert bars.columns == ["ts", "known_at", "open_interest_usd", "covers"]
    assert bars["open_interest_usd"].to_list() == [2.0, 3.0]
    assert bars["known_at"].to_list() == times(3, 24 * HOUR)[1:]


def test_a_sell_closes_a_long_and_a_buy_a_short(tmp_path):
    made = rows(
        tmp_path / "l", "liquidations",
        ts=[START, START, START + HOUR], price=[100.0, 100.0, 50.0], size=[2.0, 2.0, 3.0],
        side=["SELL", "sell", "buy"],
    )  # fmt: skip
    assert made["long_liquidated_usd"].to_list() == [200.0, 200.0, 0.0]
    assert made["short_liquidated_usd"].to_list() == [0.0, 0.0, 150.0]
    assert "covers" not in made.columns


def test_sums_of_liquidations_say_what_they_cover(tmp_path):
    made = rows(
        tmp_path / "l", "liquidations", ts=times(3), long_usd=[1.0, 0.0, 2.0], short_usd=[0.0] * 3
    )
    assert made["covers"].to_list() == [HOUR] * 3
    assert made["known_at"].to_list() == times(4)[1:]
    assert made["long_liquidated_usd"].to_list() == [1.0, 0.0, 2.0]


@given(st.lists(st.integers(-30, 400), min_size=2, max_size=12))
def test_late_rows_count_from_arrival_and_never_replace_a_newer_one(tmp_path_factory, delays):
    """Against a slow loop over minutes: what would someone who watched have held for the newest?"""
    ts = times(len(delays))
    arrived = [time + timedelta(minutes=delay) for time, delay in zip(ts, delays, strict=True)]
    table = read(
        tmp_path_factory.mktemp("late") / "f", "funding",
        ts=ts, funding_rate=[float(number) for number in range(len(ts))], received_at=arrived,
    )  # fmt: skip
    made = table.frames["BTC"]
    assert made["known_at"].is_sorted()
    for minutes in range(0, 60 * len(ts) + 420, 15):
        now = START + timedelta(minutes=minutes)
        known = [
            number
            for number, (own, arrival) in enumerate(zip(ts, arrived, strict=True))
            if max(own, arrival) <= now
        ]
        held = made.filter(pl.col("known_at") <= now)["funding_rate"].to_list()
        assert (held[-1] if held else None) == (max(known) if known else None)
    left_out = len(ts) - len(made)
    counted = {finding.what: finding.count for finding in found(table.findings)}
    assert counted.get("arrived after a newer row was known", 0) == left_out


def test_a_row_that_corrects_one_of_the_same_time_counts_from_its_own_arrival(tmp_path):
    made = rows(
        tmp_path / "f", "funding", ts=[START, START], funding_rate=[1e-4, 3e-4],
        received_at=[START, START + HOUR],
    )  # fmt: skip
    assert made["funding_rate"].to_list() == [1e-4, 3e-4]
    assert made["known_at"].to_list() == [START, START + HOUR]


def test_rows_that_do_not_say_when_they_were_received_are_counted(tmp_path):
    table = read(
        tmp_path / "f", "funding", ts=times(3), funding_rate=[1e-4] * 3,
        received_at=[START, None, START + 2 * HOUR],
    )  # fmt: skip
    assert table.frames["BTC"]["known_at"].to_list() == times(3)
    (finding,) = found(table.findings)
    assert (finding.what, finding.count, finding.total) == ("without a time of reception", 1, 3)
    assert (finding.action, finding.first) == ("known at its own time", START + HOUR)


def test_an_interval_that_does_not_say_when_it_was_received_is_known_at_its_close(tmp_path):
    table = read(
        tmp_path / "v", "implied_vol", ts=times(2), received_at=[None, START + 3 * HOUR],
        **dict.fromkeys(OHLC, 50.0),
    )  # fmt: skip
    assert table.frames["BTC"]["known_at"].to_list() == [START + HOUR, START + 3 * HOUR]
    (finding,) = found(table.findings)
    assert finding.action == "known at its own time, that of its interval's close"


def test_sums_received_after_their_close_are_counted(tmp_path):
    closes = times(5)[1:]
    received = [closes[0], START + 2.5 * HOUR, START + timedelta(hours=3, minutes=10), closes[3]]
    table = read(
        tmp_path / "l", "liquidations", ts=times(4), received_at=received,
        long_usd=[1.0, 10.0, 100.0, 1000.0], short_usd=[0.0] * 4,
    )  # fmt: skip
    (finding,) = found(table.findings)
    assert (finding.what, finding.count) == ("sums received after their interval's close", 2)
    assert finding.first == START + HOUR
    assert finding.severity == "warning"


# --- what is refused ------------------------------------------------------------------------------

BAD = [
    ("funding", {"ts": times(2), "rate": [0.1, 0.1]}, r"needs the column\(s\) 'funding_rate'"),
    ("funding", {"ts": times(2), "funding_rate": ["a", "b"]}, "is String, not a number"),
    ("funding", {"ts": times(2), "funding_rate": [0.1, None]}, "holds None at row 1"),
    ("funding", {"ts": times(2), "funding_rate": [0.1, float("nan")]}, "holds nan at row 1"),
    ("funding", {"ts": times(2)[::-1], "funding_rate": [0.1, 0.2]}, "runs backwards in 1 row"),
    ("funding", {"ts": [START] * 2, "funding_rate": [0.1, 0.2]}, "repeats in 1 row"),
    ("funding", {"ts": [1, 2], "funding_rate": [0.1, 0.2]}, "not a timestamp"),
    (
        "funding",
        {"ts": times(1), "funding_rate": [0.1], "received_at": [1]},
        "'received_at' is Int64, not a timestamp",
    ),
    (
        "funding",
        {"ts": pl.Series([], dtype=pl.Datetime("us", "UTC")), "funding_rate": pl.Series([0.1])[:0]},
        "has no rows",
    ),
    ("open_interest", {"ts": times(2), "open_interest": [1.0, -1.0]}, "holds -1.0 at row 1"),
    (
        "open_interest",
        {"ts": times(2), "open_interest": [1.0, 1.0], "open_interest_usd": [None, -5.0]},
        "'open_interest_usd' holds -5.0 at row 1",
    ),
    (
        "implied_vol",
        {"ts": times(2), **{part: [0.6, 0.7] for part in OHLC}},
        r"in percent a year \(60, not 0.6\)",
    ),
    ("implied_vol", {"ts": times(1), **{part: [60.0] for part in OHLC}}, "one row alone does not"),
    (
        "implied_vol",
        {
            "ts": [*times(4), START + 3.5 * HOUR],
            **{part: [60.0] * 5 for part in OHLC},
        },
        r"cover 1h each, the time between the first two, and 1 come\(s\) no whole number",
    ),
    (
        "implied_vol",
        {
            "ts": [START, *times(4)[2:]],
            **{part: [60.0] * 3 for part in OHLC},
        },
        "cover 2h each, .* keep rows of one interval, or bring the file into a store",
    ),
    (
        "liquidations",
        {"ts": times(2), "price": [1.0, 1.0], "size": [1.0, 1.0], "side": ["buy", None]},
        "'side' holds None at row 1",
    ),
    (
        "liquidations",
        {"ts": times(2), "price": [1.0, 0.0], "size": [1.0, 1.0], "side": ["buy", "sell"]},
        "'price' holds 0.0 at row 1",
    ),
    (
        "liquidations",
        {"ts": times(3), "long_usd": [1.0, -1.0, 0.0], "short_usd": [0.0] * 3},
        "'long_usd' holds -1.0 at row 1",
    ),
    (
        "liquidations",
        {
            "ts": [START, START, START + HOUR, START + 2 * HOUR],
            "long_usd": [1.0] * 4, "short_usd": [0.0] * 4, "received_at": [START] * 4,
        },
        "keep one row per interval",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("table", "columns", "message"), BAD)
def test_what_cannot_be_is_refused_with_its_place(tmp_path, table, columns, message):
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path / "bad", table, **columns)
    assert "BTC.parquet" in str(error.value)


def test_a_store_of_another_table_is_refused_though_its_columns_fit(tmp_path):
    folder = tmp_path / "table=bars_1h" / "venue=binance"
    folder.mkdir(parents=True)
    prices = {part: [50.0, 55.0] for part in (*OHLC, "volume")}
    pl.DataFrame({"ts": times(2), **prices}).write_parquet(folder / "BTC.parquet")
    with pytest.raises(InputError, match=r"holds the table bars_1h; data\.implied_vol reads"):
        read_states(tmp_path, ["table=bars_1h/venue=binance"], "implied_vol")


def test_a_file_that_is_not_parquet_is_named(tmp_path):
    (tmp_path / "BTC.parquet").write_bytes(b"ts,funding_rate\n")
    with pytest.raises(InputError, match=r"BTC.parquet cannot be read as Parquet"):
        read_states(tmp_path, ["BTC.parquet"], "funding")


# --- real files -----------------------------------------------------------------------------------


def test_real_funding_and_volatility(shared_data):
    data = shared_data / "data"
    funding = read_states(data, ["funding/binance_perp_8h"], "funding")
    assert sorted(funding.frames) == ["ADAUSDT", "BTCUSDT", "ETHUSDT", "XRPUSDT"]
    for frame in funding.frames.values():
        assert len(frame) > 5000
        # Binance caps funding of these contracts below 1 % each 8 hours
        assert frame["funding_rate"].abs().max() < 0.01
    index = read_states(data, ["implied_vol"], "implied_vol")
    (frame,) = index.frames.values()
    assert 0.3 < frame["implied_volatility"].min() < frame["implied_volatility"].max() < 2
    # the crash of FTX, 2022-11-08: Deribit's index above 100 % a year the day after
    day = frame.filter(pl.col("known_at").dt.date() == datetime(2022, 11, 9, tzinfo=UTC).date())
    assert day["implied_volatility"].max() > 1
    # a day of each month is missing upstream
    (missing,) = found(index.findings)
    assert missing.what == "missing intervals of 1h"
    assert missing.count > 24 * 30
