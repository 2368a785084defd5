"""The panel both model benchmarks work on: minutes of the simulated market, bars only."""

from datetime import UTC, datetime

import polars as pl

from margincast.data.bars import BarTable, regular_bars
from margincast.data.simulated.market import simulate_market
from margincast.data.simulated.parameters import MarketParameters
from margincast.features.pipeline import build_features
from margincast.features.sources import Sources
from margincast.models.protocol import Panel
from margincast.specs.features import FeatureSet
from margincast.specs.training import TrainingJob
from margincast.training.panel import assemble_panel
from margincast.training.targets import outcome_table


def simulated_panel(job: TrainingJob, feature_set: FeatureSet, days: int) -> Panel:
    """Simulate ``days`` of every contract and return its labelled decisions."""
    interval = feature_set.grid.interval
    start = datetime(2026, 1, 1, tzinfo=UTC)
    market = simulate_market(MarketParameters(), days=days, seed=7, start=start)
    frames = {
        contract.symbol: regular_bars(
            market.bars.filter(pl.col("symbol") == contract.symbol), contract.symbol, interval
        )[0]
        for contract in market.parameters.contracts
    }
    bars = BarTable(frames, interval, ())
    target = job.target
    (horizon,) = target.horizons
    outcomes, _ = outcome_table(bars, horizon, target.gap_tolerance, target.kind)
    table = build_features(feature_set, Sources(bars))
    panel, _ = assemble_panel(table, outcomes, target.sides, stride=1, interval=interval)
    return panel.rows(panel.labelled)
