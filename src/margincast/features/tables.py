"""Which tables each column of a feature set reads, so that what is missing can be said by name.

A margin's model must not wait in silence for data that nobody gave it.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from margincast.core.errors import did_you_mean
from margincast.data.quality import Finding
from margincast.data.schemas import BARS
from margincast.features import order_book, trade_flow
from margincast.features.alignment import LIQUIDATION_COLUMNS, STATE_COLUMNS
from margincast.features.calendar import FIRST_CLOSE
from margincast.features.library import Family, Window, look_up
from margincast.features.lines import columns_of
from margincast.features.sources import Sources
from margincast.features.trade_flow.execution import EXECUTION
from margincast.specs.features import Feature, FeatureSet

_OVER_ROWS: tuple[Family, ...] = (
    "bars",
    "derivatives",
    "implied_vol",
    "options",
    "market",
    "calendar",
)
"""Families whose functions are expressions over the rows of a grid."""

_NONE: dict[str, tuple[Feature, ...]] = dict.fromkeys((*_OVER_ROWS, "book", "trades"), ())

_CLOCKS = ("ts", "symbol", FIRST_CLOSE)
_SIGNED = frozenset(("signed_notional_usd", "signed_count", "impact_usd"))
"""What trades leave behind only where their aggressors are known."""

_TABLE_OF = {
    name: table
    for table, names in {**STATE_COLUMNS, "liquidations": LIQUIDATION_COLUMNS}.items()
    for name in names
}


@dataclass(frozen=True)
class Reading:
    """What one column of a feature set reads.

    Attributes:
        family: section of the set.
        names: by table, the table's columns that are read; ``book`` and ``trades`` are read whole,
            and where a ``side`` is needed it is named after the whole (the empty name). Market
            columns read columns of the set, and no table.
        look_back: rows of the grid, the decision's own among them, that a value hangs on.
    """

    family: Family
    names: dict[str, tuple[str, ...]]
    look_back: int


def readings_of(feature_set: FeatureSet) -> dict[str, Reading]:
    """Say what every column of a set reads, in the order of the sections.

    Raises:
        InputError: an unknown function, arguments that do not fit it, or a window off the grid.
    """
    readings = {
        name: reading for family in _OVER_ROWS for name, reading in _over_rows(feature_set, family)
    }
    for entry in feature_set.book:
        for name in order_book.column_units([entry], feature_set.grid.interval):
            look_back = _rows_of_label(name, entry, feature_set)
            readings[name] = Reading("book", {"book": ()}, look_back)
    for entry in feature_set.trades:
        readings |= _of_trades(entry, feature_set)
    return readings


def missing_tables(feature_set: FeatureSet, sources: Sources) -> list[Finding]:
    """Report what columns of a set read and is not there: tables of any contract, and a leader."""
    readings = readings_of(feature_set)
    there = {name for name, table in sources.states.items() if table.frames} | {"bars"}
    if sources.books is not None and sources.books.frames:
        there.add("book")
    if sources.trades is not None and sources.trades.frames:
        there.add("trades")
    wanted = {table: None for reading in readings.values() for table in reading.names}
    leaderless = without_a_leader(feature_set, sources.bars.frames)
    of_leader = [
        Finding(
            "features",
            feature_set.grid.leader,
            leaderless,
            len(columns_of_leader(feature_set)),
            len(readings),
            "columns that read the leader are NaN",
            severity="warning",
        )
    ]
    return of_leader * bool(leaderless) + [
        Finding(
            "features",
            table,
            f"no {table} in the data",
            sum(table in reading.names for reading in readings.values()),
            len(readings),
            "columns that read it are NaN",
            severity="warning",
        )
        for table in wanted
        if table not in there
    ]


def columns_of_leader(feature_set: FeatureSet) -> list[str]:
    """List the columns of a set that hang on the leader's bars."""
    grid = feature_set.grid
    beside = [
        column.name
        for family in ("implied_vol", "options")
        for column in columns_of(
            getattr(feature_set, family), family, grid.interval, grid.minimum_present
        )
    ]
    market = columns_of(feature_set.market, "market", grid.interval, grid.minimum_present)
    return beside + [
        column.name
        for column in market
        if column.against_leader or "is_leader" in column.expression.meta.root_names()
    ]


def without_a_leader(feature_set: FeatureSet, contracts: Collection[str]) -> str:
    """Say so where a set reads a leader that has no bars; an empty text where all is well.

    Args:
        feature_set: the set.
        contracts: those that have bars.
    """
    leader, names = feature_set.grid.leader, columns_of_leader(feature_set)
    if leader in contracts or not names:
        return ""
    return (
        f"grid.leader {leader} has no bars{did_you_mean(leader, contracts)}, and {len(names)} "
        f"column(s) read it: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
    )


def tables_of(feature_set: FeatureSet) -> set[str]:
    """Say which tables a set reads."""
    return {table for reading in readings_of(feature_set).values() for table in reading.names}


def without_tables(feature_set: FeatureSet, missing: Collection[str]) -> FeatureSet:
    """Leave out the lines that read missing tables, and what the market shows of their columns.

    A model is then trained on what there is, and the set's digest says so.
    """
    kept: dict[str, tuple[Feature, ...]] = {}
    for family in ("derivatives", "implied_vol", "options"):
        kept[family] = tuple(
            entry
            for entry in getattr(feature_set, family)
            if tables_of(feature_set.model_copy(update=_NONE | {family: (entry,)})).isdisjoint(
                missing
            )
        )
    smaller = feature_set.model_copy(update=kept | {"market": ()})
    built = readings_of(smaller)
    lines = []
    for entry in feature_set.market:
        columns = tuple(name for name in entry.columns if name in built)
        whole = look_up("market", entry.function).argument != "pairs" or columns == entry.columns
        if columns and whole:
            lines.append(entry.model_copy(update={"columns": columns}))
    return smaller.model_copy(update={"market": tuple(lines)})


def _over_rows(feature_set: FeatureSet, family: Family) -> Iterator[tuple[str, Reading]]:
    grid = feature_set.grid
    entries = getattr(feature_set, family)
    for column in columns_of(entries, family, grid.interval, grid.minimum_present):
        names: dict[str, tuple[str, ...]] = {}
        # a market column's own names are those of columns of the set
        roots = () if family == "market" else sorted({*column.expression.meta.root_names()})
        for root in roots:
            if root not in _CLOCKS:
                table = _table_of(root, family)
                names[table] = (*names.get(table, ()), root)
        yield column.name, Reading(family, names, column.look_back)


def _table_of(name: str, family: Family) -> str:
    if name in _TABLE_OF:
        return _TABLE_OF[name]
    # functions of option chains name tenors of their own, and may read the leader's bars
    return "options" if family == "options" and name not in BARS.required else "bars"


def _of_trades(entry: Feature, feature_set: FeatureSet) -> dict[str, Reading]:
    grid = feature_set.grid
    function = look_up("trades", entry.function)
    readings = {}
    for name in trade_flow.column_units([entry], grid.interval):
        window = _window_of_label(name, entry, feature_set)
        sums = function.build(window).meta.root_names()
        meets_book = not EXECUTION.isdisjoint(sums)
        needs_side = not _SIGNED.isdisjoint(sums)
        names: dict[str, tuple[str, ...]] = {"trades": ("", "side") if needs_side else ()}
        if meets_book:
            names["book"] = ()
        readings[name] = Reading("trades", names, function.look_back(window))
    return readings


def _windows(entry: Feature, feature_set: FeatureSet) -> dict[str, Window]:
    grid = feature_set.grid
    windows = [Window.over(length, grid.interval, grid.minimum_present) for length in entry.windows]
    return {window.label: window for window in windows}


def _window_of_label(name: str, entry: Feature, feature_set: FeatureSet) -> Window:
    return _windows(entry, feature_set)[name.rpartition("_")[2]]


def _rows_of_label(name: str, entry: Feature, feature_set: FeatureSet) -> int:
    """Rows of a book column's window; ``last`` has none and reads the decision's own."""
    window = _windows(entry, feature_set).get(name.rpartition("_")[2])
    return window.rows if window else 1
