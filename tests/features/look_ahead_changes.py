"""What may happen to a table after a decision: every way in which the future can be another one.

A change touches no row known at or before the decision; the rules a reader enforces (order, best
level first, prices above zero) hold after it as before.
"""

from collections.abc import Callable, Mapping

import numpy as np
from tests.features.look_ahead_market import (
    COLUMNS,
    HOUR,
    LEVELS,
    SECOND,
    STEP,
    Floats,
    Rows,
)

_BOOK_SIZES = tuple(1 + level for level in range(2 * LEVELS))

SCALED_TOGETHER: Mapping[str, tuple[int, ...]] = {
    "bars": (0, 0, 0, 0, 0, 0, 1, 1, 2, 1),
    "book": tuple(part for size in _BOOK_SIZES for part in (0, size)),
    "trades": (0, 1, -1),
    "funding": (0,),
    "open_interest": (0, 1),
    "liquidations": (0, 1),
    "implied_vol": (0,),
    "options": (0, 0, 1, 2, 2, 2, 3, -1, -1, -1),
}
"""Columns with the same number are multiplied by the same factor, those with -1 by none."""

MAY_BE_EMPTY: Mapping[str, tuple[int, ...]] = {
    "bars": (4, 5),
    "book": tuple(range(4 * (LEVELS - 2), 4 * LEVELS)),
    "trades": (2,),
    "funding": (0,),
    "open_interest": (0, 1),
    "liquidations": (0, 1),
    "implied_vol": (0,),
    "options": (2, 3, 4, 5, 6, 7),
}
"""Columns that a feed may leave empty."""

Change = Callable[[Rows, np.random.Generator], Rows]


def _with_values(rows: Rows, values: Floats) -> Rows:
    return Rows(rows.table, rows.ts, rows.known_at, values)


def _scaled(rows: Rows, factors: Floats) -> Rows:
    """Multiply each group of columns by its factor; factors of shape (rows, groups)."""
    groups = np.array(SCALED_TOGETHER[rows.table])
    each = np.where(groups < 0, 1.0, factors[:, np.maximum(groups, 0)])
    return _with_values(rows, rows.values * each)


def perturb(rows: Rows, rng: np.random.Generator) -> Rows:
    """Every value is another one, row by row."""
    count = max(SCALED_TOGETHER[rows.table]) + 1
    return _scaled(rows, rng.lognormal(0, rng.choice([1e-9, 0.01, 2.0]), (len(rows), count)))


def crash(rows: Rows, rng: np.random.Generator) -> Rows:
    """All rows are some powers of ten higher or lower."""
    count = max(SCALED_TOGETHER[rows.table]) + 1
    return _scaled(rows, np.broadcast_to(10 ** rng.uniform(-5, 5, count), (len(rows), count)))


def freeze(rows: Rows, rng: np.random.Generator) -> Rows:
    """Nothing changes any more from some row on."""
    if rows.table == "options":
        return perturb(rows, rng)
    place = np.minimum(np.arange(len(rows)), rng.integers(len(rows)))
    return _with_values(rows, rows.values[place])


def mirror(rows: Rows, rng: np.random.Generator) -> Rows:
    """Buyers and sellers, or up and down, trade places."""
    values = rows.values.copy()
    match rows.table:
        case "bars":
            values[:, [0, 1, 2, 3]] = 1e4 / rows.values[:, [0, 2, 1, 3]]
        case "book":
            values[:, 1::4], values[:, 3::4] = rows.values[:, 3::4], rows.values[:, 1::4]
            both = ~np.isnan(values[:, 0::4]) & ~np.isnan(values[:, 2::4])
            for column in (1, 3):
                values[:, column::4] = np.where(both, values[:, column::4], np.nan)
        case "trades" | "funding":
            values[:, -1] *= -1
        case "liquidations" | "open_interest":
            values = values[:, ::-1].copy()
        case _:
            return perturb(rows, rng)
    return _with_values(rows, values)


def blank(rows: Rows, rng: np.random.Generator) -> Rows:
    """A feed stops saying what it may leave out."""
    values = rows.values.copy()
    if rows.table == "book":  # a level is there with price and size, or not at all
        values[:, 4 * int(rng.integers(1, LEVELS)) :] = np.nan
    else:
        values[rng.random(len(rows)) < 0.5, int(rng.choice(MAY_BE_EMPTY[rows.table]))] = np.nan
    return _with_values(rows, values)


def delete(rows: Rows, rng: np.random.Generator) -> Rows:
    """Some rows are not there; a bar that is missing stays as a hole."""
    gone = rng.random(len(rows)) < rng.uniform(0.05, 1)
    if rows.table == "bars":
        return _with_values(rows, np.where(gone[:, None], np.nan, rows.values))
    return rows.take(~gone)


def cut(rows: Rows, rng: np.random.Generator) -> Rows:
    """The table ends here, or some rows later."""
    return rows.take(np.arange(0 if rng.random() < 0.5 else rng.integers(len(rows))))


def delay(rows: Rows, rng: np.random.Generator) -> Rows:
    """Rows arrive later than they did; a bar that is late at its close is missing."""
    if rows.table == "bars":
        return delete(rows, rng)
    # a chain comes as a whole
    count = 1 if rows.table == "options" else len(rows)
    late = rng.exponential(rng.choice([SECOND, HOUR, 2 * STEP]), count).astype(np.int64)
    return Rows(rows.table, rows.ts, rows.known_at + late, rows.values)


def insert(rows: Rows, rng: np.random.Generator) -> Rows:
    """More rows come in between; the grid of bars has no place for them, so it goes on longer."""
    if rows.table == "bars":
        return extend(rows, rng)
    more = perturb(rows.take(rng.integers(len(rows), size=int(rng.integers(1, 30)))), rng)
    known_at = more.known_at + rng.integers(1, SECOND, len(more))
    return _joined(rows, Rows(rows.table, known_at, known_at, more.values))


def extend(rows: Rows, rng: np.random.Generator) -> Rows:
    """The table goes on beyond its end."""
    count = int(rng.integers(1, 200))
    more = perturb(rows.take(np.arange(count) % len(rows)), rng)
    step = STEP if rows.table == "bars" else int(rng.choice([SECOND, HOUR]))
    ts = rows.ts[-1] + step * np.arange(1, count + 1)
    known_at = np.maximum(rows.known_at.max(), ts) if rows.table != "bars" else ts + STEP
    return _joined(rows, Rows(rows.table, ts, known_at, more.values))


CHANGES: tuple[Change, ...] = (
    perturb, crash, freeze, mirror, blank, delete, cut, delay, insert, extend,
)  # fmt: skip


def with_another_future(
    rows: Rows, at: int, change: Change, rng: np.random.Generator, donor: Rows | None = None
) -> Rows:
    """Change what was known after a time.

    Args:
        rows: a table.
        at: microseconds since 1970; rows known by then are kept as they are.
        change: what happens to the others.
        donor: another contract's rows of the same table, whose future takes the place of the own
            before the change.
    """
    later = rows.known_at > at
    known, future = rows.take(~later), rows.take(later)
    if donor is not None:
        future = donor.take((donor.known_at > at) & (donor.ts >= at))
    if not len(future):
        return rows
    return _joined(known, change(future, rng)).ordered()


def with_late_rows(rows: Rows, at: int, rng: np.random.Generator) -> Rows:
    """Add rows of times up to a decision, the newer the more, that arrive only after it."""
    age = (at - rows.known_at) / STEP
    chosen = (age >= 0) & (rng.random(len(rows)) < rng.uniform(0.1, 0.9) * np.exp(-age / 3))
    ts_before, count = 0, len(rows)
    if rows.table == "options":  # a chain comes as a whole, and has a time of its own
        chosen = np.isin(rows.known_at, rows.known_at[chosen])
        ts_before, count = SECOND, 1
    more = perturb(rows.take(chosen), rng)
    arrival = np.broadcast_to(at + rng.integers(1, 3 * STEP, count), len(rows))[chosen]
    late = Rows(rows.table, more.ts - ts_before, arrival, more.values)
    return _joined(rows, late).ordered()


def _joined(first: Rows, second: Rows) -> Rows:
    return Rows(
        first.table,
        np.concatenate([first.ts, second.ts]),
        np.concatenate([first.known_at, second.known_at]),
        np.concatenate([first.values, second.values]),
    )


assert all(len(SCALED_TOGETHER[table]) == len(names) for table, names in COLUMNS.items())
