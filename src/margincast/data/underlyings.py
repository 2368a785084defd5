"""Which asset a contract is on: how funding, open interest or an option chain finds its contract.

Tables of different publishers name the same market differently (``BTCUSDT``, ``BTC-USD``,
``BTCUSD_PERP.A``, ``BTC``). A name that does not end in a known quote currency stands for itself.
"""

import re
from collections.abc import Collection, Mapping
from typing import TypeVar

from margincast.core.errors import InputError

QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "USDE", "USD", "EUR")
"""Quote currencies by which contracts are named, longest of an ending first."""

_SEPARATOR = re.compile(r"[-_/:. ]")
_MULTIPLIER = re.compile(r"^10{3,}(?=[A-Z])")
_Rows = TypeVar("_Rows")


def underlying_of(symbol: str) -> str:
    """Return the asset a contract is on.

    >>> [underlying_of(name) for name in ("BTCUSDT", "BTC-USD", "BTCUSD_PERP.A", "1000BONKUSDT")]
    ['BTC', 'BTC', 'BTC', 'BONK']
    >>> underlying_of("SIM-BTC")
    'SIM-BTC'
    """
    name = symbol.split("@", maxsplit=1)[0].upper()
    base, *others = _SEPARATOR.split(name)
    quote = next((quote for quote in QUOTES if base.endswith(quote) and base != quote), None)
    if quote is not None:
        base = base.removesuffix(quote)
    elif others and others[0] not in QUOTES:
        return name
    return _MULTIPLIER.sub("", base)


def rows_of_contract(contract: str, tables: Mapping[str, _Rows], what: str) -> _Rows | None:
    """Return the rows of a contract: those of its own name, else of the same underlying.

    Args:
        contract: name of the contract, as its bars have it.
        tables: by symbol.
        what: name of the table, for messages.

    Returns:
        None where neither is there.

    Raises:
        InputError: several symbols are on the contract's underlying, and none has its name.
    """
    if contract in tables:
        return tables[contract]
    same = same_underlying(contract, tables)
    if len(same) > 1:
        raise InputError(
            f"data.{what}: {', '.join(same)} are all on {underlying_of(contract)}, and none is "
            f"named {contract}; name the files of one of them"
        )
    return tables[same[0]] if same else None


def same_underlying(contract: str, symbols: Collection[str]) -> list[str]:
    """List the symbols that are on a contract's underlying, in order."""
    asset = underlying_of(contract)
    return sorted(symbol for symbol in symbols if underlying_of(symbol) == asset)
