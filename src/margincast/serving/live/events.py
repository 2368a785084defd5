"""Rows of a feed as lines of JSON: read strictly, or refused and counted.

Responsible for what enters a live margin at all. One object a line::

    {"table": "book", "symbol": "BTCUSDT", "ts": "2026-01-01T00:00:01Z", "bid_price_0": 1.0, ...}

The columns are those of the canonical tables (``docs/guide/live.md``), times are ISO 8601 with an
offset. A row that breaks a rule is refused whole; nothing is mended here.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from margincast.data.trades import AGGRESSOR_SIDES
from margincast.serving.live.faults import Fault

MOST_LEVELS = 200
_BOOK = ("bid_price", "bid_size", "ask_price", "ask_size")
TIMES = ("ts", "received_at")


@dataclass(frozen=True)
class Columns:
    """What a row of a table holds beside table, symbol and times.

    Attributes:
        needed: numbers that must be there.
        optional: numbers that may.
    """

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()


TABLES: Mapping[str, Columns] = {
    "bars": Columns(
        ("open", "high", "low", "close", "volume"),
        (
            "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume",
            "mark_open", "mark_high", "mark_low", "mark_close", "index_close",
        ),
    ),
    "book": Columns(tuple(f"{name}_0" for name in _BOOK)),
    "trades": Columns(("price", "size")),
    "mark": Columns(("mark_price",)),
    "funding": Columns(("funding_rate",)),
    "open_interest": Columns(("open_interest",), ("open_interest_usd",)),
    "liquidations": Columns(("price", "size")),
    "implied_vol": Columns(("implied_volatility",)),
}  # fmt: skip
_SIDED = frozenset({"trades", "liquidations"})
_LEVELS = {f"{name}_{level}": level for name in _BOOK for level in range(MOST_LEVELS)}


@dataclass(frozen=True)
class Event:
    """A row of a table.

    Attributes:
        table: its table.
        symbol: its contract, or underlying.
        row: its columns; ``ts`` and, where it is known, ``received_at`` are UTC datetimes.
    """

    table: str
    symbol: str
    row: Mapping[str, Any]

    @property
    def ts(self) -> datetime:
        """Its time."""
        ts: datetime = self.row["ts"]
        return ts


@dataclass(frozen=True)
class Refusal:
    """A line that was not taken.

    Attributes:
        fault: what it is a sign of.
        reason: what was found and what is allowed; nothing of a line's text beyond names.
        table: of the row; empty where it cannot be told.
        symbol: likewise.
    """

    fault: Fault
    reason: str
    table: str = ""
    symbol: str = ""


@dataclass
class Reader:
    """Reads lines, and counts.

    Attributes:
        tables: that are followed.
        symbols: contracts that are known.
        named: further names that tables beside bars know their rows by, such as an index of implied
            volatility, by table.
        line_bytes: longest line.
        taken: rows by table.
        refused: lines by table and reason.
    """

    tables: tuple[str, ...]
    symbols: frozenset[str]
    line_bytes: int
    named: Mapping[str, frozenset[str]] = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)

    def read(self, line: bytes) -> Event | Refusal:
        """Read one line."""
        found = self._read(line)
        if isinstance(found, Event):
            self.taken[found.table] += 1
        else:
            self.refused[found.table, found.reason] += 1
        return found

    def _read(self, line: bytes) -> Event | Refusal:
        if len(line) > self.line_bytes:
            return Refusal(Fault.BROKEN_ROW, f"line longer than {self.line_bytes} bytes")
        try:
            # a name that stands twice says two things; NaN is for the checks below to refuse
            raw = json.loads(line, object_pairs_hook=_once)
        except (ValueError, RecursionError):
            return Refusal(Fault.BROKEN_ROW, "not a JSON object, or a name stands twice")
        if not isinstance(raw, dict):
            return Refusal(Fault.BROKEN_ROW, "not a JSON object")
        table, symbol = raw.pop("table", None), raw.pop("symbol", None)
        if not isinstance(table, str) or table not in self.tables:
            return Refusal(Fault.BROKEN_ROW, f"table is none of {', '.join(self.tables)}")
        if not isinstance(symbol, str) or not self._knows(table, symbol):
            return Refusal(Fault.BROKEN_ROW, "symbol is not among the contracts", table)
        return _row(table, symbol, raw)

    def _knows(self, table: str, symbol: str) -> bool:
        return symbol in self.symbols or symbol in self.named.get(table, frozenset())


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


class _RefusedError(Exception):
    """A rule that a row breaks."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault, self.reason = fault, reason


def _row(table: str, symbol: str, raw: dict[str, Any]) -> Event | Refusal:
    try:
        row = {**_times(raw), **_told(table, raw), **_numbers(table, raw)}
    except _RefusedError as error:
        return Refusal(error.fault, error.reason, table, symbol)
    return Event(table, symbol, row)


def _times(raw: dict[str, Any]) -> dict[str, datetime]:
    """Take the times off a row."""
    found = {}
    for name in TIMES:
        given = raw.pop(name, None)
        if given is None and name == "received_at":
            continue
        time = _time(given)
        if time is None:
            raise _RefusedError(Fault.BROKEN_ROW, f"{name} is no ISO 8601 time with an offset")
        found[name] = time
    return found


def _told(table: str, raw: dict[str, Any]) -> dict[str, object]:
    """Take off a row what is neither a time nor a number."""
    if table in _SIDED:
        side = raw.pop("side", None)
        if side not in (*AGGRESSOR_SIDES, None) or (side is None and table == "liquidations"):
            raise _RefusedError(Fault.BROKEN_ROW, "side is neither buy nor sell")
        return {"side": side}
    if table == "book":
        valid = raw.pop("is_valid", True)
        if not isinstance(valid, bool):
            raise _RefusedError(Fault.BROKEN_ROW, "is_valid is neither true nor false")
        return {"is_valid": valid}
    return {}


def _numbers(table: str, raw: dict[str, Any]) -> dict[str, float | None]:
    columns = TABLES[table]
    absent = [name for name in columns.needed if name not in raw]
    if absent:
        raise _RefusedError(Fault.BROKEN_ROW, f"{absent[0]} is absent")
    found: dict[str, float | None] = {}
    for name, value in raw.items():
        if not (name in columns.needed or name in columns.optional or _is_level(table, name)):
            raise _RefusedError(Fault.BROKEN_ROW, f"a column that {table} has not")
        if value is None and table == "book" and _LEVELS[name]:
            found[name] = None  # a level that holds nothing
            continue
        if value is None and name in columns.optional:
            continue  # not known, as in a file
        if not _is_number(value):
            raise _RefusedError(Fault.NOT_A_NUMBER, f"{name} is not a finite number")
        found[name] = float(value)
    return found


def _time(given: object) -> datetime | None:
    if not isinstance(given, str):
        return None
    try:
        time = datetime.fromisoformat(given)
        return None if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _is_level(table: str, name: str) -> bool:
    return table == "book" and name in _LEVELS


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        return False
