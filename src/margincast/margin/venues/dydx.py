"""dYdX v4 liquidity tiers: one initial margin and one maintenance fraction of it a market.

Sources: dydxprotocol/v4-chain, ``proto/dydxprotocol/perpetuals/perpetual.proto`` (keys and units),
``protocol/x/perpetuals/lib/lib.go`` (both requirements round up to a quote quantum, a millionth of
a USDC) and ``protocol/x/perpetuals/types/liquidity_tier.go`` (limits of the values; the initial
margin rises to 1 between the open-interest caps).
"""

import math
from collections.abc import Sequence
from fractions import Fraction

from margincast.core.errors import InputError
from margincast.margin.rounding import exact
from margincast.margin.venues.imported import (
    Collected,
    Imported,
    ReadOptions,
    VenueMargin,
)
from margincast.margin.venues.record import Record
from margincast.margin.venues.tiers import ExactTiers, TiersBySymbol, checked_tiers

MILLION = 1_000_000
"""Parts of a rate, and quote quantums of a USDC."""
IMPACT_NOTIONAL_QUANTUMS = 500 * MILLION
"""Recommended impact notional is 500 USDC over the initial margin fraction (perpetual.proto)."""


def read(documents: Sequence[object], options: ReadOptions) -> Imported:
    """Read liquidity tiers and the markets that use them.

    A market's one tier ends at its tier's ``open_interest_upper_cap``, where the venue asks the
    whole notional; where that is 0, at ``options.last_cap_usd``.

    Args:
        documents: parsed files that together hold ``liquidity_tiers`` and the markets
            (``perpetual`` of a node's response, ``perpetuals`` of a genesis or of our export).
        options: the markets to read, and the largest position.

    Raises:
        InputError: missing keys, a market twice, a tier that is not there, or values that the
            chain's own validation refuses.
        SpecError: a maintenance margin not below the initial one.
    """
    collected = Collected(options)
    files = [Record(document, f"file {n}") for n, document in enumerate(documents, start=1)]
    tiers = {tier.whole("id"): tier for tier in _all(files, ("liquidity_tiers",), "liquidity tier")}
    for market in _all(files, ("perpetual", "perpetuals"), "market"):
        params = Record(market.value("params"), f"{market.where}, params")
        symbol = params.text("ticker")
        if not collected.wants(symbol, symbol):
            continue
        number = params.whole("liquidity_tier")
        if number not in tiers:
            raise InputError(
                f"{symbol} uses liquidity tier {number}, which is not there; found: "
                f"{', '.join(map(str, sorted(tiers)))}"
            )
        tier = Record(tiers[number].raw, f"{symbol}, liquidity tier {number}")
        initial, fraction = _validated(tier)
        end = tier.whole("open_interest_upper_cap")
        cap = end / MILLION if end else options.last_cap(symbol, Fraction(0))
        row = {
            "floor_usd": 0.0,
            "cap_usd": cap,
            # at most twelve digits, so the double denotes the very product
            "mmr": initial * fraction / MILLION**2,
            "imr": initial / MILLION,
        }
        if end:
            collected.remark(
                "initial margins rise to 100 % as a market's open interest goes from "
                "open_interest_lower_cap to open_interest_upper_cap; the schedule holds those below"
            )
        collected.add(symbol, checked_tiers([row], symbol), _margin(initial, fraction))
    return collected.finish()


def export(tiers_by_symbol: TiersBySymbol) -> dict[str, object]:
    """Return liquidity tiers and the markets that use them.

    The venue has one rate for every position, so it is the one of the largest: margin over
    notional at the last cap. Both integers are rounded up, so that no position pays less than our
    tiers ask; smaller positions pay more. Open-interest caps are 0, which leaves the initial margin
    as it is. The ids of tiers count from 0, where the venue gives its own.
    """
    tiers: dict[tuple[int, int], int] = {}
    markets = []
    for symbol, own in tiers_by_symbol.items():
        last = own[-1]
        end = exact(last.cap_usd)
        effective = ExactTiers.of(own).maintenance_usd(end) / end
        initial = math.ceil(exact(last.imr) * MILLION)
        fraction = math.ceil(effective * MILLION * MILLION / initial)
        number = tiers.setdefault((initial, fraction), len(tiers))
        markets.append({"params": {"ticker": symbol, "liquidity_tier": number}})
    return {
        "liquidity_tiers": [
            {
                "id": number,
                "name": f"margincast-{number}",
                "initial_margin_ppm": initial,
                "maintenance_fraction_ppm": fraction,
                "base_position_notional": "0",
                "impact_notional": str(
                    math.ceil(Fraction(IMPACT_NOTIONAL_QUANTUMS * MILLION, initial))
                ),
                "open_interest_lower_cap": "0",
                "open_interest_upper_cap": "0",
            }
            for (initial, fraction), number in tiers.items()
        ],
        "perpetuals": markets,
    }


def _validated(tier: Record) -> tuple[int, int]:
    """Return initial margin and maintenance fraction, ppm, as ``LiquidityTier.Validate`` has it."""
    values = []
    for key in ("initial_margin_ppm", "maintenance_fraction_ppm"):
        value = tier.whole(key)
        if not 0 < value <= MILLION:
            raise InputError(
                f"{tier.where}: '{key}' must lie above 0 and at most at {MILLION:,}, found {value}"
            )
        values.append(value)
    lower, upper = tier.whole("open_interest_lower_cap"), tier.whole("open_interest_upper_cap")
    if lower > upper:
        raise InputError(
            f"{tier.where}: open_interest_lower_cap {lower} lies above open_interest_upper_cap "
            f"{upper}; the chain refuses that"
        )
    return values[0], values[1]


def _margin(initial: int, fraction: int) -> VenueMargin:
    """The chain's own arithmetic: whole quote quantums, both requirements rounded up."""

    def initial_quantums(notional: Fraction) -> int:
        quantums = notional * MILLION
        return math.ceil(quantums * initial / MILLION)

    def maintenance(notional: Fraction) -> Fraction:
        quantums = math.ceil(Fraction(initial_quantums(notional) * fraction, MILLION))
        return Fraction(quantums, MILLION)

    return VenueMargin(
        1,
        maintenance,
        lambda notional: Fraction(initial_quantums(notional), MILLION) / notional,
    )


def _all(files: Sequence[Record], keys: tuple[str, ...], each: str) -> list[Record]:
    found = [
        record
        for file in files
        for key in keys
        if key in file.raw
        for record in file.records(key, each)
    ]
    if not found:
        raise InputError(
            f"no {each} in the files given: none has the key '{keys[0]}'; give both responses, "
            "liquidity_tiers and perpetuals, the second with --with"
        )
    return found
