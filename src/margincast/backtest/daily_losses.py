"""Losses by day: the record by which models of different jobs can be held against each other.

Responsible for keeping with every model run what a later question "which loses more, on the same
decisions" needs: for every UTC day, contract, side and level the sums that a figure is made of. Two
models were asked the same where number and mean of the outcomes agree, so neither forecasts nor
outcomes have to be kept decision by decision.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from margincast.backtest.replay import Replay
from margincast.backtest.scored import choose
from margincast.core.errors import InputError
from margincast.core.types import FloatArray, Side
from margincast.models.protocol import TailForecast
from margincast.scoring.pinball import pinball_loss

FILE = "daily_losses.parquet"
"""Its name among the artifacts of a model's run."""
KEYS = ("day", "symbol", "horizon_minutes", "side", "level")
SCHEMA = pa.schema(
    [
        ("day", pa.timestamp("us", tz="UTC")),
        ("symbol", pa.dictionary(pa.int32(), pa.string())),
        ("horizon_minutes", pa.int32()),
        ("side", pa.dictionary(pa.int32(), pa.string())),
        ("level", pa.float64()),
        ("decisions", pa.int32()),
        ("mean_outcome", pa.float64()),
        ("pinball", pa.float64()),
        ("exceedances", pa.int32()),
        ("mean_forecast", pa.float64()),
        ("mean_shortfall", pa.float64()),
    ]
)
"""One row a day of decisions (UTC), contract, horizon, side and level. ``mean_outcome``,
``mean_forecast``, ``pinball`` and ``mean_shortfall`` are means over its ``decisions``, simple
fractions of the decision price."""


class DailyLosses:
    """The scored decisions of a backtest by day, and any model's losses on them.

    Args:
        replays: forecasts and outcomes, per horizon in minutes.

    Raises:
        InputError: no decision can be scored.
    """

    def __init__(self, replays: Mapping[int, Replay]) -> None:
        self._horizons = [_ScoredDays(minutes, replay) for minutes, replay in replays.items()]

    def of(self, model: str) -> pd.DataFrame:
        """Return one model's table, columns as in ``SCHEMA``, sorted by ``KEYS``."""
        parts = [horizon.losses_of(model) for horizon in self._horizons]
        return pd.concat(parts, ignore_index=True).sort_values(list(KEYS), ignore_index=True)


class _ScoredDays:
    """The n decisions of one horizon that every model is scored on, in G days of contracts."""

    def __init__(self, minutes: int, replay: Replay) -> None:
        self._minutes, self._forecasts = minutes, replay.forecasts
        self._scored = choose(replay).scored
        panel = replay.panel.rows(self._scored)
        self._outcomes = panel.outcomes
        symbols = panel.frame["symbol"].to_numpy(dtype=str)
        names, contract = np.unique(symbols, return_inverse=True)
        days, day = np.unique(panel.decided.astype("datetime64[D]"), return_inverse=True)
        # numbered by day, then contract
        groups, self._group = np.unique(day * names.size + contract, return_inverse=True)
        self._days = days[groups // names.size]
        self._symbols = names[groups % names.size]
        self._decisions = np.bincount(self._group)

    def losses_of(self, model: str) -> pd.DataFrame:
        forecast = self._forecasts[model].rows(self._scored)
        return pd.concat(
            [
                self._series(forecast, i, side, j, level)
                for i, side in enumerate(forecast.sides)
                for j, level in enumerate(forecast.levels)
            ],
            ignore_index=True,
        )

    def _series(
        self, forecast: TailForecast, i: int, side: Side, j: int, level: float
    ) -> pd.DataFrame:
        outcome, quantile = self._outcomes[side], forecast.quantiles[:, i, j]
        beyond = outcome - quantile
        return pd.DataFrame(
            {
                "day": pd.DatetimeIndex(self._days.astype("datetime64[us]"), tz="UTC"),
                "symbol": self._symbols,
                "horizon_minutes": np.int32(self._minutes),
                "side": side,
                "level": level,
                "decisions": self._decisions.astype(np.int32),
                "mean_outcome": self._mean(outcome),
                "pinball": self._mean(pinball_loss(outcome, quantile, level)),
                "exceedances": self._sum(beyond > 0.0).astype(np.int32),
                "mean_forecast": self._mean(quantile),
                "mean_shortfall": self._mean(np.maximum(beyond, 0.0)),
            }
        )

    def _sum(self, values: "np.ndarray[tuple[int], np.dtype[np.generic]]") -> FloatArray:
        return np.bincount(self._group, weights=values).astype(np.float64)

    def _mean(self, values: FloatArray) -> FloatArray:
        return self._sum(values) / self._decisions


def write_daily_losses(path: Path, losses: pd.DataFrame) -> None:
    """Write a table of :class:`DailyLosses` as Parquet, some bytes a row."""
    columns = {
        name: losses[name].dt.tz_localize(None) if name == "day" else losses[name]
        for name in SCHEMA.names
    }
    table = pa.table({name: pa.array(column.to_numpy()) for name, column in columns.items()})
    pq.write_table(table.cast(SCHEMA), path, compression="zstd")


def read_daily_losses(path: Path) -> pd.DataFrame:
    """Read a table of :class:`DailyLosses`.

    Raises:
        InputError: not such a table.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} is no table of daily losses: {error}") from error
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise InputError(
            f"{path} is no table of daily losses: it lacks {', '.join(missing)}; a model run of "
            f"`margincast train` holds one as {FILE}"
        )
    frame: pd.DataFrame = table.select(SCHEMA.names).to_pandas()
    return frame.astype({"symbol": str, "side": str})
