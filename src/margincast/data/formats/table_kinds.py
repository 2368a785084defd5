"""Tell which canonical table columns make up, by which names, and what each column holds.

A table taken for another puts wrong numbers under a margin (a mark price for a traded one, a
liquidation for a trade), so where columns fit several tables a name must decide, or nobody does.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from margincast.core.errors import did_you_mean
from margincast.data.formats.text import Kind
from margincast.data.schemas import ALIASES, BOOK_ALIASES, SCHEMAS, Schema

QUOTE_ALIASES = {
    f"{side}{suffix}": f"{side}_{what}_0"
    for side in ("bid", "ask")
    for suffix, what in (
        ("", "price"),
        ("_price", "price"),
        ("_size", "size"),
        ("_qty", "size"),
        ("_quantity", "size"),
        ("_amount", "size"),
    )
}
"""Names of the best bid and ask where there is one level."""

BAR_ALIASES = {"count": "trade_count"}

_LEVEL = re.compile(r"^(bid|ask)_(price|size)_\d+$")
_SIDE_PRICE = re.compile(r"^(mark|index)_(open|high|low|close|price)$")
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("symbol", "venue", "side", "instrument", "option_type"), "text"),
    **dict.fromkeys(("ts", "expiry", "funding_timestamp"), "time"),
    "received_at": "received",
    "is_valid": "boolean",
    "sequence": "integer",
}
_DECISIVE = ("options", "depth_bands", "liquidation_totals")
_OHLC_WORDS = {
    "premium_bars": "premium",
    "mark_bars": r"(?<![a-z])mark(?:_?price)?(?![a-z])|markpriceklines",
    "index_bars": r"(?<![a-z])index(?:_?price)?(?![a-z])|indexpriceklines",
    "implied_vol": r"dvol|implied_?vol",
    "open_interest_bars": r"open_?interest",
}
_TICKER = ("last_price", "mark_price", "index_price", "open_interest", "funding_rate")


def canonical_names(names: Sequence[str], schema: Schema) -> dict[str, str] | str:
    """Name the columns canonically; a canonical name that is there is never overwritten.

    Of several names of the time the most exact wins (a ``timestamp`` before a ``date``).

    Args:
        names: the columns as they are.
        schema: the table they are to make up.

    Returns:
        All columns with their new names, or why they cannot be named.
    """
    if "date" in names and "time" in names and not {"ts", "timestamp", "open_time"} & set(names):
        return "date and time stand in two columns; join them, or describe the file by a mapping"
    sizes = [name for name in names if ALIASES.get(name) == "size"]
    if "size" in schema.required and "size" not in names and len(sizes) > 1:
        return f"{' and '.join(sizes)} may each be the size; say which by a mapping"
    aliases = {**ALIASES, "datetime": "ts"}
    if schema.table == "quotes":
        aliases |= QUOTE_ALIASES
    elif "close" in schema.required:
        aliases |= BAR_ALIASES
    renames = {name: name for name in names}
    for alias, target in aliases.items():
        if alias in renames and target not in renames.values():
            renames[alias] = target
    for name in names:
        for prefix, canonical in BOOK_ALIASES.items():
            target = canonical + name.removeprefix(prefix)
            if name.startswith(prefix) and target not in renames.values():
                renames[name] = target
    return renames


def missing_columns(renames: Mapping[str, str], schema: Schema) -> list[str]:
    """Name the required columns that are not there, each with the nearest that is."""
    present = set(renames.values())
    return [
        f"{name}{did_you_mean(name, renames)}" for name in schema.required if name not in present
    ]


def table_of_columns(names: Sequence[str], words: str, idle: Callable[[str], bool]) -> Schema | str:
    """Return the table that columns make up, or why there is none.

    Args:
        names: the columns as they are.
        words: lower-case names of the file and its folder, which decide between tables of the
            same columns.
        idle: whether a column is zero or empty throughout, as the volume of a mark price is.
    """
    fitting = [table for table in SCHEMAS if _fits(names, table)]
    decisive = [table for table in _DECISIVE if table in fitting]
    if decisive:
        found: str | None = decisive[0]
    elif "quotes" in fitting:
        deep = "bid_price_1" in names or "bid_qty_1" in names
        found = "book" if deep or ("book" in fitting and "book" in words) else "quotes"
    elif "mark_bars" in fitting:
        found = _table_of_bars(fitting, words, idle)
    elif "trades" in fitting:
        found = _table_of_trades(names, words)
    else:
        found = _table_of_states(names) if "derivative_ticker" in fitting else None
    if found is not None:
        return SCHEMAS[found]
    shown = ", ".join(name[:20] for name in names[:6])
    return (
        "no canonical table, or more than one, is made up of its columns "
        f"({shown}{', ...' * (len(names) > 6)}); say which with --table"
    )


def _fits(names: Sequence[str], table: str) -> bool:
    renames = canonical_names(names, SCHEMAS[table])
    return not isinstance(renames, str) and not missing_columns(renames, SCHEMAS[table])


def _table_of_bars(fitting: Sequence[str], words: str, idle: Callable[[str], bool]) -> str | None:
    named = [table for table, word in _OHLC_WORDS.items() if re.search(word, words)]
    if "bars" in fitting:
        return named[0] if named and idle("volume") else "bars"
    return named[0] if named else None


def _table_of_trades(names: Sequence[str], words: str) -> str:
    if re.search(r"liquidation|force_?order", words):
        return "liquidations"
    aggregated = "first_trade_id" in names or re.search(r"agg(regated?)?_?trades", words)
    return "aggregate_trades" if aggregated else "trades"


def _table_of_states(names: Sequence[str]) -> str | None:
    said = {name for name in _TICKER if name in names}
    if said == {"open_interest"}:
        return "open_interest"
    if "funding_rate" in said and not {"last_price", "open_interest"} & said:
        return "funding"
    return "derivative_ticker" if len(said) > 1 else None


def column_kind(schema: Schema, name: str) -> Kind | None:
    """Return what a canonical column holds; None leaves a column as it is."""
    numeric = (*schema.positive, *schema.non_negative, *schema.finite)
    if name in numeric or _LEVEL.match(name) or _SIDE_PRICE.match(name):
        return "number"
    return _KINDS.get(name)
