"""``margincast features build``: what it finds in a folder, what it reports, and how it ends."""

import json
import re
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

NO_FUNDING = """
name = "derived"
description = "funding beside bars"

[grid]
interval = "1m"
warm_up = "1h"
minimum_present = 0.9
leader = "SIM-BTC"

[standing]
funding = "9h"
open_interest = "1h"

[[bars]]
function = "log_return"
windows = ["5m"]

[[derivatives]]
function = "funding_rate"

[[derivatives]]
function = "log_open_interest_change"
windows = ["30m"]
"""


UNDECLARED = (
    "the set reads funding (funding_rate) and does not say how long a row of it stands; "
    'add funding = "..." below [standing]'
)


@pytest.fixture(scope="module")
def derived(workspace):
    path = workspace / "features" / "derived.toml"
    path.write_text(NO_FUNDING)
    return path


def build(command, spec, data, out, *settings):
    return command(
        "features", "build", spec, "--data", data, "--out", out, "--cache", "none",
        *(part for text in settings for part in ("--set", text)),
    )  # fmt: skip


def features_of(out):
    return pl.read_parquet(out / "features.parquet"), json.loads(
        (out / "features.json").read_text()
    )


def not_known(record, column):
    return {row["cause"]: row["count"] for row in record["not_known"] if row["column"] == column}


# --- what is found in a folder --------------------------------------------------------------------


def test_bars_are_kept_beside_a_book(command, workspace, market, tmp_path):
    ending = build(
        command, workspace / "features" / "demo-1m.toml", market, tmp_path,
        "data.book_known_after=0s",
    )  # fmt: skip
    assert ending.code == 0, ending.errors
    assert "bars: bars\n" in ending.errors
    assert "book: book\n" in ending.errors
    assert "trades: trades\n" in ending.errors
    frame, record = features_of(tmp_path)
    # closes are those of the bars, not of the book's mid price
    bars = pl.read_parquet(market / "bars" / "SIM-BTC.parquet")
    own = frame.filter(pl.col("symbol") == "SIM-BTC")
    closes = bars.select(pl.col("ts") + pl.duration(minutes=1), pl.col("close").alias("of_bars"))
    beside = own.join(closes, on="ts")
    assert len(beside) == len(own) > 0
    assert (beside["close"] == beside["of_bars"]).all()
    assert own["imbalance_1_last"].null_count() == 0
    assert [row["symbol"] for row in record["contracts"]] == ["SIM-BTC", "SIM-ETH"]
    assert sum(row["decisions"] for row in record["contracts"]) == len(frame)


def test_bars_of_other_contracts_yield_to_the_books_mid_price(command, workspace, market, tmp_path):
    shutil.copytree(market, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "bars")
    (tmp_path / "data" / "bars").mkdir()
    shutil.copy(
        market / "bars" / "SIM-BTC.parquet", tmp_path / "data" / "bars" / "OTHERUSDT.parquet"
    )
    other = pl.read_parquet(tmp_path / "data" / "bars" / "OTHERUSDT.parquet")
    other.drop("symbol", strict=False).write_parquet(
        tmp_path / "data" / "bars" / "OTHERUSDT.parquet"
    )
    ending = build(
        command, workspace / "features" / "demo-1m.toml", tmp_path / "data", tmp_path / "out",
        "data.book_known_after=0s",
    )  # fmt: skip
    assert ending.code == 0, ending.errors
    assert "left out: bars (no contract of theirs has a book)" in ending.errors
    frame, _ = features_of(tmp_path / "out")
    assert frame["symbol"].unique().sort().to_list() == ["SIM-BTC", "SIM-ETH"]


def test_a_store_gives_what_its_files_give(command, workspace, market, tmp_path, derived):
    tables = ("bars", "book", "trades", "funding", "open_interest")
    sources = [market / table for table in tables if (market / table).is_dir()]
    ending = command("data", "ingest", *sources, "--out", tmp_path / "store", "--venue", "sim",
                     "--workers", "1")  # fmt: skip
    assert ending.code == 0, ending.errors
    settings = ["data.book_known_after=0s"]
    for spec in (workspace / "features" / "demo-1m.toml", derived):
        frames = []
        for place in (market, tmp_path / "store"):
            ending = build(command, spec, place, tmp_path / "out", *settings)
            assert ending.code == 0, ending.errors
            frames.append(features_of(tmp_path / "out")[0])
        assert frames[0].equals(frames[1])
    assert "table=bars_1m/venue=sim" in ending.errors


def test_a_table_that_is_named_is_not_looked_for(command, market, tmp_path, derived):
    shutil.copytree(market / "bars", tmp_path / "data" / "elsewhere")
    ending = build(
        command, derived, tmp_path / "data", tmp_path / "out", "data.bars=elsewhere",
    )  # fmt: skip
    assert ending.code == 0, ending.errors
    assert "bars: elsewhere\n" in ending.errors


def test_without_prices_there_is_nothing_to_build_on(command, market, tmp_path, derived):
    shutil.copytree(market / "trades", tmp_path / "data" / "trades")
    ending = build(command, derived, tmp_path / "data", tmp_path / "out")
    assert ending.code == 2
    assert "holds no bars 1m apart" in ending.errors
    assert "--set data.bars=FOLDER" in ending.errors
    assert not (tmp_path / "out").exists()
    ending = build(command, derived, market, tmp_path / "out", "grid.interval=5m")
    assert ending.code == 2
    assert "bars are 1m apart, but the feature set's grid.interval is 5m" in ending.errors


def test_books_without_bars_are_left_out_in_one_line_and_progress_ends_full(
    command, workspace, market, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(market, data)
    broken = pl.DataFrame({"ts": [datetime(2026, 1, 1, tzinfo=UTC)], "price": [1.0]})
    for number in range(3):
        broken.write_parquet(data / "book" / f"NOBARS{number}.parquet")
    (data / "bars" / "SIM-ETH.parquet").unlink()
    ending = build(
        command, workspace / "features" / "demo-1m.toml", data, tmp_path / "out",
        "data.book_known_after=0s",
    )  # fmt: skip
    assert ending.code == 0, ending.errors
    assert "not read: the book of 4 contracts without bars\n" in ending.errors
    assert "NOBARS" not in ending.errors
    steps = re.findall(r"^features (\d+)/(\d+): (.*)$", ending.errors, re.MULTILINE)
    assert steps == [
        (str(number), "3", f"{table} of SIM-BTC")
        for number, table in enumerate(("book", "trades", "bars"), start=1)
    ]
    _, record = features_of(tmp_path / "out")
    (left_out,) = [f for f in record["findings"] if f["table"] == "book" and f["what"].startswith(
        "contracts without bars")]  # fmt: skip
    assert (left_out["count"], left_out["total"]) == (4, 5)
    assert "NOBARS2" in left_out["what"]


# --- what is wrong with a set is said before data is read, with the file's name -------------------


@pytest.mark.parametrize(
    ("text", "replaced", "message"),
    [
        ('"log_return"', '"log_retrun"', "no feature function 'log_retrun' for bars (did you mean"),
        ('windows = ["5m"]', 'windows = ["90s"]', "window 90s is not a whole number of 1m"),
        ('funding = "9h"\n', "", UNDECLARED),
    ],
)
def test_a_set_that_cannot_be_built_is_named(  # noqa: PLR0917  # fixtures and a case's three texts
    command, workspace, market, tmp_path, text, replaced, message
):
    spec = workspace / "features" / "wrong.toml"
    assert text in NO_FUNDING
    spec.write_text(NO_FUNDING.replace(text, replaced))
    ending = build(command, spec, market, tmp_path / "out")
    assert ending.code == 2
    assert f"error: {spec}: {message}" in ending.errors
    assert "bars: bars" not in ending.errors


# --- what is missing is reported ------------------------------------------------------------------


def test_a_leader_that_is_not_there_is_warned_of(command, workspace, market, tmp_path):
    ending = build(
        command, workspace / "features" / "demo-1m.toml", market, tmp_path,
        "data.book_known_after=0s", "grid.leader=SIM-BTCUSD",
    )  # fmt: skip
    assert ending.code == 0, ending.errors
    assert "grid.leader SIM-BTCUSD has no bars (did you mean 'SIM-BTC'?), and 2 column(s)" in (
        ending.errors
    )
    frame, record = features_of(tmp_path)
    assert not_known(record, "leader_log_return_30m") == {"leader has no bar": len(frame)}


def test_trades_that_end_before_the_book_are_warned_of(command, workspace, market, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(market, data)
    path = data / "trades" / "SIM-BTC.parquet"
    trades = pl.read_parquet(path)
    first, last = trades["ts"].min(), trades["ts"].max()
    middle = first + (last - first) / 2
    trades.filter(pl.col("ts") <= middle).write_parquet(path)
    ending = build(
        command, workspace / "features" / "demo-1m.toml", data, tmp_path / "out",
        "data.book_known_after=0s", "grid.warm_up=2h",
    )  # fmt: skip
    assert ending.code == 0, ending.errors
    assert "trades, SIM-BTC: trades are there from" in ending.errors
    frame, record = features_of(tmp_path / "out")
    own = frame.filter(pl.col("symbol") == "SIM-BTC")
    later = own.filter(pl.col("ts") > middle + timedelta(hours=2, minutes=10))
    assert len(later) > 100
    assert later["signed_flow_imbalance_10m"].is_null().all()
    causes = not_known(record, "signed_flow_imbalance_10m")
    assert causes["trades not there then"] >= len(later)
    (warning,) = [f for f in record["findings"] if f["what"].startswith("trades are there from")]
    assert (warning["symbol"], warning["severity"]) == ("SIM-BTC", "warning")


def test_families_that_the_data_lacks_are_reported_and_their_columns_are_nan(
    command, market, tmp_path, derived
):
    data = tmp_path / "data"
    shutil.copytree(market / "bars", data / "bars")
    (data / "open_interest").mkdir()
    (data / "open_interest" / "daily.csv").write_text("ts,open_interest\n")
    ending = build(command, derived, data, tmp_path / "out")
    assert ending.code == 0, ending.errors
    assert "funding: none; the columns that read it are NaN" in ending.errors
    assert "holds no .parquet file; bring its files into a store" in ending.errors
    frame, record = features_of(tmp_path / "out")
    assert frame["funding_rate"].is_null().all()
    absent = {"funding_rate": "funding", "log_open_interest_change_30m": "open_interest"}
    for column, table in absent.items():
        assert not_known(record, column) == {f"no {table} for the contract": len(frame)}
    warnings = {f["symbol"]: f for f in record["findings"] if f["what"].endswith("in the data")}
    assert set(warnings) == {"funding", "open_interest"}
    assert all(warning["severity"] == "warning" for warning in warnings.values())
    # and on the screen: the family, its cause and its share
    line = next(text for text in ending.output.splitlines() if "no funding for" in text)
    assert f"{len(frame):,}" in line
    assert "50.000%" in line
    assert "derivatives" in ending.output


def test_causes_add_up_in_the_record(command, market, tmp_path, derived):
    ending = build(command, derived, market, tmp_path)
    assert ending.code == 0, ending.errors
    frame, record = features_of(tmp_path)
    for column in record["units"]:
        nan = frame[column].is_nan().sum() + frame[column].null_count()
        assert sum(not_known(record, column).values()) == nan
    for row in record["contracts"]:
        own = frame.filter(pl.col("symbol") == row["symbol"])
        assert row["decisions"] == len(own)


# --- how it ends ----------------------------------------------------------------------------------


def test_an_interrupt_ends_it_cleanly(workspace, market, tmp_path):
    data = tmp_path / "data" / "bars"
    data.mkdir(parents=True)
    bars = pl.read_parquet(market / "bars" / "SIM-BTC.parquet").drop("symbol", strict=False)
    for number in range(20):
        bars.write_parquet(data / f"C{number}USDT.parquet")
    command = [
        sys.executable, "-c", "from margincast.cli import main; main()", "features", "build",
        workspace / "features" / "demo-1m.toml", "--data", tmp_path / "data",
        "--out", tmp_path / "out", "--cache", "none",
    ]  # fmt: skip
    process = subprocess.Popen(  # noqa: S603  # our own command
        list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("features 1/20"):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    # no cache: nothing is left to go on from
    assert "interrupted; the same command starts anew" in errors
    assert not list(Path(tmp_path / "out").glob("*"))


# --- real data ------------------------------------------------------------------------------------


def test_a_real_feed_says_why_features_are_not_known(command, workspace, shared_data, tmp_path):
    ending = build(
        command, workspace / "features" / "book-1m.toml", shared_data / "data", tmp_path,
        "data.book=book/standx_BTC-USD_book20_1s.parquet",
        "data.trades=trades/standx_BTC-USD_trades.parquet", "data.book_known_after=1s",
    )  # fmt: skip
    assert ending.code == 0, ending.errors
    frame, record = features_of(tmp_path)
    assert not_known(record, "signed_flow_imbalance_10m") == {
        "no aggressor side for the contract": len(frame)
    }
    # twenty levels do not always hold what closing 100,000 USD needs
    deep = not_known(record, "cost_to_buy_100000_last")
    assert set(deep) == {"not defined"}
    assert 0 < deep["not defined"] < len(frame) / 4
