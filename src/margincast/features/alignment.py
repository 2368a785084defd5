"""Set states and flows beside bars: what stands at each decision, and what happened up to it.

A stale funding rate or a silent feed must show as "not known", never as the last value for ever,
and never as "nothing was liquidated". All that is said of a decision hangs on rows known by then.
"""

from collections.abc import Collection, Mapping
from datetime import timedelta

import polars as pl

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.data.intervals import bar_open
from margincast.data.states import older_than_known
from margincast.specs.features import Standing

STATE_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "funding": ("funding_rate",),
    "open_interest": ("open_interest", "open_interest_usd"),
    "implied_vol": ("implied_volatility",),
}
"""Columns that stand from the moment they are known until the next row, by table.

The table ``options`` gives every column that it has and no other table gives.
"""

LIQUIDATION_COLUMNS = ("long_liquidated_usd", "short_liquidated_usd")
"""Columns of the table ``liquidations``: USD of what became known within a bar."""

LONGEST_SILENCE = timedelta(days=1)
"""A feed of single liquidations that is silent for longer is taken to be down.

It cannot say "nothing happened", only say nothing; and whether it speaks again is not known yet.
"""


def tables_read(columns: Collection[str]) -> list[str]:
    """List the tables that give columns, apart from ``options``, whose columns are its own."""
    of_tables = {**STATE_COLUMNS, "liquidations": LIQUIDATION_COLUMNS}
    return [table for table, names in of_tables.items() if set(names) & set(columns)]


def with_states(
    frame: pl.DataFrame,
    interval: timedelta,
    states: Mapping[str, pl.DataFrame],
    standing: Standing,
    wanted: Collection[str],
) -> pl.DataFrame:
    """Add state and flow columns to regular bars.

    A state is the newest row known at the decision, a row known at that very time included, unless
    it has been known for longer than ``standing`` allows; one that arrives after a newer one does
    not count. A liquidation belongs to the bar in which it
    became known. Where nothing was, it is 0 if the feed was up: single liquidations show that by
    one known within ``LONGEST_SILENCE`` before the bar's open, and before its close. Sums over
    intervals must all be there, as many as fit the bar.

    Args:
        frame: regular bars; ``ts`` their open, so that a row is decided at ``ts + interval``.
        interval: bar length.
        states: of this contract, by table, as in :class:`margincast.data.states.StateTable`.
        standing: how long the newest row of a table counts, from when it was known.
        wanted: columns to add; those that no table gives are null.

    Returns:
        The frame with the wanted columns, float64, null where not known.

    Raises:
        InputError: a table is read, and the set does not say how long its rows stand; or sums of
            liquidations do not fit the grid.
    """
    decided = frame.with_columns((pl.col("ts") + interval).alias("decided_at"))
    for table, columns in _standing_columns(states, wanted).items():
        tolerance = getattr(standing, table)
        if tolerance is None:
            raise InputError(
                f"the set reads {table} ({', '.join(columns)}) and does not say how long a row of "
                f'it stands; add {table} = "..." below [standing]'
            )
        rows = states.get(table)
        known = [] if rows is None else [name for name in columns if name in rows.columns]
        if rows is not None and known:
            in_time = rows.filter(~older_than_known())
            decided = _with_newest(decided, in_time.select("known_at", *known), tolerance)
    flows = [name for name in LIQUIDATION_COLUMNS if name in wanted]
    if flows and "liquidations" in states:
        decided = _with_sums(decided, states["liquidations"], interval, flows)
    absent = [name for name in wanted if name not in decided.columns]
    return decided.drop("decided_at").with_columns(
        pl.lit(None, dtype=pl.Float64).alias(name) for name in absent
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


def _with_newest(
    decided: pl.DataFrame, rows: pl.DataFrame, tolerance: timedelta, at: str = "decided_at"
) -> pl.DataFrame:
    """Join the newest row known at a time of each bar; of rows known at one time, the last."""
    return decided.join_asof(
        rows.unique("known_at", keep="last", maintain_order=True).sort("known_at"),
        left_on=at,
        right_on="known_at",
        strategy="backward",
        tolerance=tolerance,
    ).drop("known_at", strict=False)


def _with_sums(
    decided: pl.DataFrame, rows: pl.DataFrame, interval: timedelta, names: list[str]
) -> pl.DataFrame:
    """Join what became known within each bar; null where not all of it can have been."""
    # in one piece and in order: a sum of floats hangs on both
    sums = (
        rows.select(bar_open(interval).alias("ts"), *names)
        .sort("ts", maintain_order=True)
        .rechunk()
        .group_by("ts", maintain_order=True)
        .agg(*(pl.col(name).sum() for name in names), pl.len().alias("rows"))
    )
    joined = decided.join(sums, on="ts", how="left", maintain_order="left")
    if "covers" in rows.columns:
        needed = _intervals_in_bar(rows["covers"].unique().to_list(), interval)
        return joined.with_columns(
            pl.when(pl.col("rows") >= needed).then(pl.col(name)).alias(name) for name in names
        ).drop("rows")
    for time in ("ts", "decided_at"):
        heard = rows.select("known_at", pl.lit(value=True).alias(f"up at {time}"))
        joined = _with_newest(joined, heard, LONGEST_SILENCE, time)
    up = pl.col("up at ts") & pl.col("up at decided_at")
    return joined.with_columns(
        pl.when(up).then(pl.col(name).fill_null(0.0)).alias(name) for name in names
    ).drop("rows", "up at ts", "up at decided_at")


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
