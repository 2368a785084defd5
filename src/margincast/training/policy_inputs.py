"""What a policy is fed with: the forecasts that margin each side, and long-run rates.

Responsible for reading both off panels and forecasts, the same for a backtest and for the margins
of tonight.
"""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np

from margincast.core.types import SIDES, FloatArray, Side, Times
from margincast.data.bars import BarTable
from margincast.margin.reference import Outcomes, References, reference_rates
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.serving import MarginPolicy
from margincast.training.targets import outcome_table


def references_of(
    history: Panel,
    symbols: Sequence[str],
    sides: Sequence[Side],
    moments: Times,
    policy: MarginPolicy,
) -> References | None:
    """Return rates that hold from the first of some moments and from the start of every month.

    Args:
        history: outcomes, sorted by time.
        symbols: contracts; rows are sides x contracts.
        sides: of the rows.
        moments: increasing.
        policy: says how far back to look; None is returned where it does not.
    """
    if policy.long_run is None:
        return None
    names = history.frame["symbol"].to_numpy(dtype=str)
    months = np.unique(moments.astype("datetime64[M]")).astype("datetime64[us]")
    # what was known when the first margin was published serves the part of its month
    months = np.unique(np.maximum(months, moments[0]))
    per_contract = {symbol: np.flatnonzero(names == symbol) for symbol in symbols}
    own = [
        Outcomes(side, history.decided[rows], history.label_end[rows], history.outcomes[side][rows])
        for side in sides
        for rows in per_contract.values()
    ]
    return reference_rates(
        own,
        months,
        level=policy.model.level,
        window=policy.long_run.window,
        period=None if policy.stress is None else policy.stress.period,
        minimum_history=policy.long_run.minimum_history,
    )


def wanted_of(forecast: TailForecast, sides: Sequence[Side], policy: MarginPolicy) -> FloatArray:
    """Return the forecast that margins each side, shape (S, n); NaN where there is none.

    Args:
        forecast: of n decisions, with the policy's level.
        sides: S of them.
        policy: says whether a side takes its own forecast or the larger of both.
    """
    column = forecast.levels.index(policy.model.level)
    by_side = {side: forecast.quantiles[:, i, column] for i, side in enumerate(forecast.sides)}
    unknown = np.full(len(forecast.quantiles), np.nan)
    wanted = np.stack([by_side.get(side, unknown) for side in sides])
    if policy.forecast.sides != "larger":
        return wanted
    # the larger of both stands only where both could be used
    both = np.stack([by_side.get(side, unknown) for side in SIDES])
    good = (both > 0.0) & (both <= policy.forecast.largest_plausible)
    larger = np.where(good.all(axis=0), both.max(axis=0), np.nan)
    return np.broadcast_to(larger, wanted.shape)


def history_of(bars: BarTable, horizon: timedelta) -> Panel:
    """Return the outcomes of every bar close of every contract, in order of time.

    Args:
        bars: regular bars.
        horizon: a whole number of them.
    """
    found = outcome_table(bars, horizon, timedelta(0), "path")[0].sort("ts", "symbol")
    outcomes: dict[Side, FloatArray] = {side: found[f"outcome_{side}"].to_numpy() for side in SIDES}
    frame = found.select("symbol", "ts").to_pandas()
    return Panel(
        frame,
        {},
        outcomes,
        found["log_range"].to_numpy(),
        found["label_end"].dt.replace_time_zone(None).to_numpy().astype("datetime64[us]"),
    )
