"""What an ingest did, as tables: every record and row of every source, and where it went."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from margincast.data.formats.format import APPLIED, MERGED, TRANSLATED
from margincast.data.store import Record, TableCount

_ORDINARY = (TRANSLATED, APPLIED, MERGED)

MOST_SOURCES = 60
"""With more sources than this the table shows contracts' totals by table and venue."""


def account_tables(records: Sequence[Record]) -> list[Table]:
    """Reconcile sources: rows in = rows out + quarantined + duplicates."""
    if not records:
        return []
    tables = [_rows_table(records)]
    remarks = _remarks(records)
    if remarks.row_count:
        tables.append(remarks)
    return tables


def _rows_table(records: Sequence[Record]) -> Table:
    by_source = len(records) <= MOST_SOURCES
    table = Table(title="Rows in = rows out + quarantined + duplicates")
    table.add_column("source" if by_source else "sources", overflow="fold")
    table.add_column("table")
    table.add_column("venue")
    table.add_column("contracts", justify="right")
    names = ("records", "rejected", "rows in", "rows out", "quarantined", "duplicates", "late")
    for name in names:
        table.add_column(name, justify="right")
    total = [0] * len(names)
    for texts, figures in _lines(records, by_source=by_source):
        total = [one + other for one, other in zip(total, figures, strict=True)]
        # names are the sources' own: what looks like markup in them is none
        table.add_row(*map(Text, texts), *(f"{figure:,}" for figure in figures))
    table.add_section()
    table.add_row("total", "", "", "", *(f"{figure:,}" for figure in total), style="bold")
    table.caption = (
        "records: lines or messages, on the first of a source's tables. late: rows of an earlier "
        "time than one before them in the source; sorted"
    )
    return table


def _lines(
    records: Sequence[Record], *, by_source: bool
) -> list[tuple[tuple[str, str, str, str], list[int]]]:
    """One line a source and table, or one a table and venue: texts and figures."""
    labels = _labels([record.source for record in records])
    figures: dict[tuple[str, str, str], list[int]] = {}
    contracts: dict[tuple[str, str, str], set[str]] = {}
    sources: dict[tuple[str, str, str], set[str]] = {}
    for record in records:
        rejected = sum(record.rejected.values())
        told = [sum(record.records.values()) + rejected, rejected]
        for count in record.tables or (_no_rows(record),):
            key = (record.identity if by_source else "", count.table, count.venue)
            line = [
                *told,
                count.rows_in,
                count.rows_out,
                count.quarantined,
                count.duplicates,
                count.out_of_order,
            ]
            before = figures.get(key, [0] * len(line))
            figures[key] = [one + other for one, other in zip(before, line, strict=True)]
            contracts.setdefault(key, set()).add(count.symbol)
            sources.setdefault(key, set()).add(record.source)
            told = [0, 0]
    return [
        (
            (
                labels[next(iter(sources[key]))] if by_source else str(len(sources[key])),
                *key[1:],
                str(len(contracts[key])),
            ),
            line,
        )
        for key, line in (figures.items() if by_source else sorted(figures.items()))
    ]


def _labels(sources: Sequence[str]) -> dict[str, str]:
    """Name each source by the end of its path, as long as it takes to tell it from the others."""
    ends = {source: source.split("/") for source in sources}
    length = dict.fromkeys(ends, 1)
    while True:
        labels = {source: "/".join(ends[source][-length[source] :]) for source in ends}
        counts = Counter(labels.values())
        alike = [source for source in ends if counts[labels[source]] > 1]
        short = [source for source in alike if length[source] < len(ends[source])]
        if not short:
            return labels
        for source in short:
            length[source] += 1


def _no_rows(record: Record) -> TableCount:
    settings = record.settings
    return TableCount(str(settings["table"]), str(settings["venue"]), "", 0, 0, 0, 0, 0)


def _remarks(records: Sequence[Record]) -> Table:
    """Say why rows were kept aside, what is not stored, and what else was noticed."""
    table = Table(title="What else was found")
    table.add_column("what")
    table.add_column("times", justify="right")
    table.add_column("sources", justify="right")
    kinds = {
        "rejected: ": [record.rejected for record in records],
        "quarantined: ": [record.quarantined for record in records],
        "": [
            {key: count for key, count in record.records.items() if key not in _ORDINARY}
            | record.events
            for record in records
        ],
    }
    for prefix, found in kinds.items():
        times: Counter[str] = Counter()
        where: Counter[str] = Counter()
        for one in found:
            times.update(one)
            where.update(one.keys())
        for what, count in times.most_common():
            table.add_row(Text(prefix + what), f"{count:,}", f"{where[what]:,}")
    return table
