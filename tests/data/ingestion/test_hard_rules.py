"""What no row can be goes to the quarantine with its reason; what markets do show passes."""

from datetime import UTC, datetime

import polars as pl
import pytest

from margincast.data.ingestion.hard_rules import REASON, breaches_any, with_reason
from margincast.data.schemas import SCHEMAS, TIMESTAMP

TIME = datetime(2024, 1, 1, tzinfo=UTC)
BAR = {"open": 10.0, "high": 11.0, "low": 9.0, "close": 10.0, "volume": 1.0}
BOOK = {"bid_price_0": 9.0, "bid_size_0": 1.0, "ask_price_0": 10.0, "ask_size_0": 1.0}
TRADE = {"price": 10.0, "size": 1.0, "side": "buy"}


def judged(table, values, ts=TIME, symbol="BTC"):
    frame = pl.DataFrame(
        {"symbol": [symbol], "ts": [ts], **{name: [value] for name, value in values.items()}},
        schema_overrides={"ts": TIMESTAMP},
    )
    schema = SCHEMAS[table]
    reason = with_reason(frame, schema)[REASON][0]
    assert breaches_any(frame, schema) == (reason is not None)
    return reason


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("bars", BAR),
        ("bars", BAR | {"volume": 0.0, "high": 10.0, "low": 10.0}),
        ("trades", TRADE),
        ("trades", TRADE | {"side": None}),
        ("trades", TRADE | {"size": 0.0}),
        ("book", BOOK),
        ("book", BOOK | {"bid_price_0": 11.0}),  # crossed: a market may show it for a moment
        ("book", BOOK | {"bid_price_0": 10.0}),  # locked
        ("book", BOOK | {"bid_price_0": None, "bid_size_0": None}),  # an empty side
        ("book", BOOK | {"bid_price_0": float("nan"), "bid_size_0": 0.0}),
        ("funding", {"funding_rate": -0.02}),
        ("premium_bars", {"open": -1e-4, "high": 1e-4, "low": -2e-4, "close": 0.0}),
    ],
)
def test_what_markets_show_passes(table, values):
    assert judged(table, values) is None


@pytest.mark.parametrize(
    ("table", "values", "reason"),
    [
        ("bars", BAR | {"open": 0.0, "low": -1.0}, "open is not above zero"),
        ("bars", BAR | {"close": None}, "no close"),
        ("bars", BAR | {"close": float("nan")}, "close is not finite or absurdly large"),
        ("bars", BAR | {"volume": -1.0}, "volume is negative"),
        ("bars", BAR | {"volume": float("inf")}, "volume is not finite or absurdly large"),
        ("bars", BAR | {"high": 9.5}, "high below open, close or low"),
        ("bars", BAR | {"low": 10.5, "high": 12.0}, "low above open or close"),
        ("trades", TRADE | {"price": -10.0}, "price is not above zero"),
        ("trades", TRADE | {"size": 1e16}, "size is not finite or absurdly large"),
        ("book", BOOK | {"ask_size_0": -1.0}, "a price or size of the book is negative"),
        (
            "book",
            BOOK | {"ask_price_0": float("inf")},
            "a price or size of the book is infinite or absurdly large",
        ),
        ("funding", {"funding_rate": None}, "no funding_rate"),
    ],
)
def test_what_no_row_can_be_has_a_reason(table, values, reason):
    assert judged(table, values) == reason


def test_a_row_without_time_or_symbol_or_from_another_age_is_kept_aside():
    assert judged("trades", TRADE, ts=None) == "no time"
    assert judged("trades", TRADE, symbol="") == "no symbol"
    assert "time before" in judged("trades", TRADE, ts=datetime(1970, 1, 1, tzinfo=UTC))
