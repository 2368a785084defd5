"""Everything a spec's ``[data]`` names, read and checked: the market that a margin is decided on.

Read alike for training, backtest, scoring and ``features build``. No model is needed to read data,
and none is loaded for it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from margincast.core.digest import digest_of, digest_of_file
from margincast.core.errors import InputError
from margincast.data.bars import BarTable, read_bars
from margincast.data.book import BookTable, read_books
from margincast.data.files import TableFile, find_table_files
from margincast.data.formats.source import Stamp, stamp_of
from margincast.data.mid_bars import mid_bars
from margincast.data.option_chains import read_option_chains
from margincast.data.quality import Finding
from margincast.data.states import STATE_TABLES, read_states
from margincast.data.trades import TradeTable, read_trades
from margincast.data.underlyings import unmatched
from margincast.features.alignment import not_of_bars
from margincast.features.sources import Origin, Sources
from margincast.features.tables import readings_of, tables_of, without_a_leader
from margincast.specs.features import FeatureSet
from margincast.specs.training import Data

TABLES = ("bars", "book", "trades", *STATE_TABLES)
"""Tables that a spec's ``[data]`` can name."""


@dataclass(frozen=True)
class Market:
    """Market data read, checked and reduced to the decision grid.

    Attributes:
        sources: what features are built from; bars are those of the mid price where only a book
            is given.
        digest: SHA-256 over the content of every file read.
        findings: what was irregular and what was done.
    """

    sources: Sources
    digest: str
    findings: tuple[Finding, ...]

    @property
    def bars(self) -> BarTable:
        """Regular bars of every contract."""
        return self.sources.bars


def read_market(
    data: Data, feature_set: FeatureSet, root: Path, *, require_all: bool = True
) -> Market:
    """Read everything a spec's ``[data]`` names and the feature set can use.

    Books and trades of contracts without bars are not read: no decision is taken on them.

    Args:
        data: what to read.
        feature_set: what it is read for.
        root: folder that data paths start at.
        require_all: refuse a table that the set reads and ``[data]`` does not name or that is of
            no contract with bars, and a leader without bars that the set reads; otherwise the
            columns are not known, which :func:`margincast.features.pipeline.build_features`
            reports.

    Raises:
        InputError: data is missing or breaks a rule.
    """
    if require_all:
        _require_tables(data, feature_set)
    grid = feature_set.grid
    wanted = tables_of(feature_set)
    files, findings = _files_to_read(data, root, wanted)
    of_prices = () if data.bars else ("trades",)
    _require_contracts(files, {*of_prices, *(wanted if require_all else ())})
    # taken before anything is read: what changes from here on is noticed
    origins = _origins_of(data, files)
    trades, books = _read_trades(data, root, files), _read_books(data, root, files)
    for feed in (books, trades):
        findings += [] if feed is None else feed.findings
    if data.bars:
        bars = read_bars(root, data.bars, data.symbols, grid.interval)
    else:
        assert books is not None
        bars = mid_bars(books, grid.interval, trades)
    if require_all and (missing := without_a_leader(feature_set, bars.frames)):
        raise InputError(f"{missing}; name its bars in data.bars, or another leader in the set")
    findings += [*bars.findings, *not_of_bars(bars.frames)]
    states = {
        table: read_option_chains(root, entries)
        if table == "options"
        else read_states(root, entries, table)
        for table in STATE_TABLES
        if table in wanted and (entries := getattr(data, table))
    }
    for table, rows in states.items():
        findings += [*rows.findings, *unmatched(table, rows.frames, bars.frames, grid.leader)]
    sources = Sources(bars, books, trades, states, origins)
    return Market(sources, _digest_over(origins), tuple(findings))


def data_digest(data: Data, root: Path) -> str:
    """SHA-256 over the content of every file of a spec's ``[data]`` that is read."""
    return _digest_over(data_origins(data, root, STATE_TABLES))


def data_origins(data: Data, root: Path, states: Collection[str]) -> dict[str, dict[str, Origin]]:
    """Digest every file of a spec's ``[data]`` that is read, once: by table and contract.

    Args:
        data: what is read.
        root: folder that data paths start at.
        states: tables of states that are read; others that are named are not.
    """
    files, _ = _files_to_read(data, root, states)
    return _origins_of(data, files)


def _require_tables(data: Data, feature_set: FeatureSet) -> None:
    """Refuse a table that the feature set reads and the data does not name.

    Raises:
        InputError: says which sections read it, and what to name.
    """
    readings = readings_of(feature_set).values()
    for table in TABLES[1:]:
        sections = {reading.family for reading in readings if table in reading.names}
        if sections and not getattr(data, table):
            raise InputError(
                f"feature set {feature_set.name} has [[{']] and [['.join(sorted(sections))}]] "
                f"features, but data.{table} names nothing to read; name it, or choose a feature "
                "set without them"
            )


def _files_to_read(
    data: Data, root: Path, states: Collection[str]
) -> tuple[dict[str, list[TableFile]], list[Finding]]:
    """List the files of each table that is read, and report the contracts that are not."""
    files: dict[str, list[TableFile]] = {}
    for table in TABLES:
        entries = getattr(data, table)
        if entries and (table not in STATE_TABLES or table in states):
            symbols = () if table in STATE_TABLES else data.symbols
            files[table], _ = find_table_files(root, entries, symbols, table)
    priced = "bars" if data.bars else "book"
    decided = {file.symbol for file in files[priced]}
    findings = []
    for table in ("book", "trades"):
        there = files.get(table, [])
        unread = [file.symbol for file in there if file.symbol not in decided]
        if unread:
            files[table] = [file for file in there if file.symbol in decided]
            what = f"contracts without {priced} ({', '.join(unread)})"
            findings.append(
                Finding(table, "all contracts", what, len(unread), len(there), "not read")
            )
    return files, findings


def _require_contracts(files: Mapping[str, Sequence[TableFile]], wanted: Collection[str]) -> None:
    """Refuse a book, or trades, of which no contract has prices.

    Raises:
        InputError: names the contracts that have.
    """
    for table, of_table in files.items():
        if not of_table and table in wanted:
            decided = ", ".join(
                file.symbol for file in files["bars" if "bars" in files else "book"]
            )
            raise InputError(
                f"data.{table} holds nothing of the contracts that decisions are taken on "
                f"({decided}); name files of these contracts, called alike"
            )


def _read_books(
    data: Data, root: Path, files: Mapping[str, Sequence[TableFile]]
) -> BookTable | None:
    if "book" not in files:
        return None
    symbols = [file.symbol for file in files["book"]]
    if not symbols:
        return BookTable({}, {}, ())
    assert data.book_known_after is not None
    return read_books(root, data.book, symbols, data.book_known_after)


def _read_trades(
    data: Data, root: Path, files: Mapping[str, Sequence[TableFile]]
) -> TradeTable | None:
    if "trades" not in files:
        return None
    symbols = [file.symbol for file in files["trades"]]
    return read_trades(root, data.trades, symbols) if symbols else TradeTable({}, ())


def _origins_of(
    data: Data, files: Mapping[str, Sequence[TableFile]]
) -> dict[str, dict[str, Origin]]:
    digested: dict[Path, tuple[Stamp, str]] = {}
    origins: dict[str, dict[str, Origin]] = {}
    for table, of_table in files.items():
        origins[table] = {}
        for file in of_table:
            for path in file.paths:
                if path not in digested:
                    digested[path] = stamp_of(path), digest_of_file(path)
            stamps, digests = zip(*(digested[path] for path in file.paths), strict=True)
            known_after = data.book_known_after if table == "book" else None
            reading = f"{file.symbol_in_file} {file.in_order} {known_after}"
            origins[table][file.symbol] = Origin(digests, stamps, reading)
    return origins


def _digest_over(origins: Mapping[str, Mapping[str, Origin]]) -> str:
    return digest_of(
        {
            f"{table}/{symbol}/{number}": digest
            for table, of_table in origins.items()
            for symbol, origin in of_table.items()
            for number, digest in enumerate(origin.digests)
        }
    )
