"""From minute bars to a forecast, next to the true quantile that only a simulated market has.

Simulates a market, fits the forecaster of ``training/demo.toml`` on everything before the last
day, forecasts that day, and asks the oracle for the true conditional quantile. The oracle knows
the latent volatility and a forecaster only past prices, so the two differ; what should agree is
their level and their order.

Run: ``python examples/forecast_from_bars.py [--days 20] [--rounds 40]``
"""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from margincast.core.threads import available_threads
from margincast.data.bars import BarTable, regular_bars
from margincast.data.simulated.market import SimulatedMarket, simulate_market
from margincast.data.simulated.oracle import true_quantile
from margincast.data.simulated.parameters import MarketParameters
from margincast.features.pipeline import build_features
from margincast.features.sources import Sources
from margincast.models.catalogue import make_forecaster
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from margincast.training.panel import assemble_panel
from margincast.training.targets import outcome_table

WORKSPACE = Path(__file__).resolve().parents[1]
START = datetime(2026, 1, 1, tzinfo=UTC)
LEVEL = 0.99
DECIDED_EVERY = timedelta(minutes=1)
"""Grid of ``features/demo-1m.toml``; the spec's stride keeps every fifth decision."""


def main() -> None:
    """Simulate, fit, forecast, compare."""
    parser = argparse.ArgumentParser(description="a forecast next to the true quantile")
    parser.add_argument("--days", type=int, default=20, help="length of the market, in days")
    parser.add_argument("--rounds", type=int, default=40, help="boosting rounds")
    parser.add_argument("--paths", type=int, default=20_000, help="paths of the oracle a decision")
    arguments = parser.parse_args()

    job = load_spec(
        WORKSPACE / "training" / "demo.toml",
        TrainingJob,
        [f"target.levels=[{LEVEL}, 0.999]", f"model.head.rounds={arguments.rounds}"],
    )
    (horizon,) = job.target.horizons
    market = simulate_market(MarketParameters(), days=arguments.days, seed=7, start=START)
    panel = panel_of(market, job)

    last_day = START + timedelta(days=arguments.days - 1)
    known = panel.label_end <= np.datetime64(last_day.replace(tzinfo=None), "us")
    training = panel.rows(panel.labelled & known)
    forecaster = make_forecaster(
        "margincast",
        job.model,
        job.target.sides,
        job.target.levels,
        overlap=horizon / (DECIDED_EVERY * job.target.stride),
        threads=available_threads(),
    ).fit(training)

    ts = panel.frame["ts"].dt
    every_six_hours = (ts.hour % 6 == 0) & (ts.minute == 0)
    asked = panel.rows(((panel.frame["ts"] >= last_day) & every_six_hours).to_numpy())
    table = beside_the_truth(
        market, job, asked, forecaster.predict(asked), path_count=arguments.paths
    )
    print(
        f"{job.target.horizons_minutes[0]} min adverse excursion at level {LEVEL}, "
        f"fitted on {len(training):,} decisions of {arguments.days - 1} days"
    )
    print("time         contract  side   forecast     true  forecast/true")
    for row in table.iter_rows(named=True):
        print(
            f"{row['ts']:%m-%d %H:%M}  {row['symbol']:8}  {row['side']:5}  {row['forecast']:8.3%} "
            f"{row['true']:8.3%}  {row['forecast'] / row['true']:13.2f}"
        )
    summary = table.select(
        ratio=(pl.col("forecast") / pl.col("true")).log().mean().exp(),
        order=pl.corr("forecast", "true", method="spearman"),
    ).row(0, named=True)
    print(
        f"geometric mean of forecast/true {summary['ratio']:.2f}, "
        f"rank correlation {summary['order']:.2f}"
    )


def panel_of(market: SimulatedMarket, job: TrainingJob) -> Panel:
    """Build bar features and outcomes of a simulated market, as a job would from files."""
    whole = load_spec(WORKSPACE / job.features.set, FeatureSet)
    feature_set = whole.model_copy(update={"book": (), "trades": ()})
    interval = feature_set.grid.interval
    frames = {
        contract.symbol: regular_bars(
            market.bars.filter(pl.col("symbol") == contract.symbol), contract.symbol, interval
        )[0]
        for contract in market.parameters.contracts
    }
    bars = BarTable(frames, interval, ())
    (horizon,) = job.target.horizons
    outcomes, _ = outcome_table(bars, horizon, job.target.gap_tolerance, job.target.kind)
    panel, _ = assemble_panel(
        build_features(feature_set, Sources(bars)),
        outcomes,
        job.target.sides,
        stride=job.target.stride,
        interval=interval,
    )
    return panel


def beside_the_truth(
    market: SimulatedMarket,
    job: TrainingJob,
    asked: Panel,
    forecast: TailForecast,
    *,
    path_count: int,
) -> pl.DataFrame:
    """Return one row a decision and side: ``symbol``, ``ts``, ``side``, ``true``, ``forecast``."""
    decisions = pl.DataFrame(
        {
            "symbol": asked.frame["symbol"].to_list(),
            "ts": pl.Series(asked.decided).dt.replace_time_zone("UTC"),
        }
    )
    truth = true_quantile(
        market.parameters,
        decisions.join(market.state, on=["symbol", "ts"], how="left", maintain_order="left"),
        horizons_minutes=job.target.horizons_minutes,
        levels=[LEVEL],
        sides=job.target.sides,
        path_count=path_count,
        seed=1,
    )
    ours = np.stack([forecast.at(side, LEVEL) for side in job.target.sides], axis=1)
    return truth.select("symbol", "ts", "side", true="forecast").with_columns(
        pl.Series("forecast", ours.ravel())
    )


if __name__ == "__main__":
    main()
