"""Which rows are the same row again: so that no trade counts twice and none is lost.

A row equal to another but for the time it was received is an exact duplicate, with two exceptions
that would lose data otherwise: two trades of one time, price and size without an id may both have
happened, so within one file they all count, and over files as many as the file that has most.
"""

from dataclasses import dataclass

import polars as pl

from margincast.data.formats.format import ROW
from margincast.data.schemas import Schema

CONFLICT = "another row of this time is kept"
"""Reason of a row that contradicts an earlier one of the same contract, time and key."""

_NOT_COMPARED = (ROW, "received_at")
_OCCURRENCE = "_occurrence"


@dataclass(frozen=True)
class Settled:
    """Rows told apart from their repetitions.

    Attributes:
        kept: rows that stay, in their order.
        duplicates: number of exact duplicates left out.
        conflicts: rows that contradict a kept one.
    """

    kept: pl.DataFrame
    duplicates: int
    conflicts: pl.DataFrame


def settle(frame: pl.DataFrame, schema: Schema) -> Settled:
    """Tell repeated rows apart within one source.

    Args:
        frame: rows of one contract, sorted by ``ts``.
        schema: their schema.
    """
    ts = frame["ts"]
    tied = (ts == ts.shift(1)).fill_null(value=False) | (ts == ts.shift(-1)).fill_null(value=False)
    if not tied.any():
        return Settled(frame, 0, frame.clear())
    numbered = frame.with_row_index("_index")
    ties = numbered.filter(tied)
    compared = _compared(frame, schema)
    repeated = ~ties.select(pl.struct(compared).is_first_distinct()).to_series()
    if schema.events:
        # without an id two equal events are two events
        repeated &= ties["trade_id"].is_not_null() if "trade_id" in ties.columns else False
    remaining = ties.filter(~repeated)
    conflicting = remaining.clear()
    if not schema.events and not schema.repeats:
        first = remaining.select(pl.struct("ts", *schema.key).is_first_distinct()).to_series()
        conflicting = remaining.filter(~first)
    out = pl.concat([ties.filter(repeated)["_index"], conflicting["_index"]])
    kept = frame if out.is_empty() else numbered.remove(pl.col("_index").is_in(out.implode()))
    return Settled(
        kept.drop("_index", strict=False), int(repeated.sum()), conflicting.drop("_index")
    )


def settle_against(frame: pl.DataFrame, present: pl.DataFrame, schema: Schema) -> Settled:
    """Tell rows apart from those another source has brought already.

    Args:
        frame: rows of one contract, settled among themselves, sorted by ``ts``.
        present: rows of the same contract and period that are in the store.
        schema: their schema.
    """
    common = [name for name in _compared(frame, schema) if name in present.columns]
    types = {name: frame.schema[name] for name in common}
    known = present.select(pl.col(name).cast(kind, strict=False) for name, kind in types.items())
    occurrence = pl.int_range(pl.len()).over(common).alias(_OCCURRENCE)
    new = frame.with_columns(occurrence)
    old = known.with_columns(occurrence)
    fresh = new.join(old, on=[*common, _OCCURRENCE], how="anti", nulls_equal=True)
    duplicates = len(new) - len(fresh)
    conflicts = fresh.clear()
    if not schema.events and not schema.repeats:
        key = ["ts", *schema.key]
        conflicts = fresh.join(old.select(key).unique(), on=key, how="semi")
        fresh = fresh.join(old.select(key).unique(), on=key, how="anti")
    return Settled(
        fresh.sort("ts", maintain_order=True).drop(_OCCURRENCE),
        duplicates,
        conflicts.drop(_OCCURRENCE),
    )


def _compared(frame: pl.DataFrame, schema: Schema) -> list[str]:
    if schema.events and "trade_id" in frame.columns and not frame["trade_id"].null_count():
        # an id says what a trade is; a feed's further columns may differ between two receptions
        return ["ts", "trade_id", "price", "size", "side"]
    return [name for name in frame.columns if name not in _NOT_COMPARED]
