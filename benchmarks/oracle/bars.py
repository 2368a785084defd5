"""From a simulated market to bars, features and decisions, by margincast's own pipeline.

Only the bars reach a forecaster. Volume is noise: it tells nothing about what follows.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import polars as pl
from benchmarks.oracle.dynamics import CONTRACTS
from benchmarks.oracle.laws import Truth
from benchmarks.oracle.processes import Market, Setting

from margincast.core.types import BoolArray
from margincast.data.bars import BarTable, regular_bars
from margincast.features.pipeline import build_features
from margincast.features.sources import Sources
from margincast.features.tables import tables_of, without_tables
from margincast.models.protocol import Panel
from margincast.specs.features import FeatureSet
from margincast.specs.training import TrainingJob
from margincast.training.panel import assemble_panel
from margincast.training.targets import outcome_table

HOUR: Final = timedelta(hours=1)
SYMBOLS: Final = tuple(f"SIM{number}" for number in range(CONTRACTS))


@dataclass(frozen=True)
class Decisions:
    """Decisions of a simulated market, with what the oracle knows of each.

    Attributes:
        panel: n decisions; the truth is not in it.
        truth: law of what follows each, n rows.
        judged: decisions on which forecasts are judged, shape (n,).
    """

    panel: Panel
    truth: Truth
    judged: BoolArray

    def rows(self, keep: BoolArray) -> "Decisions":
        """Return some of the decisions."""
        return Decisions(self.panel.rows(keep), self.truth.rows(keep), self.judged[keep])


def feature_set_of(whole: FeatureSet) -> FeatureSet:
    """Leave out what bars alone cannot show, and follow the first simulated contract."""
    from_bars = without_tables(whole, tables_of(whole) - {"bars"})
    grid = whole.grid.model_copy(update={"leader": SYMBOLS[0]})
    return from_bars.model_copy(update={"grid": grid})


def decisions_of(
    market: Market, setting: Setting, job: TrainingJob, feature_set: FeatureSet, first_hour: int = 0
) -> Decisions:
    """Build features and outcomes of a market from ``first_hour`` on."""
    bars = BarTable(_frames(market, setting, first_hour), HOUR, ())
    target = job.target
    (horizon,) = target.horizons
    outcomes, _ = outcome_table(bars, horizon, target.gap_tolerance, target.kind)
    table = build_features(feature_set, Sources(bars))
    panel, _ = assemble_panel(table, outcomes, target.sides, stride=target.stride, interval=HOUR)
    # decided at the open of the hour that the truth speaks of; the last has not happened
    hour = (panel.decided - np.datetime64(setting.start.replace(tzinfo=None), "us")) // (
        np.timedelta64(HOUR)
    )
    happens = hour < setting.hours
    panel, hour = panel.rows(happens), hour[happens]
    contract = np.searchsorted(SYMBOLS, panel.frame["symbol"].to_numpy(dtype=str))
    row = hour * CONTRACTS + contract
    return Decisions(panel, market.truth.rows(row), market.judged.ravel()[row])


def _frames(market: Market, setting: Setting, first_hour: int) -> dict[str, pl.DataFrame]:
    generator = np.random.default_rng(setting.hours)
    volume = np.exp(generator.normal(0.0, 0.5, market.judged.shape))
    close = 100.0 * np.exp(np.cumsum(market.moves.end, axis=0))
    opened = close * np.exp(-market.moves.end)
    high, low = opened * np.exp(market.moves.high), opened * np.exp(market.moves.low)
    times = pl.datetime_range(
        setting.start,
        setting.start + HOUR * setting.hours,
        HOUR,
        closed="left",
        time_unit="us",
        eager=True,
    )
    frames = {}
    for contract, symbol in enumerate(SYMBOLS):
        first = max(first_hour, int(market.listed[contract]))
        if first >= setting.hours:
            continue
        own = (slice(first, None), contract)
        frame = pl.DataFrame(
            {
                "symbol": [symbol] * (setting.hours - first),
                "ts": times[first:],
                "open": opened[own],
                # the close may lie an ulp beyond, since it is summed up from the start
                "high": np.maximum(high[own], np.maximum(opened[own], close[own])),
                "low": np.minimum(low[own], np.minimum(opened[own], close[own])),
                "close": close[own],
                "volume": volume[own],
            }
        )
        frames[symbol], _ = regular_bars(frame, symbol, HOUR)
    return frames
