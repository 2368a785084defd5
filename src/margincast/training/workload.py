"""From a training spec and a data folder to the panels a job works on, one a horizon.

The single road from raw files to decisions, walked by training, backtest and scoring alike.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pandas as pd

from margincast.core.errors import InputError, did_you_mean
from margincast.core.time import format_duration, format_minutes
from margincast.data.quality import Finding
from margincast.data.states import STATE_TABLES
from margincast.features.cache import FeatureCache
from margincast.features.loading import load_feature_set
from margincast.features.pipeline import FeatureTable, build_features
from margincast.features.tables import readings_of, tables_of, without_tables
from margincast.models.catalogue import make_forecaster
from margincast.models.checks import learning_findings
from margincast.models.protocol import Forecaster, Panel
from margincast.specs.features import FeatureSet
from margincast.specs.training import Data, TrainingJob
from margincast.training.market import Market, read_market
from margincast.training.panel import assemble_panels
from margincast.training.targets import bars_in, outcome_table


@dataclass(frozen=True)
class Workload:
    """What a training or backtest job works on.

    Attributes:
        job: the training spec.
        feature_set: the features that were built.
        market: the data that was read.
        table: the features, also between decisions.
        panels: per horizon in minutes, increasing, the decisions with its outcomes; all hold the
            same decisions and share one frame.
        findings: irregularities of data, features and outcomes.
    """

    job: TrainingJob
    feature_set: FeatureSet
    market: Market
    table: FeatureTable
    panels: dict[int, Panel]
    findings: tuple[Finding, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """The decisions and their features, the same at every horizon."""
        return next(iter(self.panels.values())).frame

    @property
    def spacing(self) -> timedelta:
        """Time between a contract's decisions."""
        return self.feature_set.grid.interval * self.job.target.stride

    def overlap(self, horizon_minutes: int) -> float:
        """Consecutive decisions of a contract that share one horizon, at least 1."""
        return max(1.0, timedelta(minutes=horizon_minutes) / self.spacing)


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
    target = job.target
    for horizon in target.horizons:
        bars_in(horizon, market.bars.interval)
    table = build_features(feature_set, market.sources, cache)
    _require_columns("model.scale.columns", job.model.scale.columns, job, table)
    peers = job.model.peers
    for peer, key in (("ewma_fhs", "ewma_column"), ("parkinson_fhs", "parkinson_column")):
        if peer in job.backtest.peers:
            _require_columns(f"model.peers.{key}", (getattr(peers, key),), job, table)
    found = {
        minutes: outcome_table(market.bars, horizon, target.gap_tolerance, target.kind)
        for minutes, horizon in zip(target.horizons_minutes, target.horizons, strict=True)
    }
    panels, unlabelled = assemble_panels(
        table,
        {minutes: outcomes for minutes, (outcomes, _) in found.items()},
        target.sides,
        stride=target.stride,
        interval=market.bars.interval,
    )
    of_outcomes = [
        finding
        for minutes, (_, lost) in found.items()
        for finding in _of_horizon(
            (*lost, unlabelled[minutes], *learning_findings(panels[minutes])), minutes, job
        )
    ]
    findings = (*market.findings, *table.findings, *of_outcomes)
    return Workload(job, feature_set, market, table, panels, findings)


def _of_horizon(findings: Iterable[Finding], minutes: int, job: TrainingJob) -> list[Finding]:
    """Say which horizon was looked at, where there are several."""
    if len(job.target.horizons) == 1:
        return list(findings)
    horizon = format_minutes(minutes)
    return [replace(finding, what=f"{finding.what}, {horizon} horizon") for finding in findings]


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


def forecaster_for(workload: Workload, name: str, horizon_minutes: int, threads: int) -> Forecaster:
    """Make an unfitted forecaster of a job by name; see :mod:`margincast.models.catalogue`."""
    target = workload.job.target
    return make_forecaster(
        name,
        workload.job.model,
        target.sides,
        target.levels,
        overlap=workload.overlap(horizon_minutes),
        threads=threads,
    )


def describe(workload: Workload) -> str:
    """One line for a log: contracts, decisions, span, features."""
    frame = workload.frame
    return (
        f"{frame['symbol'].nunique()} contracts, {len(frame):,} decisions every "
        f"{format_duration(workload.spacing)} from "
        f"{frame['ts'].min():%F} to {frame['ts'].max():%F}, {len(workload.table.units)} features"
    )
