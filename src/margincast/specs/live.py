"""Live mode (``serving/live.toml``): which feed is followed, what is a fault, and when it is over.

Responsible for the numbers by which a live margin falls back to safety and comes back from there.
"""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from margincast.core.time import format_duration
from margincast.specs.base import (
    Delay,
    Duration,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Spec,
    to_tuple,
)

FeedTable = Literal[
    "bars", "book", "trades", "mark", "funding", "open_interest", "liquidations", "implied_vol"
]
"""Tables whose rows a feed may give; ``mark`` is the venue's mark price."""


class Feed(Spec):
    """What is sent, and how long is waited for it."""

    tables: Annotated[tuple[FeedTable, ...], BeforeValidator(to_tuple), Field(min_length=1)]
    wait_for_rows: Delay
    """Time after a bar's close at which is decided with what has come; sooner where all has."""
    queue_rows: PositiveInt
    """Rows that may wait to be taken in; one more is refused and counted, and all fall back."""
    line_bytes: PositiveInt
    """Longest line that is read."""

    @model_validator(mode="after")
    def _has_prices(self) -> Self:
        if not {"bars", "book"} & set(self.tables):
            raise ValueError("tables names neither bars nor book: there is nothing to decide on")
        if len(set(self.tables)) < len(self.tables):
            raise ValueError(f"tables names one twice: {', '.join(self.tables)}")
        return self


class Longest(Spec):
    """A longest time for each table; those not named are not looked at."""

    bars: Duration | None = None
    book: Duration | None = None
    trades: Duration | None = None
    mark: Duration | None = None


class Watch(Spec):
    """What is looked at, and from when on it is a fault."""

    every_milliseconds: Annotated[int, Field(ge=10, le=500)]
    """Time between two looks; they go on while the feed is silent."""
    silence: Longest
    """How long a contract may be without a row."""
    unchanged: Longest | None = None
    """How long its rows may say the same: a feed that is frozen sends, and tells nothing."""
    clock_skew: Duration
    """Most by which a row may come from the future, or the clock jump."""
    longest_delay: Duration
    """Most time between a row's time, or a bar's close, and its arrival."""
    longest_lag: Duration
    """Most that the oldest row waiting to be taken in may have waited."""
    mark_deviation: PositiveFloat
    """Largest distance of a price from the mark, or without one from the book's mid, a fraction."""
    least_free_bytes: PositiveInt
    """Free space on the disk that snapshots are written to, below which it counts as full."""
    champion_every_milliseconds: Annotated[int, Field(ge=50)]
    """Time between two looks at the registry and the bundle on the disk."""
    longest_store_outage: Delay
    """Time for which MLflow may be unreachable while the last good champion serves."""


class Recovery(Spec):
    """When a fault is over: nothing comes back at the first good row."""

    quiet: Duration
    """Time without any fault."""
    good_decisions: NonNegativeInt
    """Decisions with a usable forecast since the last fault."""


class LiveMode(Spec):
    """Live mode: a margin policy followed event by event."""

    name: str
    description: str
    policy: str
    """Margin policy, as a path relative to the workspace."""
    feed: Feed
    watch: Watch
    recovery: Recovery

    @model_validator(mode="after")
    def _watched_tables_come(self) -> Self:
        for name, limits in (("silence", self.watch.silence), ("unchanged", self.watch.unchanged)):
            for table in Longest.model_fields:
                limit = getattr(limits, table, None)
                if limit is not None and table not in self.feed.tables:
                    raise ValueError(
                        f"watch.{name}.{table} is {format_duration(limit)}, but feed.tables does "
                        f"not name {table}: it would be silent for ever"
                    )
        return self
