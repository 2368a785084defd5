"""Judge the snapshots of a book: in which order they were known, and which fault each has, if any.

What a fault is and what happens to it is said in :mod:`margincast.data.book`.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from margincast.core.errors import InputError
from margincast.data.quality import Finding
from margincast.data.schemas import book_columns
from margincast.data.states import older_than_known

SIDES = ("bid", "ask")
SAME_MOMENT_AS_NEXT = pl.all_horizontal(
    pl.col(name).eq_missing(pl.col(name).shift(-1)) for name in ("ts", "known_at")
)
"""Whether a row is of the same time as the next, and was known together with it."""

FATE = "_fate"
"""Place of the fault a row has among the faults; their number where it has none."""

JUDGED_ROWS = 32_768
"""Snapshots judged at a time; 20 levels of them take 21 MB."""

_SAME_MOMENT, _EQUAL = "_same_moment", "_equal"
_NEVER = pl.lit(value=False)


def in_order_of_knowledge(
    frame: pl.LazyFrame, symbol: str, source: str
) -> tuple[pl.LazyFrame, int, bool, list[Finding]]:
    """Sort rows by when they were known, and leave out those older than one known before.

    Rows of a feed that does not say when they were received are never older: the order in which
    they were known is that of their times.

    Returns:
        The rows, how many there were, whether several of one time were known together, and what
        was found.

    Raises:
        InputError: there are no rows, or some have no time.
    """
    in_file = in_order = _times(frame)
    rows = in_file["rows"]
    if not rows:
        raise InputError(f"{source}: the table has no rows")
    if in_file["without time"]:
        raise InputError(
            f"{source}: column 'ts' holds no time in {in_file['without time']} of {rows} row(s); "
            "repair or remove these rows"
        )
    if in_file["late"]:
        frame = frame.sort("known_at", maintain_order=True)
        in_order = _times(frame)
    overtaken = in_order["overtaken"], in_order["first overtaken"]
    if in_order["overtaken"]:
        frame = frame.filter(~older_than_known())
        in_order = _times(frame)
    return (
        frame,
        rows,
        bool(in_order["repeated"]),
        [
            Finding(
                "book",
                symbol,
                "out-of-order rows",
                in_file["late"],
                rows,
                "sorted by the time they were known",
                in_file["first late"],
            ),
            Finding(
                "book",
                symbol,
                "received after a snapshot of a later time",
                overtaken[0],
                rows,
                "dropped: a newer state was known",
                overtaken[1],
            ),
        ],
    )


def _times(frame: pl.LazyFrame) -> dict[str, Any]:
    """Count in one pass over the times what decides how rows are put in order."""
    ts, known_at = pl.col("ts"), pl.col("known_at")
    late, overtaken = known_at < known_at.cum_max(), older_than_known()
    return (
        frame.select(
            pl.len().alias("rows"),
            ts.null_count().alias("without time"),
            late.sum().alias("late"),
            pl.when(late).then(ts).min().alias("first late"),
            overtaken.sum().alias("overtaken"),
            pl.when(overtaken).then(ts).min().alias("first overtaken"),
            SAME_MOMENT_AS_NEXT.sum().alias("repeated"),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )


def faults_of(levels: int, *, has_validity: bool) -> dict[str, pl.Expr]:
    """For each kind of fault, in order of precedence, the expression that finds it."""
    best_known = pl.col("bid_price_0").is_not_null() & pl.col("ask_price_0").is_not_null()
    better_than_before = [
        worse
        for level in range(1, levels)
        for worse in (
            pl.col(f"bid_price_{level}") > pl.col(f"bid_price_{level - 1}"),
            pl.col(f"ask_price_{level}") < pl.col(f"ask_price_{level - 1}"),
        )
    ]
    return {
        "equal to the next row of the same time": pl.col(_SAME_MOMENT) & pl.col(_EQUAL),
        "several rows of the same time, not equal": pl.col(_SAME_MOMENT),
        "is_valid not true": ~pl.col("is_valid").fill_null(value=False) if has_validity else _NEVER,
        "empty side (best price or size missing or not above 0)": ~best_known,
        "levels not best first": pl.any_horizontal(_NEVER, *better_than_before),
        "crossed (best bid > best ask)": pl.col("bid_price_0") > pl.col("ask_price_0"),
    }


def judged_rows(
    frame: pl.LazyFrame, levels: int, faults: dict[str, pl.Expr], *, has_repeats: bool
) -> pl.LazyFrame:
    """Null the levels that hold nothing and say which fault each row has, if any."""
    names = frame.collect_schema()
    compared = [name for name in (*book_columns(levels), "is_valid") if name in names]
    equal = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(-1)) for name in compared)
    marked = frame.with_columns(
        (SAME_MOMENT_AS_NEXT if has_repeats else _NEVER).alias(_SAME_MOMENT),
        (equal if has_repeats else _NEVER).alias(_EQUAL),
    )
    fate = pl.coalesce(
        *(pl.when(fault).then(pl.lit(place)) for place, fault in enumerate(faults.values())),
        pl.lit(len(faults)),
    )
    return (
        marked.with_columns(
            pl.when(_holds_something(side, level))
            .then(pl.col(f"{side}_{what}_{level}"))
            .alias(f"{side}_{what}_{level}")
            for side in SIDES
            for level in range(levels)
            for what in ("price", "size")
        )
        .with_columns(fate.alias(FATE))
        .drop(_SAME_MOMENT, _EQUAL)
    )


def _holds_something(side: str, level: int) -> pl.Expr:
    price, size = pl.col(f"{side}_price_{level}"), pl.col(f"{side}_size_{level}")
    return price.is_finite() & (price > 0) & size.is_finite() & (size > 0)


def count_faults(judged: pl.LazyFrame, faults: dict[str, pl.Expr], levels: int) -> dict[str, Any]:
    """Count each fault, and what is irregular among the rows kept; with the first time of each."""
    kept = pl.col(FATE) == len(faults)
    missing = [
        pl.col(f"{side}_price_{level}").is_null() for side in SIDES for level in range(levels)
    ]
    concerned = {what: pl.col(FATE) == place for place, what in enumerate(faults)} | {
        "kept": kept,
        "locked": kept & (pl.col("bid_price_0") == pl.col("ask_price_0")),
        "short": kept & pl.any_horizontal(missing),
    }
    return (
        judged.select(
            *(rows.sum().alias(what) for what, rows in concerned.items()),
            *(
                pl.when(rows).then(pl.col("ts")).min().alias(f"first {what}")
                for what, rows in concerned.items()
            ),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )


def count_batches(frame: pl.LazyFrame, faults: dict[str, pl.Expr], levels: int) -> dict[str, Any]:
    """Count as :func:`count_faults` does, batch by batch; most hold no fault and are told at once.

    Args:
        frame: rows not judged yet, whose times never fall, no two of one time known together.
        faults: see :func:`faults_of`.
        levels: book levels on each side.
    """
    counted = (*faults, "kept", "locked", "short")
    counts: dict[str, Any] = dict.fromkeys(counted, 0)
    counts |= {f"first {what}": None for what in counted}
    present = frame.collect_schema().names()
    read = [name for name in ("ts", "is_valid", *book_columns(levels)) if name in present]
    for batch in frame.select(read).collect_batches(
        chunk_size=JUDGED_ROWS, maintain_order=True, engine="streaming"
    ):
        if batch.is_empty():
            continue
        if _is_faultless(batch, levels):
            locked = batch.filter(pl.col("bid_price_0") == pl.col("ask_price_0"))["ts"]
            more = {
                "kept": len(batch),
                "first kept": batch["ts"][0],
                "locked": len(locked),
                "first locked": locked.min(),
            }
        else:
            judged = judged_rows(batch.lazy(), levels, faults, has_repeats=False)
            more = count_faults(judged, faults, levels)
        for what, found in more.items():
            if not what.startswith("first "):
                counts[what] += found
            elif counts[what] is None:  # times never fall: the first is that of the first batch
                counts[what] = found
    return counts


def _is_faultless(batch: pl.DataFrame, levels: int) -> bool:
    """Whether no rule concerns any row: the common case, told in one walk through each level.

    From the deepest bid to the deepest ask prices never fall, and so all are finite and above 0 if
    these two are. A null or NaN anywhere is found too: no comparison with it is true.
    """
    names = book_columns(levels)
    if "is_valid" in batch.columns and not batch["is_valid"].fill_null(value=False).all():
        return False
    if any(batch[name].null_count() for name in names):
        return False
    bid_price, bid_size, ask_price, ask_size = (
        [batch[name].to_numpy() for name in names[part::4]] for part in range(4)
    )
    ladder = [*reversed(bid_price), *ask_price]
    return (
        bool(np.all(ladder[0] > 0) and np.all(ladder[-1] < np.inf))
        and all(bool(np.all(low <= high)) for low, high in pairwise(ladder))
        and all(one.min() > 0 and one.max() < np.inf for one in (*bid_size, *ask_size))
    )
