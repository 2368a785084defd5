"""Which rows are the same row again: so that no trade counts twice and none is lost.

Within one source a row is a duplicate if it equals another in all but the time it was received:

- a trade with an id, if id, time, price, size and side come again;
- a trade without one never: two of one time, price and size may both have happened;
- a book or ticker, if it equals the row just before it of the same time (A, B, A are three states);
- any other row, if it comes again; one of the same time and key that differs is a conflict.

Between sources the feeds' own further columns are not compared, because two files of one trade
rarely agree in them; a row that agrees but holds more than the one in the store is set aside, not
lost. Of trades without ids a time, price, size and side counts as often as in the source that has
it most.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from margincast.data.formats.format import ROW
from margincast.data.ingestion.hard_rules import REASON
from margincast.data.schemas import Schema

CONFLICT = "another row of this time is kept"
"""Reason of a row that contradicts an earlier one of the same contract, time and key."""

HOLDS_MORE = "the row that is kept has fewer columns: ingest this source first, into another store"
"""Reason of a row that agrees with one in the store and says more."""

_NOT_COMPARED = (ROW, "received_at")
_LEVELS = ("bid_price_", "bid_size_", "ask_price_", "ask_size_")
_INDEX, _OCCURRENCE = "_index", "_occurrence"


@dataclass(frozen=True)
class Settled:
    """Rows told apart from their repetitions.

    Attributes:
        kept: rows that stay, in their order.
        duplicates: number of duplicates left out.
        set_aside: rows for the quarantine, with the column
            :data:`~margincast.data.ingestion.hard_rules.REASON`.
    """

    kept: pl.DataFrame
    duplicates: int
    set_aside: pl.DataFrame


def settle(frame: pl.DataFrame, schema: Schema) -> Settled:
    """Tell repeated rows apart within one source.

    Args:
        frame: rows of one contract, sorted by ``ts``.
        schema: their schema.
    """
    ts = frame["ts"]
    tied = (ts == ts.shift(1)).fill_null(value=False) | (ts == ts.shift(-1)).fill_null(value=False)
    if not tied.any():
        return Settled(frame, 0, _aside(frame.clear(), CONFLICT))
    numbered = frame.with_row_index(_INDEX)
    ties = numbered.filter(tied)
    repeated = ties.select(_repeats(ties, frame.columns, schema)).to_series()
    remaining = ties.filter(~repeated)
    conflicts = remaining.clear()
    if not schema.events and not schema.repeats:
        first = remaining.select(pl.struct("ts", *schema.key).is_first_distinct()).to_series()
        conflicts = remaining.filter(~first)
    out = pl.concat([ties.filter(repeated)[_INDEX], conflicts[_INDEX]])
    kept = frame
    if len(out):
        kept = numbered.remove(pl.col(_INDEX).is_in(out.implode())).drop(_INDEX)
    return Settled(kept, int(repeated.sum()), _aside(conflicts.drop(_INDEX), CONFLICT))


def _repeats(ties: pl.DataFrame, columns: Sequence[str], schema: Schema) -> pl.Expr:
    """Find the rows that repeat an earlier one; ``ties`` are rows of shared times."""
    if schema.events:
        if "trade_id" not in ties.columns:
            return pl.col("ts").is_null()  # none: every row has its time
        again = ~pl.struct(_identified(schema)).is_first_distinct()
        return again & pl.col("trade_id").is_not_null()
    compared = [name for name in columns if name not in _NOT_COMPARED]
    if schema.repeats:
        return pl.all_horizontal(
            pl.col(name).eq_missing(pl.col(name).shift(1)) for name in compared
        ) & pl.col("ts").eq(pl.col("ts").shift(1)).fill_null(value=False)
    return ~pl.struct(compared).is_first_distinct()


def settle_against(frame: pl.DataFrame, present: Sequence[pl.DataFrame], schema: Schema) -> Settled:
    """Tell rows apart from those other sources have brought already.

    Args:
        frame: rows of one contract, settled among themselves, sorted by ``ts``.
        present: parts of the same contract and period that are in the store, each with its own
            columns.
        schema: their schema.
    """
    fresh = frame.with_row_index(_INDEX)
    aside = [_aside(fresh.clear(), CONFLICT)]
    if schema.events:
        fresh = _new_events(fresh, present, schema)
    else:
        for part in present:
            matched = _matched_states(fresh, part, schema)
            more = [
                pl.col(name).is_not_null()
                for name in frame.columns
                if name not in part.columns and name not in _NOT_COMPARED
            ]
            richer = matched.filter(pl.any_horizontal(*more)) if more else matched.clear()
            aside.append(_aside(richer, HOLDS_MORE))
            fresh = fresh.join(matched.select(_INDEX), on=_INDEX, how="anti", maintain_order="left")
            if not schema.repeats:
                key = ["ts", *schema.key]
                known = _as_typed(part, fresh, key).unique()
                conflicts = fresh.join(known, on=key, how="semi", maintain_order="left")
                aside.append(_aside(conflicts, CONFLICT))
                fresh = fresh.join(known, on=key, how="anti", maintain_order="left")
    set_aside = pl.concat(aside).drop(_INDEX)
    duplicates = len(frame) - len(fresh) - len(set_aside)
    return Settled(fresh.drop(_INDEX), duplicates, set_aside)


def _new_events(
    fresh: pl.DataFrame, present: Sequence[pl.DataFrame], schema: Schema
) -> pl.DataFrame:
    """Take off events that are in the store: those with ids by id, the others by count."""
    plain = list(schema.required)
    with_id = [part for part in present if "trade_id" in part.columns]
    if "trade_id" in fresh.columns:
        for part in with_id:
            known = _as_typed(part, fresh, _identified(schema)).unique()
            again = fresh.filter(pl.col("trade_id").is_not_null()).join(
                known, on=_identified(schema), how="semi", nulls_equal=True
            )
            fresh = fresh.join(again.select(_INDEX), on=_INDEX, how="anti", maintain_order="left")
        named = fresh.filter(pl.col("trade_id").is_not_null())
        unnamed = fresh.filter(pl.col("trade_id").is_null())
    else:
        named, unnamed = fresh.clear(), fresh
    without = [
        part.filter(pl.col("trade_id").is_null()) if "trade_id" in part.columns else part
        for part in present
    ]
    # an event with an id may stand in the store without one, and the other way round
    named = _beyond_count(named, without, plain)
    unnamed = _beyond_count(unnamed, present, plain)
    return pl.concat([named, unnamed]).sort(_INDEX)


def _beyond_count(
    rows: pl.DataFrame, present: Sequence[pl.DataFrame], columns: list[str]
) -> pl.DataFrame:
    """Keep the rows beyond the number of equal ones that are there."""
    if rows.is_empty() or not present:
        return rows
    known = pl.concat([_as_typed(part, rows, columns) for part in present])
    occurrence = pl.int_range(pl.len()).over(columns).alias(_OCCURRENCE)
    return (
        rows.with_columns(occurrence)
        .join(
            known.with_columns(occurrence),
            on=[*columns, _OCCURRENCE],
            how="anti",
            nulls_equal=True,
            maintain_order="left",
        )
        .drop(_OCCURRENCE)
    )


def _matched_states(fresh: pl.DataFrame, part: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """Rows that agree with one of the part in every canonical column both have."""
    canonical = {
        *schema.required,
        *schema.positive,
        *schema.non_negative,
        *schema.finite,
        *schema.key,
        "sequence",
        "is_valid",
    }
    common = [
        name
        for name in fresh.columns
        if name in part.columns and (name in canonical or name.startswith(_LEVELS))
    ]
    occurrence = pl.int_range(pl.len()).over(common).alias(_OCCURRENCE)
    known = _as_typed(part, fresh, common).with_columns(occurrence)
    return (
        fresh.with_columns(occurrence)
        .join(
            known,
            on=[*common, _OCCURRENCE],
            how="semi",
            nulls_equal=True,
            maintain_order="left",
        )
        .drop(_OCCURRENCE)
    )


def _identified(schema: Schema) -> list[str]:
    return ["trade_id", *schema.required]


def _as_typed(part: pl.DataFrame, like: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    return part.select(pl.col(name).cast(like.schema[name], strict=False) for name in columns)


def _aside(rows: pl.DataFrame, reason: str) -> pl.DataFrame:
    return rows.with_columns(pl.lit(reason, dtype=pl.String).alias(REASON))
