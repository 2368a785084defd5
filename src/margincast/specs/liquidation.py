"""The cost of closing (``[liquidation]`` of a margin policy): fees, half spread, order book.

Responsible for what an operator assumes of a liquidation apart from the move over the horizon.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from margincast.core.time import format_duration
from margincast.specs.base import Duration, Level, PositiveInt, Spec

CostRate = Annotated[float, Field(ge=0.0, lt=1.0)]
Bps = Annotated[float, Field(ge=0.0, lt=10_000.0)]


class BookHorizon(Spec):
    """Which books a liquidation may meet: not only today's, but those of the coming horizon."""

    level: Level
    """Share of moments whose cost is covered."""
    window: Duration
    """How far back books are looked at."""
    every: Duration
    """Of every such period its last book counts."""
    minimum_history: Duration
    """Periods with a book must add up to so much; with less, nothing is taken to be shown."""

    @model_validator(mode="after")
    def _periods_fit(self) -> Self:
        if not self.every <= self.minimum_history <= self.window:
            raise ValueError(
                "every, minimum_history and window must not fall in this order, found "
                f"{format_duration(self.every)}, {format_duration(self.minimum_history)} and "
                f"{format_duration(self.window)}"
            )
        return self


class Recovery(Spec):
    """Closing in slices while the book refills between them."""

    slices: PositiveInt
    """Equal parts, spread evenly over the horizon; the first is closed at once."""
    refill_per_minute: Annotated[float, Field(ge=0.0, lt=1.0)]
    """Share of what the slices before consumed that comes back in a minute."""


class BookWalk(Spec):
    """Closing through the order book: what is assumed of the part that the book does not show."""

    unshown_depth_bps: Bps
    """Distance from the mid price at which notional beyond the book's last level is closed."""
    horizon: BookHorizon | None = None
    """Present: books of the past say what the horizon may bring; absent: today's book is all."""
    recovery: Recovery | None = None
    """Present: closed in slices while the book refills; absent: at once, without any refill."""


class Liquidation(Spec):
    """What closing a liquidated position costs, apart from the move over the horizon."""

    taker_fee_rate: CostRate
    liquidation_fee_rate: CostRate
    half_spread_bps: Bps
    """Least distance from the mid price at which anything is closed."""
    book: BookWalk | None = None
    """Present: the order book is walked at the tiers' notionals; absent: the half spread is all."""
