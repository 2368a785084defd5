"""Our own tables of tiers: rows for CSV and JSON, and base schedules.

Responsible for numbers that come back as they were: every rate and edge is written as the shortest
decimal that denotes it.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from margincast.core.errors import InputError
from margincast.margin.rounding import exact
from margincast.margin.venues.imported import (
    Collected,
    Imported,
    ReadOptions,
    VenueMargin,
    require_amount,
)
from margincast.margin.venues.record import Record
from margincast.margin.venues.tiers import (
    ExactTiers,
    Tiers,
    TiersBySymbol,
    amounts_of,
    checked_tiers,
)
from margincast.specs.loading import validate_spec
from margincast.specs.schedule import BaseSchedule

COLUMNS = (
    "symbol", "tier", "tier_floor_usd", "tier_cap_usd", "mmr", "imr", "max_leverage",
    "maintenance_amount",
)  # fmt: skip


def read(documents: Sequence[object], options: ReadOptions) -> Imported:
    """Read rows of tiers, as :func:`export` gives them; ``max_leverage`` is not read.

    Args:
        documents: one list of rows.
        options: the contracts to read.

    Raises:
        InputError: missing keys, or a maintenance amount that the rates do not give.
        SpecError: gaps, unsorted tiers, or a rate that falls.
    """
    collected = Collected(options)
    by_symbol: dict[str, list[Record]] = {}
    listed = Record({"rows": documents[0]}, "file")
    for row in listed.records("rows", "row"):
        by_symbol.setdefault(row.text("symbol"), []).append(row)
    for symbol, rows in by_symbol.items():
        if not collected.wants(symbol, symbol):
            continue
        for number, row in enumerate(rows, start=1):
            if row.whole("tier") != number:
                raise InputError(
                    f"{row.where}: {symbol} has tier {row.whole('tier')} where tier {number} is "
                    "due; a contract's tiers stand together, each once, from the first"
                )
        tiers = checked_tiers([_row(row) for row in rows], symbol)
        for row, expected in zip(rows, ExactTiers.of(tiers).amounts_usd, strict=True):
            found = row.number("maintenance_amount")
            require_amount(found, expected, f"{row.where} ({symbol})", "maintenance_amount")
        collected.add(symbol, tiers, margin_of(tiers))
    return collected.finish()


def export(tiers_by_symbol: TiersBySymbol) -> list[dict[str, object]]:
    """Return a row a contract and tier, with the columns :data:`COLUMNS`."""
    return [
        dict(
            zip(
                COLUMNS,
                (
                    symbol,
                    number,
                    tier.floor_usd,
                    tier.cap_usd,
                    tier.mmr,
                    tier.imr,
                    float(1 / exact(tier.imr)),
                    amount,
                ),
                strict=True,
            )
        )
        for symbol, tiers in tiers_by_symbol.items()
        for number, (tier, amount) in enumerate(zip(tiers, amounts_of(tiers), strict=True), start=1)
    ]


def margin_of(tiers: Tiers) -> VenueMargin:
    """Return our own arithmetic: notional times rate less the maintenance amount."""
    own = ExactTiers.of(tiers)
    return VenueMargin(len(tiers), own.maintenance_usd, own.initial_rate)


def csv_text(rows: Iterable[Mapping[str, object]]) -> str:
    """Write rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def csv_rows(text: str) -> list[dict[str, str | None]]:
    """Read CSV into rows of texts."""
    return [dict(row) for row in csv.DictReader(io.StringIO(text), restkey="more")]


def read_schedule(documents: Sequence[object], options: ReadOptions) -> Imported:
    """Read a base schedule; its ``[default]`` belongs to no contract and is left out.

    Args:
        documents: one parsed TOML file.
        options: the contracts to read.

    Raises:
        SpecError: it is no base schedule.
    """
    collected = Collected(options)
    raw = dict(Record(documents[0], "file").raw)
    schedule = validate_spec(raw, BaseSchedule, "schedule")
    for brackets in schedule.brackets:
        for symbol in brackets.symbols:
            if collected.wants(symbol, symbol):
                collected.add(symbol, brackets.tiers, margin_of(brackets.tiers))
    return collected.finish()


def _row(row: Record) -> dict[str, float]:
    columns = {"floor_usd": "tier_floor_usd", "cap_usd": "tier_cap_usd", "mmr": "mmr", "imr": "imr"}
    return {name: float(row.number(column)) for name, column in columns.items()}
