"""Which fault a row of the feed shows by itself, or beside the mark.

Responsible for the difference between a market that moves and a feed that is wrong. Pure: a row, a
reference and the limits of :class:`~margincast.specs.live.Watch` go in.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from margincast.core.time import format_duration
from margincast.serving.live.events import Event
from margincast.serving.live.faults import Fault
from margincast.specs.live import Watch

Row = Mapping[str, Any]
Found = tuple[Fault, str] | None
_OHLC = ("open", "high", "low", "close")


def row_fault(
    event: Event, mark: float | None, mid: float | None, watch: Watch, delay: timedelta
) -> Found:
    """Return the fault a row shows, or None.

    Args:
        event: the row.
        mark: last mark price of its contract; None where there is none.
        mid: mid price of its last book, likewise; taken where there is no mark.
        watch: the limits.
        delay: how long after it could have come it came.
    """
    broken = _BROKEN.get(event.table, _nothing)(event.row)
    if broken is not None:
        return broken
    spike = _spike(event, mark, mid, watch.mark_deviation)
    if spike is not None:
        return spike
    if event.table in _PUNCTUAL and delay > watch.longest_delay:
        return Fault.STALE_FEED, (
            f"{event.table} came {delay.total_seconds():.0f} s after it could have; at most "
            f"{format_duration(watch.longest_delay)} is allowed"
        )
    return None


def price_of(event: Event) -> tuple[str, float] | None:
    """Return the price a row shows, and what it is the price of."""
    row = event.row
    if event.table == "book":
        return "the book's mid", (row["bid_price_0"] + row["ask_price_0"]) / 2.0
    if event.table == "trades":
        return "a trade", row["price"]
    if event.table == "bars":
        return "a bar's close", row["close"]
    return None


def _spike(event: Event, mark: float | None, mid: float | None, largest: float) -> Found:
    shown = price_of(event)
    reference, name = (mid, "mid") if mark is None else (mark, "mark")
    # a book is no measure of a book: a market that fell would never be believed again
    if shown is None or reference is None or (event.table == "book" and mark is None):
        return None
    what, price = shown
    away = abs(price / reference - 1.0)
    if away <= largest:
        return None
    return Fault.SPIKE, (
        f"{what} at {price:g} lies {away:.1%} from the {name} {reference:g}; at most "
        f"{largest:.1%} is allowed"
    )


def _book(row: Row) -> Found:
    bid, ask = row["bid_price_0"], row["ask_price_0"]
    if not row["is_valid"]:
        return Fault.BROKEN_ROW, "book: is_valid is not true"
    if min(bid, ask, row["bid_size_0"], row["ask_size_0"]) <= 0.0:
        return Fault.BROKEN_ROW, "book: an empty side"
    if bid > ask:
        return Fault.CROSSED_BOOK, f"best bid {bid:g} above best ask {ask:g}"
    return None


def _bar(row: Row) -> Found:
    prices = [row[name] for name in _OHLC]
    if min(prices) <= 0.0 or row["volume"] < 0.0:
        return Fault.NOT_A_NUMBER, "bars: a price is not above zero, or volume is below it"
    if row["high"] < max(prices) or row["low"] > min(prices):
        return Fault.BROKEN_ROW, "bars: high is not the highest, or low not the lowest"
    return None


def _trade(row: Row) -> Found:
    if row["price"] <= 0.0 or row["size"] < 0.0:
        return Fault.NOT_A_NUMBER, "trades: price is not above zero, or size is below it"
    return None


def _mark(row: Row) -> Found:
    if row["mark_price"] <= 0.0:
        return Fault.NOT_A_NUMBER, "mark: mark_price is not above zero"
    return None


def _nothing(_: Row) -> Found:
    return None


_BROKEN: Mapping[str, Callable[[Row], Found]] = {
    "book": _book,
    "bars": _bar,
    "trades": _trade,
    "mark": _mark,
}
_PUNCTUAL = frozenset(_BROKEN)
