"""Every venue whose tier tables are read or written, by name.

Responsible for one road to all of them: which text becomes which document, who reads it into tiers,
and who writes tiers.
"""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from margincast.core.errors import InputError, did_you_mean
from margincast.margin.venues import binance, bybit, drift, dydx, hyperliquid, okx, own
from margincast.margin.venues.check import Check, compare_all, require_never_below
from margincast.margin.venues.imported import Imported, ReadOptions, schedule_of
from margincast.margin.venues.tiers import TiersBySymbol
from margincast.specs.schedule import BaseSchedule
from margincast.specs.schedule_file import schedule_toml


@dataclass(frozen=True)
class ExportOptions:
    """What tiers do not say.

    Attributes:
        name: of the base schedule that is written.
        prices_usd: price of a coin by contract, USD, for a venue that counts size in coins.
    """

    name: str
    prices_usd: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Venue:
    """How a venue's table is parsed, read and written.

    Attributes:
        what: the document, for people.
        parse: text of a file to document; raises ValueError.
        read: documents to tiers and the venue's own margins.
        export: tiers to a document; None where tiers are only read.
        write: document to text.
        shape: why margins may lie far above the tiers', and what to do; empty where they cannot.
    """

    what: str
    parse: Callable[[str], object]
    read: Callable[[Sequence[object], ReadOptions], Imported]
    export: Callable[[TiersBySymbol, ExportOptions], object] | None
    write: Callable[[object], str]
    shape: str = ""


def _json_text(document: object) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _csv_text(document: object) -> str:
    assert isinstance(document, list)
    return own.csv_text(document)


def _toml_text(document: object) -> str:
    assert isinstance(document, BaseSchedule)
    return schedule_toml(document, "Base schedule of exported margin levels.")


VENUES: Mapping[str, Venue] = {
    "binance": Venue(
        "response of GET /fapi/v1/leverageBracket, or tiers by CCXT",
        json.loads,
        binance.read,
        lambda tiers, _: binance.export(tiers),
        _json_text,
    ),
    "bybit": Venue(
        "response of GET /v5/market/risk-limit", json.loads, bybit.read, None, _json_text
    ),
    "hyperliquid": Venue(
        "response to meta",
        json.loads,
        hyperliquid.read,
        lambda tiers, _: hyperliquid.export(tiers),
        _json_text,
        "a rate is half of one over a whole leverage: 50, 25, 16.7, 12.5 %, nothing in between",
    ),
    "dydx": Venue(
        "liquidity tiers and perpetuals of dYdX v4",
        json.loads,
        dydx.read,
        lambda tiers, _: dydx.export(tiers),
        _json_text,
        "a market has one rate for all positions; --up-to makes it that of smaller ones",
    ),
    "okx": Venue(
        "response of GET /api/v5/public/position-tiers", json.loads, okx.read, None, _json_text
    ),
    "drift": Venue(
        "margin parameters of perpetual markets",
        json.loads,
        drift.read,
        lambda tiers, options: drift.export(tiers, options.prices_usd),
        _json_text,
        "no ratio lies below 2 %, and a premium that grows with the root of size cannot follow "
        "tiers over many decades; --up-to brings it nearer",
    ),
    "csv": Venue(
        "rows of tiers", own.csv_rows, own.read, lambda tiers, _: own.export(tiers), _csv_text
    ),
    "json": Venue(
        "rows of tiers", json.loads, own.read, lambda tiers, _: own.export(tiers), _json_text
    ),
    "toml": Venue(
        "base schedule",
        tomllib.loads,
        own.read_schedule,
        lambda tiers, options: schedule_of(tiers, options.name, "Exported margin levels"),
        _toml_text,
    ),
}


def venue_named(name: str) -> Venue:
    """Return a venue.

    Raises:
        InputError: there is none of that name.
    """
    if name not in VENUES:
        raise InputError(
            f"there is no venue '{name}'{did_you_mean(name, VENUES)}; there are: "
            f"{', '.join(VENUES)}"
        )
    return VENUES[name]


def parse_text(venue: Venue, text: str, source: str) -> object:
    """Parse the text of a file.

    Raises:
        InputError: it is not of the venue's format; says where it stopped.
    """
    try:
        return venue.parse(text)
    except ValueError as error:
        raise InputError(f"{source} is no {venue.what}: {error}") from None


def export_text(name: str, tiers: TiersBySymbol, options: ExportOptions) -> tuple[str, list[Check]]:
    """Write tiers as a venue's table, and check the text itself in the venue's arithmetic.

    Args:
        name: of the venue.
        tiers: tiers by contract.
        options: what tiers do not say.

    Returns:
        The text, and a check a contract.

    Raises:
        InputError: no such venue, one whose tables are only read, or tiers it cannot express.
        CheckFailedError: a position would pay less than the tiers ask.
    """
    venue = venue_named(name)
    if venue.export is None:
        writers = ", ".join(key for key, one in VENUES.items() if one.export is not None)
        raise InputError(f"tables of {name} are only read; there are exports for: {writers}")
    text = venue.write(venue.export(tiers, options))
    largest = max(own[-1].cap_usd for own in tiers.values())
    written = venue.read([venue.parse(text)], ReadOptions(last_cap_usd=largest, all_usd=True))
    checks = compare_all(tiers, written.margins)
    require_never_below(checks)
    return text, checks
