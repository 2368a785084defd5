"""The margins in force as the service reads them: immutable, found by contract and side at once.

Responsible for handing the very numbers of one table of margin levels to whoever asks, while the
next table is being made. A snapshot is never changed: what comes next is another one, put up on a
:class:`~margincast.serving.board.Board`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.errors import InputError
from margincast.core.types import SIDES, Side
from margincast.margin.level_inputs import TableColumns

Columns = Mapping[str, npt.NDArray[Any]]
Row = Mapping[str, Any]
NEEDED = (
    "symbol", "side", "tier", "tier_floor_usd", "tier_cap_usd", "effective_from", "mmr",
    "mmr_in_force", "imr", "max_leverage", "maintenance_amount", "multiplier", "forecast",
    "base_mmr", "binding_rule", "status", "reason", "data_as_of", "model_version",
    "policy_hash",
)  # fmt: skip
"""Columns of the table that the service reads; others are kept."""


@dataclass(frozen=True, eq=False)
class SideLevels:
    """Margin levels of one contract's side, from the lowest tier.

    Attributes:
        symbol: the contract.
        side: of the positions that are margined.
        columns: of the whole table.
        place: where the rows of this side lie in them.
    """

    symbol: str
    side: Side
    columns: Columns
    place: slice

    def values(self, name: str) -> list[Any]:
        """Return a column's values as Python's own, a value a tier."""
        return list(self.columns[name][self.place].tolist())

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the table, from the lowest tier; times are UTC datetimes or None."""
        names = list(self.columns)
        lists = [_with_times(self.columns[name][self.place]) for name in names]
        return tuple(dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True))

    @cached_property
    def is_fallback(self) -> bool:
        """Whether no forecast was used for any of the tiers."""
        return bool((self.columns["status"][self.place] == "fallback").any())


@dataclass(frozen=True)
class Header:
    """Where the levels of a snapshot come from.

    Attributes:
        number: of the publication they rest on; 0 before the first.
        revision: changes since then that were not published, counted; 0 for the publication itself.
        published_at: when the publication was made, UTC.
        by: who published.
        reason: why.
        problem: why the whole venue is in fallback, if it is; otherwise empty.
    """

    number: int
    published_at: datetime
    by: str
    reason: str
    revision: int = 0
    problem: str = ""

    @property
    def version(self) -> str:
        """Number and revision, such as ``12`` or ``12.3``: equal for equal levels."""
        return f"{self.number}.{self.revision}" if self.revision else str(self.number)


@dataclass(frozen=True)
class Snapshot:
    """All margin levels at one moment.

    Attributes:
        header: where they come from.
        contracts: by contract and side, sorted by contract.
    """

    header: Header
    contracts: Mapping[str, Mapping[Side, SideLevels]]

    @classmethod
    def of(cls, levels: pd.DataFrame | TableColumns, header: Header) -> "Snapshot":
        """Index a table of margin levels.

        Args:
            levels: sorted by contract, side and tier, as ``score`` makes it, or its columns.
            header: where it comes from.

        Raises:
            InputError: a column is absent, a side is neither long nor short, or the rows of a
                contract's side do not follow one another from the first tier.
        """
        return cls(header, contracts_of(levels))

    def replaced(
        self, header: Header, contracts: Mapping[str, Mapping[Side, SideLevels]]
    ) -> "Snapshot":
        """Return a snapshot in which some contracts have other levels.

        Args:
            header: of the new snapshot.
            contracts: those that changed, as :func:`contracts_of` gives them.
        """
        together = {**self.contracts, **contracts}
        if len(together) > len(self.contracts):
            together = dict(sorted(together.items()))
        return Snapshot(header, together)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The contracts, sorted."""
        return tuple(self.contracts)

    @cached_property
    def fallbacks(self) -> tuple[str, ...]:
        """Contracts of which a side is in fallback."""
        return tuple(
            symbol
            for symbol, sides in self.contracts.items()
            if any(side.is_fallback for side in sides.values())
        )

    @cached_property
    def oldest_data(self) -> datetime | None:
        """Newest decision of the contract whose is oldest; None where one has none."""
        first = [next(iter(sides.values())).rows[0] for sides in self.contracts.values()]
        times = [row["data_as_of"] for row in first]
        return None if not times or None in times else min(times)

    def changed_since(self, before: "Snapshot | None") -> tuple[str, ...]:
        """Return the contracts whose margins differ from those of another snapshot.

        Args:
            before: the other one; None: there was none, and all are new. A contract that is gone
                counts as changed.
        """
        if before is None:
            return self.symbols
        names = sorted({*self.contracts, *before.contracts})
        return tuple(
            name
            for name in names
            if not _same(self.contracts.get(name), before.contracts.get(name))
        )


def contracts_of(levels: pd.DataFrame | TableColumns) -> dict[str, dict[Side, SideLevels]]:
    """Index the rows of a table of margin levels; see :meth:`Snapshot.of`."""
    absent = [name for name in NEEDED if name not in levels]
    if absent:
        raise InputError(f"a table of margin levels has no column {', '.join(absent)}")
    columns = {str(name): _array(column) for name, column in levels.items()}
    symbols, sides = columns["symbol"].tolist(), columns["side"].tolist()
    starts = np.flatnonzero(columns["tier"] == 1).tolist()
    _require_order(columns, starts)
    found: dict[str, dict[Side, SideLevels]] = {}
    for start, stop in pairwise([*starts, len(symbols)]):
        symbol, side = symbols[start], sides[start]
        if side not in SIDES or side in found.get(symbol, {}):
            raise InputError(f"margin levels of {symbol}: side {side!r} is unknown or stands twice")
        found.setdefault(symbol, {})[side] = SideLevels(symbol, side, columns, slice(start, stop))
    return dict(sorted(found.items()))


def _require_order(columns: Columns, starts: Sequence[int]) -> None:
    """Check that every row follows the one before it, or is a first tier."""
    follows = np.ones(len(columns["tier"]), dtype=bool)
    follows[1:] = columns["tier"][1:] == columns["tier"][:-1] + 1
    for name in ("symbol", "side"):
        follows[1:] &= columns[name][1:] == columns[name][:-1]
    follows[:1] = False
    follows[np.asarray(starts, dtype=np.intp)] = True
    if not follows.all():
        row = int(np.flatnonzero(~follows)[0])
        raise InputError(
            f"margin levels, row {row + 1}: tier {columns['tier'][row]} of "
            f"{columns['symbol'][row]} {columns['side'][row]} does not follow the row before it"
        )


def _array(column: "pd.Series[Any] | pd.Index[Any] | npt.NDArray[Any]") -> npt.NDArray[Any]:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        utc = pd.DatetimeIndex(column).tz_convert("UTC").tz_localize(None)
        return np.asarray(utc.as_unit("us"))
    return np.asarray(column)


def _with_times(values: npt.NDArray[Any]) -> list[Any]:
    """Return Python's own values; times as UTC datetimes, None for no time."""
    plain = list(values.tolist())
    if values.dtype.kind != "M":
        return plain
    return [None if time is None else time.replace(tzinfo=UTC) for time in plain]


_COMPARED = ("tier_cap_usd", "mmr", "imr", "effective_from", "status", "binding_rule", "reason")


def _same(one: Mapping[Side, SideLevels] | None, other: Mapping[Side, SideLevels] | None) -> bool:
    if one is other:
        return True
    if one is None or other is None or set(one) != set(other):
        return False
    return all(
        one[side].values(name) == other[side].values(name) for side in one for name in _COMPARED
    )


def number_or_none(value: float) -> float | None:
    """Return a number as JSON can say it: None where it is not known.

    >>> number_or_none(float("nan")) is None
    True
    """
    return value if math.isfinite(value) else None
