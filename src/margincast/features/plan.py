"""A feature set read once: every column it builds, in the order in which the stages build them.

Batch over years and streaming over the last events run the same plan.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from margincast.core.errors import InputError, did_you_mean
from margincast.features import (
    calendar,
    derivatives,
    implied_vol,
    market,
    order_book,
    trade_flow,
    volatility,
)
from margincast.features.library import Family, Unit
from margincast.features.lines import Column, columns_of
from margincast.specs.features import FeatureSet

FAMILIES = (volatility, derivatives, implied_vol, order_book, trade_flow, market, calendar)
"""The modules whose import fills the library."""


@dataclass(frozen=True)
class Plan:
    """The columns of a feature set.

    Attributes:
        feature_set: the set.
        own: over a contract's bars, and what stands beside them.
        of_leader: over the leader's bars, and what stands beside them; every contract sees them.
        clock: over decision times.
        reduced: name and unit of the columns that books and trades give.
        against: over a contract's columns beside the leader's.
        across: over all contracts at one decision.
        units: unit of every column, in the order of the feature table.
    """

    feature_set: FeatureSet
    own: tuple[Column, ...]
    of_leader: tuple[Column, ...]
    clock: tuple[Column, ...]
    reduced: Mapping[str, Unit]
    against: tuple[Column, ...]
    across: tuple[Column, ...]
    units: Mapping[str, Unit]

    @classmethod
    def of(cls, feature_set: FeatureSet) -> "Plan":
        """Read a feature set.

        Raises:
            InputError: an unknown function or column, arguments that do not fit, a window off the
                grid, or a column that two lines build.
        """

        def read(*families: Family) -> tuple[Column, ...]:
            grid = feature_set.grid
            return tuple(
                column
                for family in families
                for column in columns_of(
                    getattr(feature_set, family), family, grid.interval, grid.minimum_present
                )
            )

        own, of_leader, clock = (
            read("bars", "derivatives"),
            read("implied_vol", "options"),
            read("calendar"),
        )
        panel = read("market")
        reduced = reduced_column_units(feature_set)
        _require_distinct([column.name for column in (*own, *of_leader, *clock, *panel)], reduced)
        units: dict[str, Unit] = {
            **{column.name: column.unit for column in (*own, *of_leader, *clock)},
            **reduced,
        }
        against = tuple(column for column in panel if column.against_leader)
        across = tuple(column for column in panel if not column.against_leader)
        for columns in (against, across):
            units |= {column.name: _market_unit(column, units) for column in columns}
        return cls(feature_set, own, of_leader, clock, reduced, against, across, units)


def reduced_column_units(feature_set: FeatureSet) -> dict[str, Unit]:
    """Name and unit of every column the book and trade families of a set produce, in order."""
    grid = feature_set.grid
    return {
        **order_book.column_units(feature_set.book, grid.interval),
        **trade_flow.column_units(feature_set.trades, grid.interval),
    }


def _market_unit(column: Column, units: Mapping[str, Unit]) -> Unit:
    """Unit of a market column: a number, too, where it shows a column that is one."""
    for name in column.reads:
        if name not in units:
            raise InputError(
                f"a market feature reads a column the set does not build: {name}"
                f"{did_you_mean(name, units)}"
            )
    return "number" if "number" in {units[name] for name in column.reads} else column.unit


def _require_distinct(names: list[str], reduced: Mapping[str, Unit]) -> None:
    every = [*names, *reduced]
    twice = sorted({name for name in every if every.count(name) > 1})
    if twice:
        raise InputError(f"the feature set builds twice: {', '.join(twice)}")
