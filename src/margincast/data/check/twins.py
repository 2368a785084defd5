"""Feeds of one underlying against each other: shifted by hours, or quoted in another unit."""

from collections.abc import Mapping, Sequence
from math import log10

from margincast.data.check.contract import StoredTable
from margincast.data.check.finding import CheckFinding
from margincast.data.check.time_zones import (
    HourlyPrices,
    Shift,
    agree_on,
    find_shift,
    hour_of,
    underlying,
)

UNIT_TOLERANCE = 0.1
"""Distance of a price ratio from a whole power of ten, in decades, at which it is one."""

STEADY = 0.9
"""Share of the hours in which two prices must keep their ratio: else one of them changed its unit,
which is told of the series itself."""

_NO_PRICES = ("implied_vol",)


def twin_findings(
    tables: Sequence[tuple[StoredTable, Mapping[str, HourlyPrices]]],
) -> list[CheckFinding]:
    """Compare all price series of the same underlying.

    The series with the most hours is the reference; where most others disagree with it, it is the
    one that is told.

    Args:
        tables: each table with its hourly prices by column (empty: the table's own price).
    """
    groups: dict[str, list[tuple[StoredTable, str, HourlyPrices]]] = {}
    for table, hourly in tables:
        if table.schema.table in _NO_PRICES:
            continue
        for column, prices in hourly.items():
            groups.setdefault(underlying(table.symbol), []).append((table, column, prices))
    findings = []
    for series in groups.values():
        ordered = sorted(series, key=lambda one: (-len(one[2].hours), one[0].name, one[1]))
        findings += _compare(ordered)
    return findings


def _compare(series: Sequence[tuple[StoredTable, str, HourlyPrices]]) -> list[CheckFinding]:
    reference = series[0]
    shifts: dict[str, Shift] = {}
    for table, column, prices in series[1:]:
        shift = find_shift(reference[2], prices)
        if shift is not None:
            shifts[_name(table, column)] = shift
    own = _name(reference[0], reference[1])
    hours = agree_on({own: 0} | {name: shift.hours for name, shift in shifts.items()})
    findings = []
    for table, column, prices in series:
        name = _name(table, column)
        if name not in hours:
            continue
        other = own
        if name == own and hours[name]:
            other = "the others of its name"
        if hours[name]:
            shown = shifts.get(name)
            detail = (
                f" (rank correlation {shown.correlation:.2f}, unshifted {shown.unshifted:.2f})"
                if shown is not None
                else ""
            )
            findings.append(
                _finding(
                    table,
                    f"{column or 'times'} {abs(hours[name])} h "
                    f"{'late' if hours[name] > 0 else 'early'} against {other}{detail}",
                    "nothing: with a wrong clock it looks ahead or lags; ingest it again in UTC",
                    prices,
                    "times shifted by whole hours",
                )
            )
        steady = name in shifts and shifts[name].steady >= STEADY
        if steady and (power := _power(shifts[name].ratio)):
            findings.append(
                _finding(
                    table,
                    f"{column or 'prices'} about 10^{power} times those of {own}",
                    "nothing: contracts of different units; do not mix their prices",
                    prices,
                    "prices in another unit",
                )
            )
    return findings


def _power(ratio: float) -> int:
    """Whole power of ten of a ratio; 0 where it is none."""
    decades = log10(ratio)
    return round(decades) if abs(decades - round(decades)) <= UNIT_TOLERANCE else 0


def _name(table: StoredTable, column: str) -> str:
    return f"{table.venue} {table.symbol} {table.table}{f' {column}' if column else ''}"


def _finding(
    table: StoredTable, what: str, action: str, prices: HourlyPrices, kind: str
) -> CheckFinding:
    return CheckFinding(
        table.table,
        table.symbol,
        what,
        table.rows,
        table.rows,
        action,
        hour_of(prices, 0),
        hour_of(prices, -1),
        table.venue,
        "warning",
        kind=kind,
    )
