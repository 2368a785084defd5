"""Set states beside bars: at each decision the newest row known by then, if it still stands.

A stale funding rate or a silent feed must show as "not known", never as the last value for ever.
"""

from collections.abc import Collection, Mapping
from datetime import timedelta

import polars as pl

from margincast.core.errors import InputError
from margincast.specs.features import Standing

STATE_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "funding": ("funding_rate",),
    "open_interest": ("open_interest", "open_interest_usd"),
    "implied_vol": ("implied_volatility",),
}
"""Columns that stand from the moment they are known until the next row, by table."""


def with_states(
    frame: pl.DataFrame,
    interval: timedelta,
    states: Mapping[str, pl.DataFrame],
    standing: Standing,
    wanted: Collection[str],
) -> pl.DataFrame:
    """Add state columns to regular bars.

    Args:
        frame: regular bars; ``ts`` their open, so that a row is decided at ``ts + interval``.
        interval: bar length.
        states: of this contract, by table, as in :class:`margincast.data.states.StateTable`.
        standing: how long the newest row of a table counts.
        wanted: columns to add; those that no table gives are null.

    Returns:
        The frame with the wanted columns, float64, null where not known.

    Raises:
        InputError: a table is read, and the set does not say how long its rows stand.
    """
    decided = frame.with_columns((pl.col("ts") + interval).alias("decided_at"))
    for table, columns in STATE_COLUMNS.items():
        read = [name for name in columns if name in wanted]
        if not read:
            continue
        tolerance = getattr(standing, table)
        if tolerance is None:
            raise InputError(
                f"the set reads {table} ({', '.join(read)}) and does not say how long a row of it "
                f'stands; add {table} = "..." below [standing]'
            )
        rows = states.get(table)
        known = [] if rows is None else [name for name in read if name in rows.columns]
        if rows is not None and known:
            decided = decided.join_asof(
                rows.select("known_at", *known),
                left_on="decided_at",
                right_on="known_at",
                strategy="backward",
                tolerance=tolerance,
            ).drop("known_at", strict=False)
    absent = [name for name in wanted if name not in decided.columns]
    return decided.drop("decided_at").with_columns(
        pl.lit(None, dtype=pl.Float64).alias(name) for name in absent
    )
