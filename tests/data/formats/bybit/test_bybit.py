"""Samples follow Bybit's public archive of trades ("trading")."""

import gzip
from datetime import UTC, datetime

import pytest

from margincast.core.errors import InputError
from margincast.data.formats.bybit import files as bybit
from margincast.data.formats.format import ROW, TRANSLATED
from margincast.data.formats.registry import recognise
from margincast.data.formats.source import Source
from margincast.data.formats.testing import check_format
from margincast.data.formats.text import HEADER_IN_THE_MIDDLE

TRADES = (
    "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,"
    "foreignNotional\n"
    "1704326400.1000,BTCUSDT,Buy,0.010,42500.10,PlusTick,8f6f1e2c-6a55-5c6e-9a36-0a1c7d5c5a01,"
    "4.25001e+10,0.010,425.001\n"
    "1704326400.7254,BTCUSDT,Sell,0.020,42500.20,MinusTick,8f6f1e2c-6a55-5c6e-9a36-0a1c7d5c5a02,"
    "8.50004e+10,0.020,850.004\n"
)


def test_trades(tmp_path):
    path = tmp_path / "BTCUSDT2024-01-04.csv.gz"
    path.write_bytes(gzip.compress(TRADES.encode()))
    reading = check_format(Source(path), "Bybit trades")
    assert reading.batches[0].venue == "bybit"
    first, second = reading.table("trades").to_dicts()
    assert first == {
        "ts": datetime(2024, 1, 4, 0, 0, 0, 100_000, tzinfo=UTC),
        "symbol": "BTCUSDT",
        "side": "buy",
        "size": 0.01,
        "price": 42500.1,
        "tick_direction": "PlusTick",
        "trade_id": "8f6f1e2c-6a55-5c6e-9a36-0a1c7d5c5a01",
        "gross_value": 42500100000.0,
        "home_notional": 0.01,
        "foreign_notional": 425.001,
        ROW: 1,
    }
    assert second["ts"] == datetime(2024, 1, 4, 0, 0, 0, 725_400, tzinfo=UTC)
    assert second["side"] == "sell"


def test_faulty_trades(tmp_path):
    header, first, second = TRADES.splitlines()
    path = tmp_path / "BTCUSDT2024-01-04.csv"
    faulty = second.replace("42500.20", "none")
    path.write_text("\n".join([header, first, header, faulty, first.replace("Buy", "Short")]))
    account = check_format(Source(path), "Bybit trades").account
    assert {reject.row: reject.reason for reject in account.rejects} == {
        2: HEADER_IN_THE_MIDDLE,
        3: "column 'price' is not a number",
        4: "column 'side' is neither buy nor sell",
    }
    assert account.outcomes == {TRANSLATED: 1}


def test_trades_of_bitmex_have_almost_the_same_columns(tmp_path):
    header, first, _ = TRADES.splitlines()
    path = tmp_path / "20240104.csv"
    path.write_text(f"{header},trdType\n{first},Regular\n")
    with pytest.raises(InputError, match="trdType, which is BitMEX's"):
        recognise(Source(path), formats=bybit.FORMATS)
    path.write_text(TRADES.replace("trdMatchID", "id"))
    with pytest.raises(InputError, match="the header has no column trdMatchID"):
        recognise(Source(path), formats=bybit.FORMATS)
