"""Liquidation cost: what closing the position costs on top of the move over the horizon.

Responsible for the second step of the margin: half spread, walking the order book (today's, and
those that the horizon may bring), and fees, as a fraction of the notional. All distances are from
the mid price, because the forecast move is one of prices that stand between bid and ask.
"""

from dataclasses import dataclass, field

import numpy as np

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.core.types import FloatArray, Side
from margincast.core.units import BPS
from margincast.margin.slices import consumed_before
from margincast.margin.snapshots import Snapshots, level_distances, walk_books
from margincast.specs.liquidation import BookWalk
from margincast.specs.schedule import Tier
from margincast.specs.serving import MarginPolicy

POINTS = 5
"""Notionals in a tier, its cap the last, at which a tier's rate must pay for closing."""


@dataclass(frozen=True, eq=False)
class Book:
    """An order book, best level first, and those that came before it.

    Attributes:
        bid_prices: shape (levels,), quote currency (USD), falling; NaN where a level is not known.
        bid_sizes: shape (levels,), base currency.
        ask_prices: shape (levels,), quote currency (USD), rising.
        ask_sizes: shape (levels,), base currency.
        history: books of the past, this one the last of them; None where they are not known.

    Raises:
        InputError: see :class:`~margincast.margin.snapshots.Snapshots`.
    """

    bid_prices: FloatArray
    bid_sizes: FloatArray
    ask_prices: FloatArray
    ask_sizes: FloatArray
    history: Snapshots | None = None
    snapshot: Snapshots = field(init=False, repr=False)
    """The book alone, as a history of one."""

    def __post_init__(self) -> None:
        tables = (self.bid_prices, self.bid_sizes, self.ask_prices, self.ask_sizes)
        if any(np.ndim(table) != 1 for table in tables):
            raise InputError("a book's prices and sizes are four lists, one value a level")
        never = np.array(["NaT"], dtype="datetime64[us]")
        object.__setattr__(self, "snapshot", Snapshots(never, *tables))

    @classmethod
    def latest(cls, history: Snapshots) -> "Book":
        """Return the last book of a history, with it."""
        return cls(
            history.bid_prices[-1],
            history.bid_sizes[-1],
            history.ask_prices[-1],
            history.ask_sizes[-1],
            history,
        )


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
    """Return what closing by walking one book costs, USD; the shape is that of ``notional_usd``.

    See :func:`~margincast.margin.snapshots.walk_books`.
    """
    asked = np.asarray(notional_usd, dtype=np.float64)
    cost = walk_books(
        book.snapshot, side, asked.ravel(), least_rate=least_rate, unshown_rate=unshown_rate
    )
    return np.reshape(cost[0], asked.shape)


def closing_cost_usd(
    notional_usd: FloatArray, side: Side, policy: MarginPolicy, book: Book | None
) -> tuple[FloatArray, str]:
    """Return what closing positions costs apart from fees, USD, and where the numbers come from.

    With a horizon in the policy it is the larger of two: what today's book costs, and at every
    notional the quantile of what the books of the window cost. Today's book alone says little of
    the one in some minutes, and ratios to it say less than the quantile (measured:
    ``docs/method/liquidation_cost.md``).

    Args:
        notional_usd: position notionals, shape (m,), USD, zero or more.
        side: side of the position that is closed.
        policy: the margin policy.
        book: latest order book, with its history where the policy looks at the horizon; None
            where there is none.
    """
    stated = _stated_rate(side, policy, book)
    if stated is not None:
        rate, reason = stated
        return rate * np.asarray(notional_usd, dtype=np.float64), reason
    walk = policy.liquidation.book
    assert walk is not None
    assert book is not None
    cost = _sliced_cost_usd(book.snapshot, notional_usd, side, policy)[0]
    reason = "walking the book"
    if walk.horizon is not None:
        assert book.history is not None
        past = _within_window(book.history, walk)
        of_past = _sliced_cost_usd(past, notional_usd, side, policy)
        cost = np.maximum(cost, np.quantile(of_past, walk.horizon.level, axis=0, method="higher"))
        reason = (
            f"walking today's book or, where that costs more, the {walk.horizon.level:g} quantile "
            f"of {len(past):,} books of {format_duration(walk.horizon.window)}"
        )
    if walk.recovery is not None:
        reason += (
            f", in {walk.recovery.slices} slices over {format_duration(policy.model.horizon)} "
            f"with {walk.recovery.refill_per_minute:.3g} of the consumed depth refilled a minute"
        )
    return cost, reason


def liquidation_costs(
    tiers: tuple[Tier, ...], side: Side, policy: MarginPolicy, book: Book | None
) -> tuple[LiquidationCost, ...]:
    """Return the liquidation cost of every tier, never falling from tier to tier.

    A tier's rate applies only to the notional within the tier (that is what the maintenance amount
    does), so its cost is the marginal one, ``(cost(cap) - cost(floor)) / (cap - floor)``. With the
    average cost at the cap instead, the margin of a position that spans several tiers would not
    pay for closing it; with the marginal cost, and a convex cost, it does at every notional. A
    quantile over books, or slices, need not be convex: the rates are then the least that do not
    fall and pay for closing at ``POINTS`` notionals of every tier.

    Where the policy does not walk the book, the stated half spread is the trading cost. Where it
    does and there is no book, or less history than the policy asks for, nothing is taken to be
    shown, and all notional costs what unshown depth costs.

    Args:
        tiers: base tiers of the contract.
        side: side of the position that is closed.
        policy: the margin policy.
        book: see :func:`closing_cost_usd`.
    """
    liquidation = policy.liquidation
    fee_rate = liquidation.taker_fee_rate + liquidation.liquidation_fee_rate
    stated = _stated_rate(side, policy, book)
    if stated is not None:
        rate, reason = stated
        return (LiquidationCost(rate, fee_rate, f"{reason}, and fees"),) * len(tiers)
    walk = liquidation.book
    convex = walk is not None and walk.horizon is None and walk.recovery is None
    shares = np.array([1.0]) if convex else np.arange(1, POINTS + 1) / POINTS
    floors = np.array([tier.floor_usd for tier in tiers])
    caps = np.array([tier.cap_usd for tier in tiers])
    points = floors[:, None] + shares * (caps - floors)[:, None]
    cost, reason = closing_cost_usd(points.ravel(), side, policy, book)
    rates = rising_rates(floors, points, cost.reshape(points.shape))
    return tuple(
        LiquidationCost(
            rate,
            fee_rate,
            f"{reason} from {tier.floor_usd:,.0f} to {tier.cap_usd:,.0f} USD, and fees",
        )
        for rate, tier in zip(rates, tiers, strict=True)
    )


def rising_rates(
    floors_usd: FloatArray, points_usd: FloatArray, cost_usd: FloatArray
) -> list[float]:
    """Return the least marginal rates that do not fall and pay a cost at given notionals.

    A position of n pays the rate of every tier for its notional within the tier. The rates are
    least in order: of those that agree with it on the tiers before, none pays less in a tier.

    Args:
        floors_usd: where the tiers start, rising from 0, shape (t,), USD.
        points_usd: notionals within each tier, the cap last, shape (t, p), USD.
        cost_usd: cost of closing positions of these notionals, shape (t, p), USD.
    """
    rates: list[float] = []
    charged_usd = last = 0.0
    # as numbers: there are few, and what each needs hangs on the one before
    tables = (floors_usd.tolist(), points_usd.tolist(), cost_usd.tolist())
    for floor, points, cost in zip(*tables, strict=True):
        needed = [(one - charged_usd) / (n - floor) for n, one in zip(points, cost, strict=True)]
        last = max(last, *needed)
        rates.append(last)
        charged_usd += last * (points[-1] - floor)
    return rates


def _stated_rate(side: Side, policy: MarginPolicy, book: Book | None) -> tuple[float, str] | None:
    """Return the one rate of all notional and its reason, or None where the book is walked."""
    liquidation = policy.liquidation
    walk, half_spread_bps = liquidation.book, liquidation.half_spread_bps
    if walk is None:
        return half_spread_bps * BPS, f"stated half spread of {half_spread_bps:g} bps"
    unshown_bps = max(walk.unshown_depth_bps, half_spread_bps)
    rule = f"{unshown_bps:g} bps for depth that is not shown"
    if book is None:
        return unshown_bps * BPS, f"no order book: {rule}"
    if walk.horizon is None:
        return None
    there, least = 0 * walk.horizon.every, walk.horizon.minimum_history
    if book.history is not None:
        there = _within_window(book.history, walk).covered(walk.horizon.every)
    if there >= least:
        return None
    deepest, _ = level_distances(book.snapshot, side, half_spread_bps * BPS)
    rate = max(unshown_bps * BPS, float(deepest[0, -1]))
    had = format_duration(there) if there else "nothing"
    return rate, f"{had} of the {format_duration(least)} of books that are needed: {rule}"


def _within_window(history: Snapshots, walk: BookWalk) -> Snapshots:
    assert walk.horizon is not None
    return history.since(history.known_at[-1] - np.timedelta64(walk.horizon.window))


def _sliced_cost_usd(
    books: Snapshots, notional_usd: FloatArray, side: Side, policy: MarginPolicy
) -> FloatArray:
    """Return the cost in every book, shape (n, m), closed in the slices of the policy."""
    walk = policy.liquidation.book
    assert walk is not None
    least_rate = policy.liquidation.half_spread_bps * BPS
    unshown_rate = max(walk.unshown_depth_bps * BPS, least_rate)
    notional_usd = np.asarray(notional_usd, dtype=np.float64)
    before = consumed_before(walk.recovery, policy.model.horizon)
    # what the first slice starts from costs nothing
    ends = np.concatenate((before[1:], before + 1.0 / len(before)))
    cost = walk_books(
        books,
        side,
        np.outer(ends, notional_usd).ravel(),
        least_rate=least_rate,
        unshown_rate=unshown_rate,
    ).reshape(len(books), len(ends), notional_usd.size)
    sliced: FloatArray = cost[:, len(before) - 1 :].sum(axis=1) - cost[:, : len(before) - 1].sum(1)
    return sliced
