"""Drift perpetual markets: two margin ratios, and a premium that grows with the root of size.

Sources: drift-labs/protocol-v2, ``programs/drift/src/math/margin.rs``
(``calculate_size_premium_liability_weight``), ``state/perp_market.rs`` (``get_margin_ratio``),
``validation/margin.rs`` and ``math/constants.rs`` (what the program accepts).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from margincast.core.errors import InputError
from margincast.margin.rounding import exact
from margincast.margin.venues.drift_fit import fit
from margincast.margin.venues.imported import Collected, Imported, ReadOptions, VenueMargin
from margincast.margin.venues.record import Record
from margincast.margin.venues.tiers import TiersBySymbol

MARGIN_PRECISION = 10_000
BASE_PRECISION = 10**9
"""Base units of a coin (AMM_RESERVE_PRECISION)."""
IMF_PRECISION = 1_000_000


def size_premium_weight(size: int, imf_factor: int, weight: int, precision: int) -> int:
    """Return ``calculate_size_premium_liability_weight``, whole number by whole number.

    Args:
        size: base amount, in units of 1e-9.
        imf_factor: in units of 1e-6.
        weight: the weight or ratio without a premium, in units of ``1 / precision``.
        precision: units of 1.

    >>> size_premium_weight(10**12, 10_000, 11_000, 10_000)
    11962
    """
    if imf_factor == 0:
        return weight
    premium = math.isqrt(size * 10 + 1) * imf_factor // (100_000 * IMF_PRECISION // precision)
    return max(weight, weight - weight // 5 + premium)


@dataclass(frozen=True)
class PerpMarket:
    """The parameters of a perpetual market that set its margin.

    Attributes:
        symbol: the contract.
        margin_ratio_initial: initial margin ratio, units of 1e-4.
        margin_ratio_maintenance: maintenance margin ratio, units of 1e-4.
        imf_factor: premium for size, units of 1e-6.
        oracle_price_usd: price of a coin that sizes were computed at, USD.
    """

    symbol: str
    margin_ratio_initial: int
    margin_ratio_maintenance: int
    imf_factor: int
    oracle_price_usd: float

    def ratio(self, weight: int, notional_usd: Fraction) -> Fraction:
        """Return the margin ratio of a notional, USD, by the program's whole numbers."""
        size = math.floor(notional_usd / exact(self.oracle_price_usd) * BASE_PRECISION)
        units = size_premium_weight(size, self.imf_factor, weight, MARGIN_PRECISION)
        return Fraction(units, MARGIN_PRECISION)


def read(documents: Sequence[object], options: ReadOptions) -> Imported:
    """Read parameters as :func:`export` writes them; they are no tiers.

    Margins are ratio times notional; the program's rounding of amounts to a millionth of a USDC is
    left out.

    Args:
        documents: one parsed file.
        options: the markets to read.

    Raises:
        InputError: missing keys, or a market twice.
    """
    collected = Collected(options)
    for entry in Record(documents[0], "file").records("perp_markets", "market"):
        symbol = entry.text("symbol")
        if collected.wants(symbol, symbol):
            market = PerpMarket(
                symbol=symbol,
                margin_ratio_initial=entry.whole("margin_ratio_initial"),
                margin_ratio_maintenance=entry.whole("margin_ratio_maintenance"),
                imf_factor=entry.whole("imf_factor"),
                oracle_price_usd=float(entry.number("oracle_price_usd")),
            )
            collected.add(symbol, (), _margin(market))
    return collected.finish()


def export(tiers_by_symbol: TiersBySymbol, prices_usd: Mapping[str, float]) -> dict[str, object]:
    """Return the parameters whose margin is never below that of our tiers, and least above it.

    Size is counted in coins, so they hold at the price given or a lower one: at a higher price the
    same notional is fewer coins, and its premium is smaller.

    Args:
        tiers_by_symbol: our tiers.
        prices_usd: price of a coin, USD, for every contract.

    Raises:
        InputError: no price for a contract.
    """
    markets = []
    for symbol, tiers in tiers_by_symbol.items():
        if symbol not in prices_usd:
            raise InputError(
                f"{symbol}: Drift counts size in coins, so its price is needed; give it with "
                f"--price {symbol}=USD"
            )
        price = prices_usd[symbol]
        found = fit(symbol, tiers, price)
        markets.append(
            {
                "symbol": symbol,
                "margin_ratio_initial": found.initial,
                "margin_ratio_maintenance": found.maintenance,
                "imf_factor": found.imf_factor,
                "oracle_price_usd": price,
                "largest_position_usd": tiers[-1].cap_usd,
            }
        )
    return {"perp_markets": markets}


def _margin(market: PerpMarket) -> VenueMargin:
    return VenueMargin(
        1,
        lambda notional: notional * market.ratio(market.margin_ratio_maintenance, notional),
        lambda notional: market.ratio(market.margin_ratio_initial, notional),
    )
