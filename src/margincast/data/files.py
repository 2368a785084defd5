"""Find the rows of a table and the contract they belong to, in files or in a store."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import polars as pl

from margincast.core.errors import InputError, did_you_mean
from margincast.data.drift import with_common_types
from margincast.data.quality import Finding
from margincast.data.store import Part, Store

SUFFIX = ".parquet"


@dataclass(frozen=True)
class TableFile:
    """One contract's rows.

    Attributes:
        symbol: name of the contract.
        paths: the files that hold its rows, in the order of time: one file, or the parts of a
            store.
        symbol_in_file: value of the ``symbol`` column that selects the rows; None where the files
            are the contract's alone.
        in_order: whether the files follow each other in time; parts from sources that overlap
            do not, and their rows are sorted.
    """

    symbol: str
    paths: tuple[Path, ...]
    symbol_in_file: str | None
    in_order: bool = True

    def __str__(self) -> str:
        if len(self.paths) == 1:
            return str(self.paths[0])
        return f"{self.paths[0].parents[1]} ({len(self.paths)} files)"

    def scan(self) -> pl.LazyFrame:
        """Scan the contract's rows lazily.

        Raises:
            InputError: a file cannot be read as Parquet, or a column has types in two of them
                that have nothing in common.
        """
        frames = with_common_types({str(path): scan_parquet(path) for path in self.paths})
        frame = frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")
        if not self.in_order:
            frame = frame.sort("ts", maintain_order=True)
        if self.symbol_in_file is None:
            return frame
        return frame.filter(pl.col("symbol") == self.symbol_in_file)


def scan_parquet(path: Path) -> pl.LazyFrame:
    """Scan a Parquet file.

    Raises:
        InputError: the file cannot be read as Parquet.
    """
    with readable(str(path)):
        frame = pl.scan_parquet(path, hive_partitioning=False, glob=False)
        frame.collect_schema()
    return frame


@contextmanager
def readable(source: str) -> Iterator[None]:
    """Turn what polars raises on a damaged file into an error that names the file.

    A scan reads only a file's footer; damaged pages show when its rows are collected.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"{source} cannot be read as Parquet: {error}; fetch or write the file again, or bring "
            "files of other kinds into a store with 'margincast data ingest'"
        ) from None


def find_table_files(
    root: Path, entries: Sequence[str], symbols: Sequence[str], table: str
) -> tuple[list[TableFile], list[Finding]]:
    """List the contracts that the entries of a spec hold.

    A contract is named by the ``symbol`` column, by the file's name where there is none, or by its
    folder in a store. When a name comes again from another folder or venue the two are different
    markets (a perpetual and a spot pair): the earlier keeps the plain name, the later becomes
    ``NAME@folder`` or ``NAME@venue``, and the collision is reported; rows are never merged.

    Args:
        root: folder that relative entries start at.
        entries: folders or Parquet files, or folders of a store such as
            ``table=book/venue=binance``.
        symbols: contracts to keep (after naming); empty keeps all.
        table: canonical table name, for messages.

    Raises:
        InputError: an entry is missing or empty, a contract lies in two files of one folder, or a
            wanted contract is not there.
    """
    files: dict[str, TableFile] = {}
    origins: dict[str, Path] = {}
    findings: list[Finding] = []
    for entry in entries:
        for file, origin in _files_of(root, entry, table):
            symbol = file.symbol
            if symbol in files and origins[symbol] != origin:
                symbol = f"{file.symbol}@{_label(origin)}"
                findings.append(
                    Finding(
                        table,
                        symbol,
                        f"same name as {_label(origins[file.symbol])}/{file.symbol}",
                        1,
                        1,
                        f"kept apart as {symbol}",
                    )
                )
            if symbol in files:
                raise InputError(
                    f"data.{table}: {file} and {files[symbol]} both hold {symbol}; "
                    "keep a contract in one file, and name each folder once"
                )
            files[symbol] = replace(file, symbol=symbol)
            origins[symbol] = origin
    if symbols:
        missing = [symbol for symbol in symbols if symbol not in files]
        if missing:
            hints = ", ".join(f"{symbol}{did_you_mean(symbol, files)}" for symbol in missing)
            raise InputError(
                f"data.symbols: no {table} for {hints}; there are {', '.join(sorted(files))}"
            )
        files = {symbol: files[symbol] for symbol in symbols}
    return [files[symbol] for symbol in sorted(files)], [
        finding for finding in findings if finding.symbol in files
    ]


def _label(origin: Path) -> str:
    """Name a folder, or a venue of a store."""
    return origin.name.removeprefix("venue=")


def _files_of(root: Path, entry: str, table: str) -> list[tuple[TableFile, Path]]:
    """List an entry's contracts, each with the folder that tells its name from others."""
    path = root / entry
    if path.is_file():
        return _files_in([path])
    if not path.is_dir():
        raise InputError(
            f"data.{table}: {path} does not exist; give the folder that holds it with --data, "
            f"or another place with --set data.{table}=...{_tables_of_store(path)}"
        )
    store = Store.around(path)
    if store is not None:
        return _files_in_store(store, path, table)
    paths = sorted(path.glob(f"*{SUFFIX}"))
    if not paths:
        raise InputError(
            f"data.{table}: folder {path} holds no {SUFFIX} file; bring files of other kinds into "
            "a store with 'margincast data ingest'"
        )
    return _files_in(paths)


def _files_in(paths: Sequence[Path]) -> list[tuple[TableFile, Path]]:
    return [
        (TableFile(symbol, (path,), symbol_in_file), path.parent)
        for path in paths
        for symbol, symbol_in_file in _symbols_in(path)
    ]


def _files_in_store(store: Store, path: Path, table: str) -> list[tuple[TableFile, Path]]:
    parts = store.parts(path.relative_to(store.root))
    tables = {part.partition.table for part in parts}
    if not parts or len(tables) > 1:
        raise InputError(
            f"data.{table}: {path} holds {'several tables' if parts else 'no rows'}; name one"
            f"{_tables_of_store(path)}"
        )
    contracts: dict[tuple[str, Path], list[Part]] = {}
    for part in parts:
        venue = Path(*part.partition.folder.parts[:2])
        contracts.setdefault((part.partition.symbol, venue), []).append(part)
    return [
        (
            TableFile(
                symbol,
                tuple(store.root / part.path for part in ordered),
                None,
                in_order=all(one.last < other.first for one, other in pairwise(ordered)),
            ),
            venue,
        )
        for (symbol, venue), ordered in contracts.items()
    ]


def _tables_of_store(path: Path) -> str:
    """Say what a store holds, for a message; empty where the path is in none."""
    store = Store.around(path)
    if store is None:
        return ""
    there = sorted({Path(*part.path.parts[:2]).as_posix() for part in store.parts()})
    return f"; {store.root} is a store that holds {', '.join(there)}"


def _symbols_in(path: Path) -> list[tuple[str, str | None]]:
    frame = scan_parquet(path)
    if "symbol" not in frame.collect_schema().names():
        return [(path.name.removesuffix(SUFFIX), None)]
    with readable(str(path)):
        values = frame.select(pl.col("symbol").unique()).collect()["symbol"]
    if values.null_count() or values.dtype != pl.String:
        raise InputError(f"{path}: column 'symbol' must hold text in every row")
    return [(str(value), str(value)) for value in sorted(values)]
