"""Which asset a contract is on: how funding, open interest or an option chain finds its contract.

Tables of different publishers name the same market differently (``BTCUSDT``, ``BTC-USD``,
``BTCUSD_PERP.A``, ``BTC``). A name that does not end in a known quote currency stands for itself,
and so does one with a date of delivery: it is another market than the perpetual.
"""

import re
from collections.abc import Collection

from margincast.core.errors import InputError
from margincast.data.quality import Finding

QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "USDE", "USD", "EUR")
"""Quote currencies by which contracts are named, longest of an ending first."""

KINDS = ("PERP", "PERPETUAL", "SWAP")
"""Words for a perpetual contract that stand where a quote currency would (``BTC-PERPETUAL``)."""

SYNONYMS = {"XBT": "BTC"}
"""Other names of an asset: that of ISO 4217 for bitcoin, as BitMEX and Kraken have it."""

OPTION_ASSETS = ("BTC", "ETH", "BNB", "SOL", "XRP", "DOGE", "AVAX", "TRX", "MATIC", "PAXG")
"""Assets with listed options, and so with a volatility of their own (Deribit, Binance)."""

LEADER_TABLES = ("implied_vol", "options")
"""Tables of which only the rows on the leader's asset are read."""

_TAKEN = {
    "open_interest": "open_interest_usd alone is taken: other markets count in other units than "
    "coins of the contract"
}
"""By table, what is taken of rows that have a contract's underlying, and not its name."""

_SEPARATOR = re.compile(r"[-_/:. ]")
_MULTIPLIER = re.compile(r"^10{3,}(?=[A-Z])")
_DELIVERY = re.compile(
    r"\d{6}|\d{8}"  # 240329 and 20240329
    r"|\d{0,2}(?:JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)\d{2}(?:\d{2})?"
    # this and next week, this and next quarter, as HTX and Binance name their running contracts
    r"|CW|NW|CQ|NQ|QUARTER"
)
"""A part of a name that says when the contract is delivered or expires."""


def underlying_of(symbol: str) -> str:
    """Return the asset a contract is on.

    >>> [underlying_of(name) for name in ("BTCUSDT", "BTC-USD", "BTCUSD_PERP.A", "1000BONKUSDT")]
    ['BTC', 'BTC', 'BTC', 'BONK']
    >>> underlying_of("BTC-PERPETUAL"), underlying_of("SIM-BTC"), underlying_of("BTC-USDT-240329")
    ('BTC', 'SIM-BTC', 'BTC-USDT-240329')
    """
    name = symbol.split("@", maxsplit=1)[0].upper()
    base, *others = _SEPARATOR.split(name)
    if any(_DELIVERY.fullmatch(part) for part in others):
        return name
    stem = base.removesuffix("PERP") or base
    quote = next((quote for quote in QUOTES if stem.endswith(quote) and stem != quote), "")
    asset = stem.removesuffix(quote)
    if asset == base and others and others[0] not in (*QUOTES, *KINDS):
        return name
    asset = _MULTIPLIER.sub("", asset)
    return SYNONYMS.get(asset, asset)


def symbol_of_contract(contract: str, symbols: Collection[str], what: str) -> str | None:
    """Return the symbol of a table that is a contract's: its own name, else the same underlying.

    Args:
        contract: name of the contract, as its bars have it.
        symbols: those of the table.
        what: name of the table, for messages.

    Returns:
        None where neither is there.

    Raises:
        InputError: several symbols are on the contract's underlying, and none has its name.
    """
    if contract in symbols:
        return contract
    same = same_underlying(contract, symbols)
    if len(same) > 1:
        raise InputError(
            f"data.{what}: {', '.join(same)} are all on {underlying_of(contract)}, and none is "
            f"named {contract}; name the files of one of them"
        )
    return same[0] if same else None


def same_underlying(contract: str, symbols: Collection[str]) -> list[str]:
    """List the symbols that are on a contract's underlying, in order."""
    asset = underlying_of(contract)
    return sorted(symbol for symbol in symbols if underlying_of(symbol) == asset)


def symbol_of_leader(leader: str, symbols: Collection[str], what: str) -> str | None:
    """Return the symbol of a table of options or implied volatility that is on the leader's asset.

    The leader's own name or underlying comes first. A name that says no underlying, such as a
    file's (``deribit_btc_dvol_1h``), is the leader's where it is the table's only one, unless one
    of its words names another asset with options.

    Args:
        leader: name of the contract, as its bars have it.
        symbols: those of the table.
        what: name of the table, for messages.

    Returns:
        None where there is none.

    Raises:
        InputError: several symbols are on the leader's underlying, and none has its name.

    >>> symbol_of_leader("BTCUSDT", ["deribit_btc_dvol_1h"], "implied_vol")
    'deribit_btc_dvol_1h'
    >>> symbol_of_leader("BTCUSDT", ["deribit_eth_dvol_1h"], "implied_vol") is None
    True
    """
    own = symbol_of_contract(leader, symbols, what)
    if own is not None or len(symbols) != 1:
        return own
    (only,) = symbols
    words = [word for word in _SEPARATOR.split(only.split("@", maxsplit=1)[0].upper()) if word]
    words = [SYNONYMS.get(word, word) for word in words]
    of_others = {*OPTION_ASSETS} - {underlying_of(leader)}
    says_none = len(words) > 1 and underlying_of(only) == only.upper()
    return only if says_none and not of_others & {*words} else None


def unmatched(
    table: str, symbols: Collection[str], contracts: Collection[str], leader: str
) -> list[Finding]:
    """Report contracts that a table says nothing of, and those that find another market's rows.

    Of :data:`LEADER_TABLES`, whose symbols are assets by themselves, it is reported what was taken
    for the leader's though its name does not say so.

    Args:
        table: name of the table.
        symbols: those of the table.
        contracts: those that have bars.
        leader: the contract whose own rows of :data:`LEADER_TABLES` every contract sees.

    Raises:
        InputError: several symbols are on a contract's underlying, and none has its name.
    """
    if table not in LEADER_TABLES:
        return _of_contracts(table, symbols, contracts)
    if leader not in contracts:
        return []
    symbol, asset = symbol_of_leader(leader, symbols, table), underlying_of(leader)
    if symbol is None:
        what = f"none of {', '.join(symbols)} is on {asset}, the leader's asset"
        action = f"its features are not known; name a file {asset}.parquet"
    elif underlying_of(symbol) != asset:
        what = f"says no asset by its name, and is the only one in data.{table}"
        action = f"taken for the leader's, {leader}"
    else:
        return []
    return [Finding(table, symbol or leader, what, 1, 1, action, severity="warning")]


def _of_contracts(
    table: str, symbols: Collection[str], contracts: Collection[str]
) -> list[Finding]:
    found = {name: symbol_of_contract(name, symbols, table) for name in contracts}
    without = [name for name, symbol in found.items() if symbol is None]
    others = [f"{name}: {symbol}" for name, symbol in found.items() if symbol and symbol != name]
    findings = []
    if without:
        what = f"contracts without rows ({', '.join(without)})"
        action = "their features of it are not known"
        findings.append(Finding(table, "all contracts", what, len(without), len(contracts), action))
    if others:
        what = f"contracts with another market's rows ({', '.join(others)})"
        action = _TAKEN.get(table, "taken, since both are on one underlying")
        findings.append(
            Finding(
                table,
                "all contracts",
                what,
                len(others),
                len(contracts),
                action,
                severity="warning",
            )
        )
    return findings
