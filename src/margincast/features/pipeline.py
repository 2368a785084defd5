"""Run a feature set: from regular bars (and book minutes) to one row a contract and decision.

What enters a forecast is decided here once, for training, backtest and scoring alike. A decision
is a bar close; a contract has decisions where its bar is present and its warm-up is over.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pandas as pd
import polars as pl

from margincast.core.errors import InputError, did_you_mean
from margincast.core.time import format_duration
from margincast.data.bars import BarTable
from margincast.data.quality import Finding
from margincast.features import calendar, market, order_book, trade_flow, volatility
from margincast.features.library import Family, FeatureFunction, Unit, Window, look_up
from margincast.specs.features import Feature, FeatureSet

FAMILIES = (volatility, market, calendar, order_book, trade_flow)
"""The modules whose import fills the library."""


@dataclass(frozen=True)
class FeatureTable:
    """Features at every decision.

    Attributes:
        frame: columns ``symbol``, ``ts`` (decision time, UTC), ``close`` (decision price) and the
            features (float64, NaN where not known); sorted by ``ts`` then ``symbol``.
        units: unit of every feature column.
        feature_set_hash: digest of the feature set.
        findings: decisions left out and features unknown, with counts.
    """

    frame: pd.DataFrame
    units: Mapping[str, Unit]
    feature_set_hash: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Column:
    name: str
    unit: Unit
    expression: pl.Expr
    reads: tuple[str, ...]
    against_leader: bool


def build_features(
    feature_set: FeatureSet, bars: BarTable, reduced: Mapping[str, pl.DataFrame] | None = None
) -> FeatureTable:
    """Build the features of a set at every decision of every contract.

    Args:
        feature_set: which features.
        bars: regular bars, on the feature set's grid.
        reduced: per symbol, book and trade columns already reduced to the grid, with ``ts`` the
            decision time (see :mod:`margincast.features.order_book`); None without a book.

    Raises:
        InputError: an unknown function or column, a window off the grid, or no decision at all.
    """
    grid = feature_set.grid
    own = list(_columns(feature_set.bars, "bars", grid.interval, grid.minimum_present))
    clock = list(_columns(feature_set.calendar, "calendar", grid.interval, grid.minimum_present))
    panel = list(_columns(feature_set.market, "market", grid.interval, grid.minimum_present))
    against = [column for column in panel if column.against_leader]
    across = [column for column in panel if not column.against_leader]
    reduced_columns = reduced_column_units(feature_set)
    _require_distinct([column.name for column in [*own, *clock, *panel]] + list(reduced_columns))
    units: dict[str, Unit] = {
        **{column.name: column.unit for column in [*own, *clock]},
        **reduced_columns,
    }
    for columns in (against, across):
        units |= {column.name: _market_unit(column, units) for column in columns}
    findings: list[Finding] = []
    whole = {}
    for symbol, frame in bars.frames.items():
        part = _one_contract(frame, own, clock, grid.interval)
        if reduced_columns:
            part = _join_reduced(part, (reduced or {}).get(symbol), list(reduced_columns))
        whole[symbol] = part
    parts = []
    for symbol, part in whole.items():
        beside_leader = _with_leader(part, whole.get(grid.leader), against)
        decided, more = _eligible(beside_leader, symbol, grid.warm_up, grid.interval)
        findings += more
        parts.append(decided)
    table = pl.concat(parts)
    if table.is_empty():
        raise InputError(
            f"no decision is left: every contract is shorter than grid.warm_up "
            f"({format_duration(grid.warm_up)}); use more history or a shorter warm-up"
        )
    table = _with_market(table, across, grid.leader)
    table = table.select("symbol", "ts", "close", *units).sort("ts", "symbol")
    findings += _unknown_shares(table, list(units))
    decisions = table.to_pandas()
    decisions[list(units)] = decisions[list(units)].astype("float64")
    return FeatureTable(decisions, units, feature_set.digest(), tuple(findings))


def reduced_column_units(feature_set: FeatureSet) -> dict[str, Unit]:
    """Name and unit of every column the book and trade families of a set produce, in order."""
    grid = feature_set.grid
    return {
        **order_book.column_units(feature_set.book, grid.interval),
        **trade_flow.column_units(feature_set.trades, grid.interval),
    }


def _columns(
    entries: Sequence[Feature], family: Family, interval: timedelta, minimum_present: float
) -> Iterator[_Column]:
    for entry in entries:
        function = look_up(family, entry.function)
        for label, arguments in _arguments(entry, function, interval, minimum_present):
            name = f"{entry.function}_{label}" if label else entry.function
            yield _Column(
                name,
                function.unit,
                function.build(*arguments).cast(pl.Float64).alias(name),
                tuple(argument for argument in arguments if isinstance(argument, str)),
                function.argument == "columns and windows",
            )


def _arguments(
    entry: Feature, function: FeatureFunction, interval: timedelta, minimum_present: float
) -> list[tuple[str, tuple[Window | float | str, ...]]]:
    windows = [Window.over(length, interval, minimum_present) for length in entry.windows]
    given: list[tuple[str, tuple[Window | float | str, ...]]]
    match function.argument:
        case "nothing":
            given = [("", ())]
        case "windows":
            given = [(window.label, (window,)) for window in windows]
        case "values":
            given = [(f"{value:g}", (value,)) for value in entry.values]  # noqa: PD011  # a spec key
        case "columns":
            given = [(column, (column,)) for column in entry.columns]
        case "pairs":
            if len(entry.columns) not in (0, 2):
                raise InputError(
                    f"feature '{entry.function}' reads two columns a line, and lists "
                    f"{len(entry.columns)}: {', '.join(entry.columns)}; give each pair its own line"
                )
            given = [("_".join(entry.columns), entry.columns)] if entry.columns else []
        case "columns and windows":
            given = [
                (f"{column}_{window.label}", (column, window))
                for column in entry.columns
                for window in windows
            ]
    if not given:
        raise InputError(f"feature '{entry.function}' needs {function.argument}, and lists none")
    return given


def _one_contract(
    frame: pl.DataFrame, own: Sequence[_Column], clock: Sequence[_Column], interval: timedelta
) -> pl.DataFrame:
    # eager and not lazy: a lazy query cuts a rolling sum into pieces at places that hang on the
    # number of rows, so bars to come would move the last bit of earlier features
    decided = frame.select(
        "symbol",
        (pl.col("ts") + interval).alias("ts"),
        "close",
        *[column.expression for column in own],
    )
    return decided.with_columns(column.expression for column in clock)


def _join_reduced(
    part: pl.DataFrame, reduced: pl.DataFrame | None, names: list[str]
) -> pl.DataFrame:
    known = [] if reduced is None else [name for name in names if name in reduced.columns]
    if reduced is not None and known:
        part = part.join(reduced.select("ts", *known), on="ts", how="left")
    absent = [name for name in names if name not in known]
    return part.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in absent)


def _eligible(
    part: pl.DataFrame, symbol: str, warm_up: timedelta, interval: timedelta
) -> tuple[pl.DataFrame, list[Finding]]:
    present = part["close"].is_not_null()
    warm = part["ts"] >= part["ts"].min() + warm_up - interval  # type: ignore[operator]
    kept = part.filter(present & warm)
    return kept, [
        Finding(
            "decisions",
            symbol,
            "in the contract's warm-up",
            int((present & ~warm).sum()),
            len(part),
            "no decision",
        ),
        Finding(
            "decisions",
            symbol,
            "bar missing or stale",
            int((~present).sum()),
            len(part),
            "no decision",
        ),
    ]


def _market_unit(column: _Column, units: Mapping[str, Unit]) -> Unit:
    """Unit of a market column: a number, too, where it shows a column that is one."""
    for name in column.reads:
        if name not in units:
            raise InputError(
                f"a market feature reads a column the set does not build: {name}"
                f"{did_you_mean(name, units)}"
            )
    return "number" if "number" in {units[name] for name in column.reads} else column.unit


def _with_leader(
    part: pl.DataFrame, leader: pl.DataFrame | None, against: Sequence[_Column]
) -> pl.DataFrame:
    """Set a contract's columns beside the leader's, on its full grid: windows roll over rows."""
    if not against:
        return part
    read = sorted({name for column in against for name in column.reads})
    beside = [market.of_leader(name) for name in read]
    values = part.clear() if leader is None else leader
    return (
        part.join(
            values.select(
                "ts", *(pl.col(name).alias(of) for name, of in zip(read, beside, strict=True))
            ),
            on="ts",
            how="left",
            maintain_order="left",
        )
        .rechunk()
        .with_columns(column.expression for column in against)
        .drop(beside)
    )


def _with_market(table: pl.DataFrame, across: Sequence[_Column], leader: str) -> pl.DataFrame:
    if not across:
        return table
    # eager and not lazy here too: the optimiser takes out the order in which contracts are added
    values = (
        table.with_columns((pl.col("symbol") == leader).alias("is_leader"))
        .group_by("ts")
        .agg(column.expression for column in across)
    )
    return table.join(values, on="ts", how="left")


def _unknown_shares(table: pl.DataFrame, names: list[str]) -> list[Finding]:
    unknown = table.select(pl.col(names).null_count()).row(0)
    return [
        Finding("features", name, "value not known", count, len(table), "left as NaN")
        for name, count in zip(names, unknown, strict=True)
    ]


def _require_distinct(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"the feature set builds twice: {', '.join(twice)}")
