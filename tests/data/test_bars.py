"""Bars that break a rule are refused with the row; gaps and stale bars are counted and unknown."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.bars import PRICES, read_bars, regular_bars
from margincast.data.quality import Finding, found

HOUR = timedelta(hours=1)
START = datetime(2024, 1, 1, tzinfo=UTC)


def hourly(count: int = 6, price: float = 100.0) -> pl.DataFrame:
    """Valid bars, each opening where the last closed."""
    opens = [price + i for i in range(count)]
    return pl.DataFrame(
        {
            "ts": [START + i * HOUR for i in range(count)],
            "open": opens,
            "high": [value + 2 for value in opens],
            "low": [value - 1 for value in opens],
            "close": [value + 1 for value in opens],
            "volume": [10.0] * count,
        }
    ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))


def changed(frame: pl.DataFrame, row: int, **values: float) -> pl.DataFrame:
    return frame.with_columns(
        pl.when(pl.int_range(pl.len()) == row).then(value).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


def write(folder: Path, symbol: str, frame: pl.DataFrame) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{symbol}.parquet"
    frame.write_parquet(path)
    return path


def refusal(tmp_path: Path, frame: pl.DataFrame, interval: timedelta = HOUR) -> str:
    """Message with which a table is refused; it names the file."""
    path = write(tmp_path / "bars", "BTCUSDT", frame)
    with pytest.raises(InputError) as caught:
        read_bars(tmp_path, ["bars"], [], interval)
    assert str(path) in str(caught.value)
    return str(caught.value)


def counts(findings: tuple[Finding, ...] | list[Finding]) -> dict[str, int]:
    return {finding.what: finding.count for finding in findings}


def test_clean_bars_are_read_as_they_are(tmp_path):
    frame = hourly()
    write(tmp_path / "bars", "BTCUSDT", frame)
    table = read_bars(tmp_path, ["bars"], [], HOUR)
    assert list(table.frames) == ["BTCUSDT"]
    read = table.frames["BTCUSDT"]
    assert read.select(frame.columns).equals(frame)
    assert read["symbol"].unique().to_list() == ["BTCUSDT"]
    assert found(table.findings) == []


def test_times_without_a_zone_are_utc_other_zones_are_converted_and_extra_columns_are_kept(
    tmp_path,
):
    frame = hourly().with_columns(mark_close=pl.col("close"))
    naive = frame.with_columns(pl.col("ts").dt.replace_time_zone(None).cast(pl.Datetime("ns")))
    abroad = frame.with_columns(pl.col("ts").dt.convert_time_zone("Asia/Tokyo"))
    write(tmp_path / "bars", "A", naive.rename({"ts": "open_time"}))
    write(tmp_path / "bars", "B", abroad.with_columns(pl.col("volume").cast(pl.Int64)))
    table = read_bars(tmp_path, ["bars"], [], HOUR)
    for symbol in ("A", "B"):
        read = table.frames[symbol].select(frame.columns)
        assert read.equals(frame)
        assert read.schema["ts"] == pl.Datetime("us", "UTC")


def test_a_missing_folder_or_file_names_the_options_that_move_it(tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist; .*--data.*--set data\.bars="):
        read_bars(tmp_path, ["nowhere"], [], HOUR)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "bars").mkdir()
    with pytest.raises(InputError, match=r"bars holds no \.parquet file"):
        read_bars(tmp_path, ["bars"], [], HOUR)


def test_a_file_that_is_not_parquet_is_refused(tmp_path):
    (tmp_path / "bars").mkdir()
    (tmp_path / "bars" / "BTCUSDT.parquet").write_text("ts,open\n")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_bars(tmp_path, ["bars"], [], HOUR)


def test_a_table_without_rows_is_refused(tmp_path):
    assert "has no rows" in refusal(tmp_path, hourly().clear())


def test_a_wrong_column_is_named_with_the_nearest_one_present(tmp_path):
    message = refusal(tmp_path, hourly().rename({"volume": "volumes", "low": "lo"}))
    assert "'low' (did you mean 'lo'?)" in message
    assert "'volume' (did you mean 'volumes'?)" in message


@pytest.mark.parametrize(
    "wrong", [pl.col("ts").cast(pl.Int64), pl.col("ts").dt.to_string("%Y-%m-%d %H:%M")]
)
def test_a_time_whose_unit_would_have_to_be_guessed_is_refused(tmp_path, wrong):
    message = refusal(tmp_path, hourly().with_columns(wrong.alias("ts")))
    assert "not a timestamp; store it as a datetime in UTC" in message


def test_a_column_of_text_is_refused(tmp_path):
    message = refusal(tmp_path, hourly().with_columns(pl.col("close").cast(pl.String)))
    assert "column 'close' is String, not a number" in message


def test_unsorted_bars_are_refused_with_the_first_row(tmp_path):
    message = refusal(tmp_path, hourly()[[0, 1, 3, 2, 4, 5]])
    assert "runs backwards in 1 row(s), first at row 3" in message
    assert "sort the table by ts" in message


def test_duplicated_bars_are_refused_with_the_first_row(tmp_path):
    message = refusal(tmp_path, hourly()[[0, 1, 1, 2, 2, 3]])
    assert "repeats in 2 row(s), first at row 2" in message
    assert "keep one row per time" in message


@pytest.mark.parametrize("column", PRICES)
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), None])
def test_a_price_that_is_no_price_is_refused_with_row_time_and_rule(tmp_path, column, value):
    message = refusal(tmp_path, changed(hourly(), 3, **{column: value}))
    assert f"column '{column}' holds" in message
    assert "at row 3 (2024-01-01 03:00:00+00:00)" in message
    assert "allowed is a finite number above zero (1 such row(s))" in message


@pytest.mark.parametrize("value", [-1.0, float("nan"), None])
def test_a_volume_that_is_no_volume_is_refused(tmp_path, value):
    message = refusal(tmp_path, changed(hourly(), 0, volume=value))
    assert "column 'volume'" in message
    assert "zero or above" in message


@pytest.mark.parametrize("values", [{"high": 102.5}, {"low": 103.5}, {"close": 105.5}])
def test_high_and_low_must_enclose_open_and_close(tmp_path, values):
    assert "high >= open, close, low" in refusal(tmp_path, changed(hourly(), 3, **values))


def test_bars_of_another_interval_are_refused_with_both_intervals(tmp_path):
    message = refusal(tmp_path, hourly(), timedelta(minutes=5))
    assert "bars are 1h apart" in message
    assert "grid.interval is 5m" in message


def test_bars_off_the_grid_are_refused(tmp_path):
    late = hourly().with_columns(
        ts=pl.when(pl.int_range(pl.len()) >= 5)
        .then(pl.col("ts") + timedelta(minutes=7))
        .otherwise(pl.col("ts"))
    )
    message = refusal(tmp_path, late)
    assert "1 bar(s) open off the 1h grid, first at row 5" in message


def test_gaps_become_rows_of_nulls_and_are_counted(tmp_path):
    write(tmp_path / "bars", "BTCUSDT", hourly(8)[[0, 1, 4, 5, 7]])
    table = read_bars(tmp_path, ["bars"], [], HOUR)
    read = table.frames["BTCUSDT"]
    assert read["ts"].to_list() == hourly(8)["ts"].to_list()
    assert read["close"].is_null().arg_true().to_list() == [2, 3, 6]
    assert counts(table.findings)["missing bars"] == 3
    assert [f.first for f in found(table.findings)] == [START + 2 * HOUR]


def test_stale_bars_are_counted_and_nulled_and_a_delisted_tail_is_cut(tmp_path):
    frame = hourly(10)
    dead = {"open": 105.0, "high": 105.0, "low": 105.0, "close": 105.0, "volume": 0.0}
    for row in (2, 7, 8, 9):
        frame = changed(frame, row, **dead)
    write(tmp_path / "bars", "LUNAUSDT", frame[[0, 1, 2, 3, 5, 6, 7, 8, 9]])
    table = read_bars(tmp_path, ["bars"], [], HOUR)
    read = table.frames["LUNAUSDT"]
    assert read["ts"].max() == START + 6 * HOUR
    assert read["close"].is_null().to_list() == [False, False, True, False, True, False, False]
    assert counts(table.findings) == {
        "stale bars (zero volume, no change)": 4,
        "missing bars": 1,
    }


def test_a_still_bar_with_volume_and_a_moving_bar_without_are_not_stale():
    frame = changed(hourly(), 2, open=102.0, high=102.0, low=102.0, close=102.0)
    frame = changed(frame, 4, volume=0.0)
    read, findings = regular_bars(frame, "BTCUSDT", HOUR)
    assert read["close"].null_count() == 0
    assert found(findings) == []


def test_a_contract_with_nothing_but_stale_bars_is_refused():
    frame = hourly().with_columns(*[pl.lit(1.0).alias(name) for name in PRICES], volume=pl.lit(0.0))
    with pytest.raises(InputError, match=r"LUNAUSDT: all 6 bars are stale.*data\.symbols"):
        regular_bars(frame, "LUNAUSDT", HOUR)


def test_a_contract_with_nothing_but_stale_bars_is_left_out_and_counted(tmp_path):
    dead = hourly().with_columns(*[pl.lit(1.0).alias(name) for name in PRICES], volume=pl.lit(0.0))
    hourly().write_parquet(tmp_path / "BTCUSDT.parquet")
    dead.write_parquet(tmp_path / "LUNAUSDT.parquet")
    table = read_bars(tmp_path, ["."], [], HOUR)
    assert set(table.frames) == {"BTCUSDT"}
    assert [(f.symbol, f.count, f.action) for f in found(table.findings)] == [
        ("LUNAUSDT", len(dead), "contract left out")
    ]
    (tmp_path / "BTCUSDT.parquet").unlink()
    with pytest.raises(InputError, match=r"LUNAUSDT.*is stale"):
        read_bars(tmp_path, ["."], [], HOUR)


@given(st.sets(st.integers(0, 30), min_size=1), st.sets(st.integers(0, 30)))
def test_every_bar_of_the_grid_is_live_missing_or_stale_and_none_is_lost(present, stale):
    frame = hourly(31)
    dead = pl.int_range(pl.len()).is_in(sorted(stale))
    frame = frame.with_columns(
        *[pl.when(dead).then(50.0).otherwise(pl.col(name)).alias(name) for name in PRICES],
        volume=pl.when(dead).then(0.0).otherwise(10.0),
    )[sorted(present)]
    live = sorted(present - stale)
    if not live:
        with pytest.raises(InputError, match="are stale"):
            regular_bars(frame, "X", HOUR)
        return
    read, findings = regular_bars(frame, "X", HOUR)
    known = read.filter(pl.col("close").is_not_null())
    assert known["ts"].to_list() == [START + i * HOUR for i in live]
    assert read["ts"].diff().drop_nulls().unique().to_list() in ([HOUR], [])
    span = set(range(live[0], live[-1] + 1))
    counted = counts(findings)
    assert counted["stale bars (zero volume, no change)"] == len(present & stale)
    assert counted["missing bars"] == len(span - present)
    assert len(read) == len(live) + len(span - present) + len(span & present & stale)


def test_a_symbol_column_splits_a_file_into_contracts(tmp_path):
    both = pl.concat(
        [
            hourly(4, price).with_columns(symbol=pl.lit(symbol))
            for symbol, price in (("ETHUSDT", 10.0), ("BTCUSDT", 100.0))
        ]
    )
    write(tmp_path / "bars", "all", both)
    table = read_bars(tmp_path, ["bars"], [], HOUR)
    assert list(table.frames) == ["BTCUSDT", "ETHUSDT"]
    assert table.frames["ETHUSDT"]["open"][0] == 10.0


def test_two_markets_of_one_name_are_told_apart_and_never_merged(tmp_path):
    write(tmp_path / "perp", "BTCUSDT", hourly(4, 100.0))
    write(tmp_path / "spot", "BTCUSDT", hourly(6, 50.0))
    write(tmp_path / "spot", "ETHUSDT", hourly(4, 10.0))
    table = read_bars(tmp_path, ["perp", "spot"], [], HOUR)
    assert list(table.frames) == ["BTCUSDT", "BTCUSDT@spot", "ETHUSDT"]
    assert len(table.frames["BTCUSDT"]) == 4
    assert len(table.frames["BTCUSDT@spot"]) == 6
    assert table.frames["BTCUSDT@spot"]["symbol"].unique().to_list() == ["BTCUSDT@spot"]
    assert [(f.what, f.action) for f in found(table.findings)] == [
        ("same name as perp/BTCUSDT", "kept apart as BTCUSDT@spot")
    ]
    chosen = read_bars(tmp_path, ["perp", "spot"], ["BTCUSDT@spot"], HOUR)
    assert list(chosen.frames) == ["BTCUSDT@spot"]
    without = read_bars(tmp_path, ["perp", "spot"], ["BTCUSDT"], HOUR)
    assert found(without.findings) == []


def test_one_folder_named_twice_is_not_two_markets(tmp_path):
    write(tmp_path / "perp", "BTCUSDT", hourly())
    with pytest.raises(InputError, match=r"both hold BTCUSDT.*name each folder once"):
        read_bars(tmp_path, ["perp", "perp"], [], HOUR)


def test_one_contract_in_two_files_of_a_folder_is_refused(tmp_path):
    for day in ("monday", "tuesday"):
        write(tmp_path / "perp", day, hourly().with_columns(symbol=pl.lit("BTCUSDT")))
    with pytest.raises(InputError, match="keep a contract in one file"):
        read_bars(tmp_path, ["perp"], [], HOUR)


def test_an_unknown_symbol_is_answered_with_the_nearest_and_with_all(tmp_path):
    for symbol in ("BTCUSDT", "ETHUSDT"):
        write(tmp_path / "perp", symbol, hourly())
    with pytest.raises(
        InputError,
        match=r"no bars for BTCUSD \(did you mean 'BTCUSDT'\?\); there are BTCUSDT, ETHUSDT",
    ):
        read_bars(tmp_path, ["perp"], ["ETHUSDT", "BTCUSD"], HOUR)
