"""Feature sets (``features/*.toml``): which functions, over which windows, on which grid."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from margincast.specs.base import Duration, Durations, Floats, Fraction, Spec, Texts, to_tuple

Statistic = Literal["last", "mean", "deviation", "time_mean", "minimum", "rank"]
"""How snapshots within a window become one number."""


class Grid(Spec):
    """The decision grid and what a window must hold to be known."""

    interval: Duration
    """Length of a bar and distance between decisions."""
    warm_up: Duration
    """History a contract needs before its first decision."""
    minimum_present: Fraction
    """Share of a window's bars that must be present for the window's value to be known."""
    leader: str
    """Contract whose own features every other contract sees (``BTCUSDT``)."""


class Feature(Spec):
    """One line of a feature set: a function of the library and the arguments it runs over."""

    function: str
    windows: Durations = ()
    values: Floats = ()
    """Numbers the function runs over: levels, bands in bps or notionals in USD."""
    statistics: Annotated[tuple[Statistic, ...], BeforeValidator(to_tuple)] = ()
    columns: Texts = ()
    """Columns of earlier families that a cross-sectional function reads."""


Features = Annotated[tuple[Feature, ...], BeforeValidator(to_tuple)]


class Standing(Spec):
    """How long the newest row of a table stands for the present; older ones are not known.

    A table is named here if, and only if, the set reads it.
    """

    funding: Duration | None = None
    open_interest: Duration | None = None
    implied_vol: Duration | None = None
    options: Duration | None = None


class FeatureSet(Spec):
    """A feature set; its digest says what a model was trained on."""

    name: str
    description: str
    grid: Grid
    standing: Standing = Standing()
    bars: Features = ()
    derivatives: Features = ()
    """Functions of funding, open interest, liquidations, mark and index price."""
    implied_vol: Features = ()
    """Functions of the leader's index of implied volatility, which every contract sees."""
    options: Features = ()
    """Functions of the leader's option chain, which every contract sees."""
    book: Features = ()
    trades: Features = ()
    market: Features = ()
    calendar: Features = ()
