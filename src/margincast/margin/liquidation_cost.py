"""Liquidation cost: what closing the position costs on top of the move over the horizon.

Responsible for the second step of the margin: half spread, walking the order book, and fees, as a
fraction of the notional. All distances are from the mid price, because the forecast move is one of
prices that stand between bid and ask.
"""

from dataclasses import dataclass

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray, Side
from margincast.core.units import BPS
from margincast.specs.schedule import Tier
from margincast.specs.serving import Liquidation


@dataclass(frozen=True, eq=False)
class Book:
    """A snapshot of an order book, best level first.

    Attributes:
        bid_prices: shape (levels,), quote currency (USD), falling; NaN where a level is not known.
        bid_sizes: shape (levels,), base currency.
        ask_prices: shape (levels,), quote currency (USD), rising.
        ask_sizes: shape (levels,), base currency.

    Raises:
        InputError: a side without any known depth, shapes that differ, prices that are not
            positive or out of order, negative sizes, or a crossed book (a locked one is allowed).
    """

    bid_prices: FloatArray
    bid_sizes: FloatArray
    ask_prices: FloatArray
    ask_sizes: FloatArray

    def __post_init__(self) -> None:
        for side in ("bid", "ask"):
            prices, sizes = _known_levels(
                getattr(self, f"{side}_prices"), getattr(self, f"{side}_sizes"), side
            )
            object.__setattr__(self, f"{side}_prices", prices)
            object.__setattr__(self, f"{side}_sizes", sizes)
        if self.bid_prices[0] > self.ask_prices[0]:
            raise InputError(
                f"the order book is crossed: best bid {self.bid_prices[0]:g} above best ask "
                f"{self.ask_prices[0]:g}; pass a book that the data checks have cleaned, or none"
            )

    @property
    def mid_price(self) -> float:
        """Mean of best bid and best ask, quote currency (USD)."""
        return 0.5 * float(self.bid_prices[0] + self.ask_prices[0])


@dataclass(frozen=True)
class LiquidationCost:
    """Cost of closing the notional of one tier, as a fraction of that notional.

    Attributes:
        trading_rate: distance from the mid price at which the tier's notional is closed.
        fee_rate: taker and liquidation fee.
        reason: where the trading rate comes from.
    """

    trading_rate: float
    fee_rate: float
    reason: str

    @property
    def rate(self) -> float:
        """Trading cost and fees together, a fraction of the notional."""
        return self.trading_rate + self.fee_rate


def walk_book(
    book: Book, side: Side, notional_usd: FloatArray, *, least_rate: float, unshown_rate: float
) -> FloatArray:
    """Return what closing a position by walking the book costs, in USD against the mid price.

    A long is sold into the bids, a short is bought back from the asks. Level i is filled at a
    distance ``d_i = max(|price_i - mid| / mid, least_rate)``, and what the book does not show at
    ``max(unshown_rate, d_last)``. The cost is therefore convex in notional, and zero at zero.

    Args:
        book: the order book.
        side: side of the position that is closed.
        notional_usd: position notionals at the mid price, any shape, USD, zero or more.
        least_rate: least distance from the mid price (a locked or one-tick book shows none).
        unshown_rate: distance assumed for notional beyond the last level.

    Raises:
        InputError: a notional or a rate is negative or not finite.
    """
    notional_usd = np.asarray(notional_usd, dtype=np.float64)
    for name, values in (
        ("notional_usd", notional_usd),
        ("least_rate", np.asarray(least_rate)),
        ("unshown_rate", np.asarray(unshown_rate)),
    ):
        if not np.all(np.isfinite(values) & (values >= 0.0)):
            raise InputError(f"{name} must be finite and zero or more, found {values}")
    is_long = side == "long"
    prices = book.bid_prices if is_long else book.ask_prices
    sizes = book.bid_sizes if is_long else book.ask_sizes
    mid_price = book.mid_price
    distance = np.maximum(np.abs(prices - mid_price) / mid_price, least_rate)
    depth_usd = sizes * mid_price
    shown_usd = np.concatenate(([0.0], np.cumsum(depth_usd)))
    cost_usd = np.concatenate(([0.0], np.cumsum(depth_usd * distance)))
    beyond_usd = np.maximum(notional_usd - shown_usd[-1], 0.0)
    walked = np.interp(notional_usd, shown_usd, cost_usd)
    cost: FloatArray = walked + beyond_usd * max(unshown_rate, float(distance[-1]))
    return cost


def liquidation_costs(
    tiers: tuple[Tier, ...], side: Side, liquidation: Liquidation, book: Book | None
) -> tuple[LiquidationCost, ...]:
    """Return the liquidation cost of every tier, never falling from tier to tier.

    A tier's rate applies only to the notional within the tier (that is what the maintenance amount
    does), so its cost is the marginal one, ``(cost(cap) - cost(floor)) / (cap - floor)``. With the
    average cost at the cap instead, the margin of a position that spans several tiers would not
    pay for closing it; with the marginal cost, and a convex cost, it does at every notional.

    Where the policy does not walk the book, the stated half spread is the trading cost. Where it
    does and there is no book, nothing is shown, and all notional costs what unshown depth costs.

    Args:
        tiers: base tiers of the contract.
        side: side of the position that is closed.
        liquidation: the policy's rates.
        book: latest order book, or None where there is none.
    """
    fee_rate = liquidation.taker_fee_rate + liquidation.liquidation_fee_rate
    half_spread_rate = liquidation.half_spread_bps * BPS
    if liquidation.book is None:
        reason = f"stated half spread of {liquidation.half_spread_bps:g} bps, and fees"
        return (LiquidationCost(half_spread_rate, fee_rate, reason),) * len(tiers)
    unshown_bps = max(liquidation.book.unshown_depth_bps, liquidation.half_spread_bps)
    if book is None:
        reason = f"no order book: {unshown_bps:g} bps for depth that is not shown, and fees"
        return (LiquidationCost(unshown_bps * BPS, fee_rate, reason),) * len(tiers)
    edges_usd = np.array([tiers[0].floor_usd, *(tier.cap_usd for tier in tiers)])
    cost_usd = walk_book(
        book, side, edges_usd, least_rate=half_spread_rate, unshown_rate=unshown_bps * BPS
    )
    # Convexity makes the marginal rates rise; accumulating only removes floating-point noise.
    rates = np.maximum.accumulate(np.diff(cost_usd) / np.diff(edges_usd))
    return tuple(
        LiquidationCost(
            float(rate),
            fee_rate,
            f"walking the book from {tier.floor_usd:,.0f} to {tier.cap_usd:,.0f} USD, and fees",
        )
        for rate, tier in zip(rates, tiers, strict=True)
    )


def _known_levels(
    prices: FloatArray, sizes: FloatArray, side: str
) -> tuple[FloatArray, FloatArray]:
    prices, sizes = np.asarray(prices, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    if prices.ndim != 1 or prices.shape != sizes.shape:
        raise InputError(
            f"{side} prices and sizes must be two arrays of one length, found shapes "
            f"{prices.shape} and {sizes.shape}"
        )
    if np.any(sizes < 0.0) or np.any(np.isinf(sizes)):
        raise InputError(f"{side} sizes must be finite and zero or more, found {sizes}")
    known = np.isfinite(prices) & (sizes > 0.0)
    prices, sizes = prices[known], sizes[known]
    if prices.size == 0:
        raise InputError(f"the order book shows no {side} depth; pass no book instead")
    ordered = np.diff(prices) <= 0.0 if side == "bid" else np.diff(prices) >= 0.0
    if np.any(prices <= 0.0) or not np.all(ordered):
        raise InputError(
            f"{side} prices must be positive and ordered best first, found {prices[:5]}"
        )
    return prices, sizes
