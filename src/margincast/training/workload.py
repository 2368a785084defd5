"""From a training spec and a data folder to the panel a job works on.

The single road from raw files to decisions, walked by training, backtest and scoring alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from margincast.core.digest import digest_of, digest_of_file
from margincast.core.errors import InputError, did_you_mean
from margincast.core.time import format_duration
from margincast.data.bars import BarTable, read_bars
from margincast.data.book import read_books
from margincast.data.files import find_table_files
from margincast.data.formats.source import Stamp, stamp_of
from margincast.data.mid_bars import mid_bars
from margincast.data.option_chains import read_option_chains
from margincast.data.quality import Finding
from margincast.data.states import read_states
from margincast.data.trades import read_trades
from margincast.data.underlyings import LEADER_TABLES, unmatched
from margincast.features.alignment import tables_read
from margincast.features.cache import FeatureCache
from margincast.features.pipeline import FeatureTable, build_features
from margincast.features.plan import Plan
from margincast.features.sources import Origin, Sources
from margincast.models.catalogue import make_forecaster
from margincast.models.protocol import Forecaster, Panel
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec
from margincast.specs.training import Data, TrainingJob
from margincast.training.panel import assemble_panel
from margincast.training.targets import bars_in, outcome_table

STATE_TABLES = ("funding", "open_interest", "liquidations", "implied_vol", "options")
"""Tables whose symbols may be underlyings: they find their contracts, and ``data.symbols`` does not
pick them.
"""

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


@dataclass(frozen=True)
class Workload:
    """What a training or backtest job works on."""

    job: TrainingJob
    feature_set: FeatureSet
    market: Market
    table: FeatureTable
    panel: Panel
    findings: tuple[Finding, ...]

    @property
    def horizon_minutes(self) -> int:
        """Liquidation horizon in minutes."""
        return round(self.job.target.horizon.total_seconds() / 60)

    @property
    def overlap(self) -> float:
        """Consecutive decisions of a contract that share one horizon, at least 1."""
        target = self.job.target
        return max(1.0, target.horizon / (self.feature_set.grid.interval * target.stride))


def load_feature_set(job: TrainingJob, workspace: Path) -> FeatureSet:
    """Read the feature set a job names."""
    return load_spec(workspace / job.features.set, FeatureSet)


def read_market(
    data: Data, feature_set: FeatureSet, root: Path, *, require_all: bool = True
) -> Market:
    """Read everything a spec's ``[data]`` names.

    Args:
        data: what to read.
        feature_set: what it is read for.
        root: folder that data paths start at.
        require_all: refuse a table that the set reads and ``[data]`` does not name; otherwise its
            columns are not known, which :func:`build_features` reports.

    Raises:
        InputError: data is missing or breaks a rule.
    """
    if require_all:
        _require_tables(data, feature_set)
    grid = feature_set.grid
    findings: list[Finding] = []
    # taken before anything is read: what changes from here on is noticed
    origins = data_origins(data, root)
    trades = read_trades(root, data.trades, data.symbols) if data.trades else None
    books = None
    if data.book:
        assert data.book_known_after is not None
        books = read_books(root, data.book, data.symbols, data.book_known_after)
        findings += books.findings
    if trades is not None:
        findings += trades.findings
    if data.bars:
        bars = read_bars(root, data.bars, data.symbols, grid.interval)
    else:
        assert books is not None
        bars = mid_bars(books, grid.interval, trades)
    findings += bars.findings
    states = {
        table: read_option_chains(root, entries)
        if table == "options"
        else read_states(root, entries, table)
        for table in STATE_TABLES
        if (entries := getattr(data, table))
    }
    for table, rows in states.items():
        findings += [*rows.findings, *unmatched(table, rows.frames, bars.frames, grid.leader)]
    sources = Sources(bars, books, trades, states, origins)
    return Market(sources, _digest_over(origins), tuple(findings))


def _require_tables(data: Data, feature_set: FeatureSet) -> None:
    """Refuse a section of the feature set whose table the data does not name.

    Raises:
        InputError: says which section, and what to name.
    """
    reads = {
        table: table for table in ("book", "trades", *LEADER_TABLES) if getattr(feature_set, table)
    }
    if feature_set.derivatives:
        own = Plan.of(feature_set).own
        columns = {name for column in own for name in column.expression.meta.root_names()}
        reads |= dict.fromkeys(tables_read(columns), "derivatives")
    for table, section in reads.items():
        if not getattr(data, table):
            raise InputError(
                f"feature set {feature_set.name} has [[{section}]] features, but data.{table} "
                "names nothing to read; name it, or choose a feature set without them"
            )


def data_digest(data: Data, root: Path) -> str:
    """SHA-256 over the content of every file a spec's ``[data]`` names."""
    return _digest_over(data_origins(data, root))


def data_origins(data: Data, root: Path) -> dict[str, dict[str, Origin]]:
    """Digest every file a spec's ``[data]`` names, once: by table and contract."""
    digested: dict[Path, tuple[Stamp, str]] = {}
    origins: dict[str, dict[str, Origin]] = {}
    for table in TABLES:
        entries = getattr(data, table)
        if not entries:
            continue
        symbols = () if table in STATE_TABLES else data.symbols
        found, _ = find_table_files(root, entries, symbols, table)
        origins[table] = {}
        for file in found:
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


def build_workload(
    job: TrainingJob, workspace: Path, root: Path, cache: FeatureCache | None = None
) -> Workload:
    """Read data, build features, compute outcomes and join them.

    Args:
        job: the training spec.
        workspace: folder that spec paths start at.
        root: folder that data paths start at.
        cache: of built features; see :func:`margincast.features.pipeline.build_features`.

    Raises:
        InputError: anything about the data that would make a number wrong.
    """
    feature_set = load_feature_set(job, workspace)
    return workload_of(job, feature_set, read_market(job.data, feature_set, root), cache)


def workload_of(
    job: TrainingJob, feature_set: FeatureSet, market: Market, cache: FeatureCache | None = None
) -> Workload:
    """Build features and outcomes of market data that was read, and join them.

    Raises:
        InputError: see :func:`build_workload`.
    """
    bars_in(job.target.horizon, market.bars.interval)
    table = build_features(feature_set, market.sources, cache)
    _require_columns("model.scale.columns", job.model.scale.columns, job, table)
    if "ewma_fhs" in job.backtest.peers:
        _require_columns("model.peers.ewma_column", (job.model.peers.ewma_column,), job, table)
    outcomes, lost = outcome_table(
        market.bars, job.target.horizon, job.target.gap_tolerance, job.target.kind
    )
    panel, unlabelled = assemble_panel(
        table,
        outcomes,
        job.target.sides,
        stride=job.target.stride,
        interval=market.bars.interval,
    )
    findings = (*market.findings, *table.findings, *lost, *unlabelled)
    return Workload(job, feature_set, market, table, panel, findings)


def _require_columns(
    key: str, columns: tuple[str, ...], job: TrainingJob, table: FeatureTable
) -> None:
    unknown = [name for name in columns if name not in table.units]
    if unknown:
        hints = ", ".join(f"{name}{did_you_mean(name, table.units)}" for name in unknown)
        raise InputError(
            f"{key}: {job.features.set} does not build {hints}; choose columns of "
            "that feature set, or add them to it"
        )


def forecaster_for(workload: Workload, name: str, threads: int) -> Forecaster:
    """Make the unfitted forecaster of a job by name; see :mod:`margincast.models.catalogue`."""
    target = workload.job.target
    return make_forecaster(
        name,
        workload.job.model,
        target.sides,
        target.levels,
        overlap=workload.overlap,
        threads=threads,
    )


def describe(workload: Workload) -> str:
    """One line for a log: contracts, decisions, span, features."""
    frame = workload.panel.frame
    return (
        f"{frame['symbol'].nunique()} contracts, {len(frame):,} decisions every "
        f"{format_duration(workload.feature_set.grid.interval * workload.job.target.stride)} from "
        f"{frame['ts'].min():%F} to {frame['ts'].max():%F}, {len(workload.table.units)} features"
    )
