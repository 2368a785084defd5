"""Find the files of a table and the contract each one holds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from margincast.core.errors import InputError, did_you_mean
from margincast.data.quality import Finding

SUFFIX = ".parquet"


@dataclass(frozen=True)
class TableFile:
    """One contract's rows in one file."""

    symbol: str
    path: Path
    symbol_in_file: str | None
    """Value of the ``symbol`` column that selects the rows; None where the file is the contract."""

    def scan(self) -> pl.LazyFrame:
        """Scan the contract's rows lazily."""
        frame = scan_parquet(self.path)
        if self.symbol_in_file is None:
            return frame
        return frame.filter(pl.col("symbol") == self.symbol_in_file)


def scan_parquet(path: Path) -> pl.LazyFrame:
    """Scan a Parquet file.

    Raises:
        InputError: the file cannot be read as Parquet.
    """
    with readable(str(path)):
        frame = pl.scan_parquet(path)
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
            f"{source} cannot be read as Parquet: {error}; fetch or write the file again"
        ) from None


def find_table_files(
    root: Path, entries: Sequence[str], symbols: Sequence[str], table: str
) -> tuple[list[TableFile], list[Finding]]:
    """List the contracts that the entries of a spec hold.

    A contract is named by the ``symbol`` column, or by the file's name where there is none. When a
    name comes again in a later entry the two are different markets (a perpetual and a spot pair):
    the earlier keeps the plain name, the later becomes ``NAME@folder``, and the collision is
    reported; rows are never merged.

    Args:
        root: folder that relative entries start at.
        entries: folders or Parquet files.
        symbols: contracts to keep (after naming); empty keeps all.
        table: canonical table name, for messages.

    Raises:
        InputError: an entry is missing or empty, a contract lies in two files of one folder, or a
            wanted contract is not there.
    """
    files: dict[str, TableFile] = {}
    findings: list[Finding] = []
    for entry in entries:
        for path in _paths(root, entry, table):
            for name, symbol_in_file in _symbols_in(path):
                symbol = name
                if symbol in files and files[name].path.parent != path.parent:
                    symbol = f"{name}@{path.parent.name}"
                    findings.append(
                        Finding(
                            table,
                            symbol,
                            f"same name as {files[name].path.parent.name}/{name}",
                            1,
                            1,
                            f"kept apart as {symbol}",
                        )
                    )
                if symbol in files:
                    raise InputError(
                        f"data.{table}: {path} and {files[symbol].path} both hold {symbol}; "
                        "keep a contract in one file, and name each folder once"
                    )
                files[symbol] = TableFile(symbol, path, symbol_in_file)
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


def _paths(root: Path, entry: str, table: str) -> list[Path]:
    path = root / entry
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(
            f"data.{table}: {path} does not exist; give the folder that holds it with --data, "
            f"or another place with --set data.{table}=..."
        )
    paths = sorted(path.glob(f"*{SUFFIX}"))
    if not paths:
        raise InputError(f"data.{table}: folder {path} holds no {SUFFIX} file")
    return paths


def _symbols_in(path: Path) -> list[tuple[str, str | None]]:
    frame = scan_parquet(path)
    if "symbol" not in frame.collect_schema().names():
        return [(path.name.removesuffix(SUFFIX), None)]
    with readable(str(path)):
        values = frame.select(pl.col("symbol").unique()).collect()["symbol"]
    if values.null_count() or values.dtype != pl.String:
        raise InputError(f"{path}: column 'symbol' must hold text in every row")
    return [(str(value), str(value)) for value in sorted(values)]
