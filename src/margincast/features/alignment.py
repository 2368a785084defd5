"""Set states and flows beside bars: what stands at each decision, and what happened up to it.

A stale funding rate or a silent feed must show as "not known", never as the last value for ever,
and never as "nothing was liquidated". All that is said of a decision hangs on rows known by then.
What a table gives never comes from bars, whatever columns they have.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta

import polars as pl

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.data.intervals import bar_open
from margincast.data.quality import Finding
from margincast.data.states import older_than_known
from margincast.features.implied_vol.surface import tenors_in
from margincast.features.sharing import run
from margincast.specs.features import Standing

STATE_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "funding": ("funding_rate",),
    "open_interest": ("open_interest", "open_interest_usd"),
    "implied_vol": ("implied_volatility",),
}
"""Columns that stand from the moment they are known until the next row, by table.

The table ``options`` gives every column that it has and no other table gives; once fitted, those
of a surface (``skew_25_delta_30d``).
"""

LIQUIDATION_COLUMNS = ("long_liquidated_usd", "short_liquidated_usd")
"""Columns of the table ``liquidations``: USD of what became known within a bar."""

LONGEST_SILENCE = timedelta(days=1)
"""A feed of single liquidations that is silent for longer is taken to be down.

It cannot say "nothing happened", only say nothing; and whether it speaks again is not known yet.
"""


def not_of_bars(frames: Mapping[str, pl.DataFrame]) -> list[Finding]:
    """Report columns of bars that go by the name of another table's.

    Args:
        frames: bars by contract.
    """
    names = {name: None for frame in frames.values() for name in frame.columns}
    return [
        Finding(
            "bars",
            "all contracts",
            f"bars with the column {name}",
            sum(name in frame.columns for frame in frames.values()),
            len(frames),
            "not read: it is known by a table of its own, which says since when",
            severity="warning",
        )
        for name in names
        if _is_of_a_table(name)
    ]


def beside_bars(read: Iterable[str], of_bars: Collection[str]) -> list[str]:
    """List the columns read that stand beside bars, in order: those that bars lack or never give.

    Args:
        read: columns that features read.
        of_bars: columns of the bars.
    """
    return sorted({name for name in read if name not in of_bars or _is_of_a_table(name)})


def _is_of_a_table(name: str) -> bool:
    standing = (column for columns in STATE_COLUMNS.values() for column in columns)
    return name in (*standing, *LIQUIDATION_COLUMNS) or bool(tenors_in([name]))


def with_states(
    frame: pl.DataFrame,
    interval: timedelta,
    states: Mapping[str, pl.DataFrame],
    standing: Standing,
    wanted: Collection[str],
) -> pl.DataFrame:
    """Add state and flow columns to regular bars.

    A state is the newest row known at the decision, a row known at that very time included, unless
    it is older than ``standing`` allows: its age counts from its own time, or from the close of the
    interval that it covers, so that a row that arrives late is as old as it is. One that arrives
    after a newer one does not count.

    A single liquidation belongs to the bar in which it became known. Where nothing was, it is 0 if
    the feed was up, which is shown by one known within ``LONGEST_SILENCE`` before the bar's open,
    and before its close. Sums over intervals belong to the bar that they lie in, and make it known
    if they fill it, once each, by its close: one that arrives later is in no bar.

    Args:
        frame: regular bars; ``ts`` their open, so that a row is decided at ``ts + interval``.
        interval: bar length.
        states: of this contract, by table, as in :class:`margincast.data.states.StateTable`.
        standing: how old the newest row of a table may be.
        wanted: columns to add, in the place of bars' own of that name; those that no table gives
            are null.

    Returns:
        The frame with the wanted columns, float64, null where not known.

    Raises:
        InputError: a table is read, and the set does not say how long its rows stand; or sums of
            liquidations do not fit the grid.
    """
    # apart from the bars, whose further columns may have any name
    decided = frame.select("ts", (pl.col("ts") + interval).alias("decided_at"))
    of_tables = _standing_columns(states, wanted)
    require_standing(standing, of_tables)
    for table, columns in of_tables.items():
        tolerance = getattr(standing, table)
        rows = states.get(table)
        known = [] if rows is None else [name for name in columns if name in rows.columns]
        if rows is not None and known:
            decided = _with_standing(decided, rows, tolerance, known)
    flows = [name for name in LIQUIDATION_COLUMNS if name in wanted]
    rows = states.get("liquidations")
    if flows and rows is not None:
        add = _with_sums if "covers" in rows.columns else _with_events
        decided = add(decided, rows, interval, flows)
    return frame.with_columns(
        decided[name] if name in decided.columns else pl.lit(None, dtype=pl.Float64).alias(name)
        for name in wanted
    )


def require_standing(standing: Standing, read: Mapping[str, Sequence[str]]) -> None:
    """Refuse a set that reads a table and does not say how long its rows stand.

    Args:
        standing: what the set says.
        read: columns that it reads, by table; bars, books, trades and flows need no such word.

    Raises:
        InputError: says which table, and what to add.
    """
    for table, columns in read.items():
        if getattr(standing, table, timedelta()) is None:
            raise InputError(
                f"the set reads {table} ({', '.join(columns)}) and does not say how long a row of "
                f'it stands; add {table} = "..." below [standing]'
            )


def _standing_columns(
    states: Mapping[str, pl.DataFrame], wanted: Collection[str]
) -> dict[str, list[str]]:
    """Wanted columns by the table that gives them."""
    of_tables = {
        table: [name for name in columns if name in wanted]
        for table, columns in STATE_COLUMNS.items()
    }
    options = states.get("options")
    if options is not None:
        others = {"ts", "known_at", *LIQUIDATION_COLUMNS}.union(*STATE_COLUMNS.values())
        of_tables["options"] = [
            name for name in options.columns if name in wanted and name not in others
        ]
    return {table: columns for table, columns in of_tables.items() if columns}


def _with_standing(
    decided: pl.DataFrame, rows: pl.DataFrame, tolerance: timedelta, names: list[str]
) -> pl.DataFrame:
    """Join the newest row known at each decision; nothing where it is too old to stand."""
    own_time = pl.col("ts")
    if "covers" in rows.columns:
        own_time += pl.col("covers").cast(pl.Duration("us")).fill_null(timedelta())
    in_time = (
        rows.lazy().filter(~older_than_known()).select("known_at", own_time.alias("of"), *names)
    )
    stands = pl.col("decided_at") - pl.col("of") <= tolerance
    joined = (
        _with_newest(decided.lazy(), in_time, tolerance)
        .with_columns(pl.when(stands).then(pl.col(name)).alias(name) for name in names)
        .drop("of")
    )
    return run(joined)


def _with_newest(
    decided: pl.LazyFrame, rows: pl.LazyFrame, tolerance: timedelta, at: str = "decided_at"
) -> pl.LazyFrame:
    """Join the newest row known at a time of each bar; of rows known at one time, the last."""
    return decided.join_asof(
        rows.unique("known_at", keep="last", maintain_order=True).sort("known_at"),
        left_on=at,
        right_on="known_at",
        strategy="backward",
        tolerance=tolerance,
    ).drop("known_at", strict=False)


def _with_events(
    decided: pl.DataFrame, rows: pl.DataFrame, interval: timedelta, names: list[str]
) -> pl.DataFrame:
    """Join the sum of what became known within each bar; null where the feed may have been down."""
    within = rows.select(bar_open(interval).alias("ts"), *names)
    joined = decided.join(_added_up(within, names), on="ts", how="left", maintain_order="left")
    for time in ("ts", "decided_at"):
        heard = rows.select("known_at", pl.lit(value=True).alias(f"up at {time}"))
        joined = run(_with_newest(joined.lazy(), heard.lazy(), LONGEST_SILENCE, time))
    up = pl.col("up at ts") & pl.col("up at decided_at")
    return joined.with_columns(
        pl.when(up).then(pl.col(name).fill_null(0.0)).alias(name) for name in names
    ).drop("rows", "up at ts", "up at decided_at")


def _with_sums(
    decided: pl.DataFrame, rows: pl.DataFrame, interval: timedelta, names: list[str]
) -> pl.DataFrame:
    """Join the total of the sums that lie in each bar; null unless they fill it by its close."""
    needed = _intervals_in_bar(rows["covers"].unique().to_list(), interval)
    bar = pl.col("ts").dt.truncate(interval)
    _require_inside(rows.filter(pl.col("ts") + pl.col("covers") > bar + interval), interval)
    in_time = rows.filter(pl.col("known_at") <= bar + interval).sort("ts", maintain_order=True)
    # a sum given again fills no second interval
    once = in_time.select(bar, *names, pl.col("ts").is_unique().alias("once"))
    totals = _added_up(once, names, pl.col("once").all())
    joined = decided.join(totals, on="ts", how="left", maintain_order="left")
    filled = (pl.col("rows") == needed) & pl.col("once")
    return joined.with_columns(
        pl.when(filled).then(pl.col(name)).alias(name) for name in names
    ).drop("rows", "once")


def _added_up(rows: pl.DataFrame, names: list[str], *others: pl.Expr) -> pl.DataFrame:
    """Add up and count the rows of each ``ts``."""
    # in one piece and in order: a sum of floats hangs on both
    ordered = rows.sort("ts", maintain_order=True).rechunk()
    return ordered.group_by("ts", maintain_order=True).agg(
        *(pl.col(name).sum() for name in names), pl.len().alias("rows"), *others
    )


def _require_inside(straddling: pl.DataFrame, interval: timedelta) -> None:
    """Refuse sums of which no bar holds the whole.

    Raises:
        InputError: there is one.
    """
    if len(straddling):
        raise InputError(
            f"a sum of liquidations over {format_duration(straddling['covers'][0])} opens at "
            f"{straddling['ts'][0]}, and so lies in two bars of {format_duration(interval)} "
            f"({len(straddling)} such sum(s)); use sums that open on the grid of the bars"
        )


def _intervals_in_bar(covers: list[timedelta], interval: timedelta) -> int:
    """Sums that a bar needs.

    Raises:
        InputError: a sum is longer than the bar, or does not fit it.
    """
    if len(covers) > 1 or any(interval % length for length in covers):
        raise InputError(
            f"sums of liquidations over {', '.join(map(format_duration, sorted(covers)))} do not "
            f"fit bars of {format_duration(interval)}: a sum must lie within a bar; use sums of "
            "shorter intervals, or a feature set of a longer grid.interval"
        )
    return max((interval // length for length in covers), default=1)
