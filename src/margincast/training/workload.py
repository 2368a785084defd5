"""From a training spec and a data folder to the panel a job works on.

The single road from raw files to decisions, walked by training, backtest and scoring alike.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from margincast.core.errors import InputError, did_you_mean
from margincast.core.time import format_duration
from margincast.data.quality import Finding
from margincast.data.states import STATE_TABLES
from margincast.features.cache import FeatureCache
from margincast.features.loading import load_feature_set
from margincast.features.pipeline import FeatureTable, build_features
from margincast.features.tables import readings_of, tables_of, without_tables
from margincast.models.catalogue import make_forecaster
from margincast.models.protocol import Forecaster, Panel
from margincast.specs.features import FeatureSet
from margincast.specs.training import Data, TrainingJob
from margincast.training.market import Market, read_market
from margincast.training.panel import assemble_panel
from margincast.training.targets import bars_in, outcome_table


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


def _as_far_as_there(
    data: Data, feature_set: FeatureSet, root: Path
) -> tuple[FeatureSet, list[Finding]]:
    """Leave out of a set what reads states that the data does not hold, and report it."""
    missing = {
        table
        for table in tables_of(feature_set) & {*STATE_TABLES}
        if not any((root / entry).exists() for entry in getattr(data, table))
    }
    if not missing:
        return feature_set, []
    smaller = without_tables(feature_set, missing)
    every = readings_of(feature_set)
    return smaller, [
        Finding(
            "features",
            table,
            f"no {table} at {', '.join(getattr(data, table)) or 'any place that data names'}",
            sum(table in reading.names for reading in every.values()),
            len(every),
            "columns that read it are left out of the set",
            severity="warning",
        )
        for table in sorted(missing)
    ]


def build_workload(
    job: TrainingJob, workspace: Path, root: Path, cache: FeatureCache | None = None
) -> Workload:
    """Read data, build features, compute outcomes and join them.

    Lines of the feature set that read funding, open interest, liquidations, implied volatility or
    options are left out, and reported, where the data does not hold them; the workload's feature
    set, and its digest, are what was built.

    Args:
        job: the training spec.
        workspace: folder that spec paths start at.
        root: folder that data paths start at.
        cache: of built features; see :func:`margincast.features.pipeline.build_features`.

    Raises:
        InputError: anything about the data that would make a number wrong.
    """
    named = load_feature_set(workspace / job.features.set)
    feature_set, absent = _as_far_as_there(job.data, named, root)
    market = read_market(job.data, feature_set, root)
    workload = workload_of(job, feature_set, market, cache)
    return replace(workload, findings=(*absent, *workload.findings))


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
    peers = job.model.peers
    for peer, key in (("ewma_fhs", "ewma_column"), ("parkinson_fhs", "parkinson_column")):
        if peer in job.backtest.peers:
            _require_columns(f"model.peers.{key}", (getattr(peers, key),), job, table)
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
