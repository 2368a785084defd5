"""``margincast schedule``: base schedules from venues' tier tables, and margin levels as such."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from textwrap import wrap

import pandas as pd

from margincast import __version__
from margincast.core.digest import digest_of_file
from margincast.core.errors import InputError, did_you_mean
from margincast.core.types import SIDES
from margincast.data.writing import write_text
from margincast.jobs.console import output, say
from margincast.jobs.schedule_tables import check_table, schedule_table
from margincast.margin.venues.catalogue import (
    ExportOptions,
    Venue,
    export_text,
    parse_text,
    venue_named,
)
from margincast.margin.venues.check import Check, compare, compare_all
from margincast.margin.venues.imported import ReadOptions, schedule_of
from margincast.margin.venues.own import margin_of
from margincast.margin.venues.tiers import (
    EXPORT_SIDES,
    ExportSide,
    TiersBySymbol,
    tiers_of_levels,
    up_to,
)
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.schedule_file import schedule_toml

COMMENT_WIDTH = 97
FAR_ABOVE = 0.1
"""Mean excess of an export's margin that is remarked on, a fraction."""


def run_import(
    venue: str,
    file: Path,
    out: Path,
    *,
    beside: Sequence[Path],
    symbols: Sequence[str],
    last_cap_usd: float | None,
    all_usd: bool,
) -> BaseSchedule:
    """Write a base schedule from a venue's tier table, and compare their margins.

    Args:
        venue: name of the venue.
        file: its table.
        out: the TOML file to write; it must not be there yet.
        beside: further files the table needs.
        symbols: contracts to read; none stands for all.
        last_cap_usd: largest position where the venue's last tier has no end.
        all_usd: amounts are USD, whatever the contracts' names say.

    Raises:
        InputError: the file cannot be read or contradicts itself, or ``out`` is there.
        SpecError: its tiers are no tiers of a base schedule.
    """
    table = venue_named(venue)
    if out.exists():
        raise InputError(f"{out} is there; a schedule in force is not overwritten: name another")
    documents = [_document(table, path) for path in (file, *beside)]
    found = table.read(
        documents, ReadOptions(last_cap_usd, tuple(symbols) or None, all_usd=all_usd)
    )
    if not found.tiers:
        raise InputError(f"{file} holds {table.what}: they are no tiers, and cannot be a schedule")
    tiers = sum(len(own) for own in found.tiers.values())
    schedule = schedule_of(
        found.tiers, out.stem, f"Imported from {venue}: {len(found.tiers)} contracts"
    )
    comment = (
        f"Imported from {venue} by margincast {__version__} on {datetime.now(UTC):%F}:",
        *(f"  {path.name}, SHA-256 {digest_of_file(path)}" for path in (file, *beside)),
        *(line for remark in found.remarks for line in wrap(remark, COMMENT_WIDTH)),
    )
    write_text(out, schedule_toml(schedule, "\n".join(comment)))
    written = load_spec(out, BaseSchedule)
    assert written == schedule, "a schedule reads back as it was written"
    for remark in found.remarks:
        say(remark)
    title = f"Margins of the schedule against {venue}'s own arithmetic"
    output.print(check_table(compare_all(found.tiers, found.margins), title))
    output.print(f"{len(found.tiers)} contracts, {tiers} tiers: {out}", soft_wrap=True)
    return written


def run_export(
    venue: str,
    levels: Path,
    out: Path,
    *,
    side: str,
    up_to_usd: float | None,
    prices: Sequence[str],
) -> list[Check]:
    """Write margin levels as a venue's tier table, checked in the venue's arithmetic.

    Args:
        venue: name of the venue.
        levels: table of margin levels, as ``margincast score`` writes it.
        out: the file to write.
        side: ``long``, ``short`` or ``larger``.
        up_to_usd: largest position of the table, USD notional; the tiers' end when absent.
        prices: texts ``SYMBOL=USD``, for venues that count size in coins.

    Raises:
        InputError: the table cannot be read, or the venue cannot express it.
        CheckFailedError: a position would pay less on the venue than its levels ask.
    """
    chosen = _side(side)
    frame = _levels(levels)
    tiers = _cut(tiers_of_levels(frame, chosen), up_to_usd)
    options = ExportOptions(out.stem, dict(map(_price, prices)))
    text, checks = export_text(venue, tiers, options)
    write_text(out, text)
    fallback = int((frame["status"] == "fallback").sum()) if "status" in frame else 0
    if fallback:
        say(f"{fallback} of {len(frame)} levels are fallbacks; they are exported as they are")
    output.print(check_table(checks, f"Margins on {venue} against the levels ({chosen})"))
    if any(check.mean > FAR_ABOVE for check in checks):
        say(f"{venue}: {venue_named(venue).shape}")
    for line in _side_costs(frame, tiers, chosen):
        output.print(line)
    output.print(f"{len(checks)} contracts: {out}", soft_wrap=True)
    return checks


def show(file: Path) -> None:
    """Print a base schedule.

    Raises:
        InputError: no such file, or no TOML.
        SpecError: it is no base schedule.
    """
    output.print(schedule_table(load_spec(file, BaseSchedule)))


def _document(venue: Venue, path: Path) -> object:
    if not path.is_file():
        raise InputError(f"{path} is no file; give a saved response of the venue")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from None
    return parse_text(venue, text, str(path))


def _levels(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} is no file; margincast score writes margin_levels.parquet")
    try:
        return pd.read_parquet(path)
    except ValueError as error:
        raise InputError(f"{path} is no Parquet table: {error}") from None


def _cut(tiers: TiersBySymbol, up_to_usd: float | None) -> TiersBySymbol:
    if up_to_usd is None:
        return tiers
    return {symbol: up_to(own, min(up_to_usd, own[-1].cap_usd)) for symbol, own in tiers.items()}


def _side(side: str) -> ExportSide:
    for known in EXPORT_SIDES:
        if side == known:
            return known
    raise InputError(
        f"--side {side!r}{did_you_mean(side, EXPORT_SIDES)}: it is one of {', '.join(EXPORT_SIDES)}"
    )


def _price(text: str) -> tuple[str, float]:
    symbol, separator, value = text.partition("=")
    try:
        price = float(value)
    except ValueError:
        price = math.nan
    if not (symbol and separator and math.isfinite(price) and price > 0.0):
        raise InputError(f"--price {text!r}: write SYMBOL=USD, for example SOLUSDT=150")
    return symbol, price


def _side_costs(frame: pd.DataFrame, tiers: TiersBySymbol, chosen: ExportSide) -> list[str]:
    """Say what one rate for both sides means for each."""
    lines = []
    for side in SIDES:
        if side == chosen or not (frame["side"] == side).any():
            continue
        own = tiers_of_levels(frame.loc[frame["side"] == side], side)
        checks = [
            compare(symbol, up_to(own[symbol], whole[-1].cap_usd), margin_of(whole))
            for symbol, whole in tiers.items()
            if symbol in own and own[symbol][-1].cap_usd >= whole[-1].cap_usd
        ]
        mean = sum(check.mean for check in checks) / len(checks)
        most = max(checks, key=lambda check: check.largest)
        least = min(checks, key=lambda check: check.least)
        line = (
            f"one rate for both sides: {side} positions pay {mean:+.2%} on average against their "
            f"own levels, at most {most.largest:+.2%} ({most.symbol})"
        )
        if least.least < 0.0:
            line += f"; TOO LITTLE by up to {-least.least:.2%} ({least.symbol})"
        lines.append(line)
    return lines
