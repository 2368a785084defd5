"""``margincast data fetch binance``: the venue's public archive, as verified files in a folder.

Nothing is read out of the files yet: ``margincast data ingest`` recognises them by their path.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from rich.table import Table

from margincast.core.errors import InputError
from margincast.core.time import parse_instant
from margincast.data.fetch.binance import ADDRESS, CEASED, ArchiveFile, plan
from margincast.data.fetch.client import Patience, checked_address
from margincast.data.fetch.connections import fetch_files
from margincast.data.fetch.download import Outcome
from margincast.jobs.console import output, progress, say

ADDRESS_VARIABLE = "MARGINCAST_BINANCE_ARCHIVE"
"""Environment variable with the base address, for a mirror; ``--base-url`` goes before it."""

PATIENCE = Patience()
_MOST_FAILURES_SHOWN = 20
_SYMBOL_FORMS = {
    "um": "BTCUSDT or BTCUSDT_240628",
    "cm": "BTCUSD_PERP or BTCUSD_240628",
    "spot": "BTCUSDT",
}


@dataclass(frozen=True)
class FetchRow:
    """What became of one symbol's files of one table.

    ``asked = fetched + already_there + not_in_archive + failed``, always.
    """

    symbol: str
    table: str
    asked: int
    fetched: int
    already_there: int
    not_in_archive: int
    failed: int
    bytes_received: int
    missing: tuple[tuple[date, date], ...]
    """Spans of days, first and last included, for which the archive has no file."""


@dataclass(frozen=True)
class FetchSummary:
    """A finished fetch."""

    rows: tuple[FetchRow, ...]
    failures: tuple[Outcome, ...]
    remarks: tuple[str, ...]
    """What the user should look at: symbols without any file, tables no longer published."""

    @property
    def passed(self) -> bool:
        """Whether every file the archive has was fetched; what it lacks is no failure."""
        return not self.failures


def run(
    symbols: Sequence[str],
    tables: Sequence[str],
    start: str | date,
    end: str | date,
    out: Path,
    *,
    market: str = "um",
    interval: str = "1h",
    base_url: str | None = None,
    connections: int = 4,
    patience: Patience = PATIENCE,
) -> FetchSummary:
    """Fetch a range of days of the Binance public archive and print what became of it.

    Files that are there and match the archive's checksum are left alone, partial files are
    continued. A month whose monthly file the archive lacks (it is published days after the month's
    end, and sometimes not at all) is asked for day by day.

    Args:
        symbols: contracts or pairs, in the venue's spelling.
        tables: tables of the archive, such as ``klines`` or ``fundingRate``.
        start: first day, UTC.
        end: last day, UTC, included.
        out: folder that mirrors the archive's paths.
        market: ``"um"`` (USD-M futures), ``"cm"`` (COIN-M futures) or ``"spot"``.
        interval: bar length of the kline tables.
        base_url: address of the archive or a mirror; default: ``MARGINCAST_BINANCE_ARCHIVE`` in the
            environment, else the venue's.
        connections: requests at a time, at most.
        patience: time-outs and retries.

    Raises:
        InputError: an argument cannot be meant, or ``out`` cannot be written to.
    """
    address = checked_address(base_url or os.environ.get(ADDRESS_VARIABLE) or ADDRESS)
    files = plan(
        symbols,
        tables,
        _day("--from", start),
        _day("--to", end),
        market=market,
        interval=interval,
        today=datetime.now(UTC).date(),
    )
    outcomes: dict[str, Outcome] = {}

    def fetch(title: str, asked: Sequence[ArchiveFile]) -> None:
        if not asked:
            return
        paths = [file.path for file in asked]
        arriving = fetch_files(address, paths, out, connections=connections, patience=patience)
        with closing(arriving), progress(title, len(paths)) as counter:
            for outcome in arriving:
                outcomes[outcome.path] = outcome
                counter.advance(f"{outcome.result}: {outcome.path}")

    say(f"{len(files)} files of {address} into {out}")
    fetch("fetching", files)
    days = {
        file: daily
        for file in files
        if outcomes[file.path].result == "not in the archive" and (daily := file.daily_files())
    }
    if days:
        say(f"months without a monthly file: {len(days)}; asking for their days")
        fetch("fetching days", [file for group in days.values() for file in group])
    asked = [part for file in files for part in days.get(file, (file,))]
    summary = summarise(asked, outcomes)
    _report(summary)
    return summary


def summarise(files: Sequence[ArchiveFile], outcomes: Mapping[str, Outcome]) -> FetchSummary:
    """Count outcomes by symbol and table, and say what deserves a look."""
    groups: dict[tuple[str, str], list[ArchiveFile]] = {}
    for file in files:
        groups.setdefault((file.symbol, file.table), []).append(file)
    rows = tuple(_row(group, outcomes) for group in groups.values())
    failures = tuple(
        outcomes[file.path] for file in files if outcomes[file.path].result == "failed"
    )
    return FetchSummary(rows, failures, tuple(_remarks(files, rows)))


def _row(files: Sequence[ArchiveFile], outcomes: Mapping[str, Outcome]) -> FetchRow:
    results = [outcomes[file.path].result for file in files]
    return FetchRow(
        symbol=files[0].symbol,
        table=files[0].table,
        asked=len(files),
        fetched=results.count("fetched"),
        already_there=results.count("already there"),
        not_in_archive=results.count("not in the archive"),
        failed=results.count("failed"),
        bytes_received=sum(outcomes[file.path].bytes_received for file in files),
        missing=tuple(
            _spans(
                file
                for file, result in zip(files, results, strict=True)
                if result == "not in the archive"
            )
        ),
    )


def _spans(files: Iterator[ArchiveFile]) -> list[tuple[date, date]]:
    spans: list[tuple[date, date]] = []
    for file in sorted(files, key=lambda file: file.first):
        if spans and file.first <= spans[-1][1] + timedelta(days=1):
            spans[-1] = (spans[-1][0], max(file.last, spans[-1][1]))
        else:
            spans.append((file.first, file.last))
    return spans


def _remarks(files: Sequence[ArchiveFile], rows: Sequence[FetchRow]) -> Iterator[str]:
    market = files[0].market
    for table in dict.fromkeys(row.table for row in rows if row.not_in_archive):
        if (market, table) in CEASED:
            yield f"{table} of {market}: {CEASED[market, table]}"
    for symbol in dict.fromkeys(row.symbol for row in rows):
        own = [row for row in rows if row.symbol == symbol and (market, row.table) not in CEASED]
        if own and all(row.not_in_archive == row.asked for row in own):
            yield (
                f"{symbol}: the archive of {market} has no file in this range; not listed then, or "
                f"the name is wrong (it looks like {_SYMBOL_FORMS[market]})"
            )


def _report(summary: FetchSummary) -> None:
    table = Table(title="Binance public archive")
    table.add_column("symbol", no_wrap=True)
    table.add_column("table", no_wrap=True)
    for column in ("asked", "fetched", "already\nthere", "not in the\narchive", "failed", "MB"):
        table.add_column(column, justify="right")
    for row in summary.rows:
        table.add_row(
            row.symbol,
            row.table,
            *(
                f"{count:,}"
                for count in (
                    row.asked,
                    row.fetched,
                    row.already_there,
                    row.not_in_archive,
                    row.failed,
                )
            ),
            f"{row.bytes_received / 1e6:,.1f}",
            style="red" if row.failed else None,
        )
    output.print(table)
    for row in summary.rows:
        if row.missing:
            spans = ", ".join(_span_text(first, last) for first, last in row.missing)
            say(f"not in the archive: {row.symbol} {row.table} {spans}")
    for remark in summary.remarks:
        say(remark)
    for failure in summary.failures[:_MOST_FAILURES_SHOWN]:
        say(f"failed: {failure.path}: {failure.reason}")
    if summary.failures:
        more = len(summary.failures) - _MOST_FAILURES_SHOWN
        say(
            f"{f'{more} more failed; ' if more > 0 else ''}the same command tries the failed files "
            "again and leaves the others alone"
        )


def _span_text(first: date, last: date) -> str:
    return f"{first}" if first == last else f"{first} to {last}"


def _day(option: str, value: str | date) -> date:
    try:
        instant = parse_instant(value)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None
    if instant != parse_instant(instant.date()):
        raise InputError(f"{option} {value}: the archive has whole days (UTC); write a date")
    return instant.date()
