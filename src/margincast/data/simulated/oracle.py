"""The oracle: the true quantile of the adverse excursion, which a forecast can at best equal.

In the simulated market the latent state at a decision time fixes the law of what follows. The
oracle draws from that law with the very function that drew the market, measures the excursions
by the bars' own convention (substep extremes on the tick grid) and reads off the quantile.
"""

import math
import sys
import zlib
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import polars as pl

from margincast.core.errors import InputError
from margincast.core.types import SIDES, FloatArray, Side
from margincast.data.simulated.contracts import ContractParameters, minute_of
from margincast.data.simulated.parameters import MarketParameters
from margincast.data.simulated.positions import PositionState
from margincast.data.simulated.process import MarketState, simulate_paths
from margincast.data.simulated.ticks import grid_ticks
from margincast.data.simulated.volatility import VolatilityState

ORACLE_COLUMNS = (
    "symbol",
    "ts",
    "horizon_minutes",
    "side",
    "level",
    "forecast",
    "expected_shortfall",
    "standard_error",
)
_SCALAR_PARTS = (
    "log_price",
    "regime",
    "slow_common",
    "fast_common",
    "slow_own",
    "fast_own",
    "common_excitation",
    "own_excitation",
    "pressure",
)
_ARRAY_PARTS = ("long_size", "long_edge", "short_size", "short_edge")
_LEAST_EXCEEDANCES = 5
_STEPS_AT_A_TIME = 2_000_000


def true_quantile(
    parameters: MarketParameters,
    state: pl.DataFrame,
    *,
    horizons_minutes: Sequence[int],
    levels: Sequence[float],
    sides: Sequence[Side] = SIDES,
    path_count: int,
    seed: int,
) -> pl.DataFrame:
    """Compute true conditional quantiles of the adverse excursion by simulation.

    The quantile is the order statistic of rank ``level * (path_count + 1)``, interpolated
    (Hyndman and Fan 1996, type 6, doi:10.1080/00031305.1996.10473566): the next excursion is
    exchangeable with the simulated ones, so it stays at or below that rank with probability
    exactly ``level`` for any number of paths. All horizons, levels and sides of a decision share
    their paths, hence are monotone in level and in horizon. Decisions are drawn independently of
    each other: one asked alone gets the same answer as within a batch. Where a contract is
    delisted within a horizon, the excursion is that of its last minutes of trading.

    Args:
        parameters: the market the state comes from.
        state: rows of ``SimulatedMarket.state``, one for each decision.
        horizons_minutes: liquidation horizons, whole minutes, at least 1.
        levels: levels strictly between 0 and 1.
        sides: sides at risk.
        path_count: Monte-Carlo paths a decision; ``(path_count + 1) * (1 - level)`` must be at
            least 5.
        seed: seed of the random numbers, zero or more; not that of the market by necessity.

    Returns:
        One row for each decision, horizon, side and level, in that order: the ``forecasts``
        columns ``symbol``, ``ts``, ``horizon_minutes``, ``side``, ``level``, ``forecast``,
        ``expected_shortfall`` (mean simulated excursion above the forecast), fractions of the
        decision price; and ``standard_error``, the Monte-Carlo standard error of ``forecast``.

    Raises:
        InputError: an argument is out of range, a column is missing, a symbol is not one of the
            market's, or its contract is delisted by then.
    """
    _require_arguments(
        state,
        horizons_minutes=horizons_minutes,
        levels=levels,
        sides=sides,
        path_count=path_count,
        seed=seed,
    )
    blocks = []
    for row in state.iter_rows(named=True):
        excursions = _excursions(
            parameters,
            row,
            horizons_minutes=horizons_minutes,
            sides=sides,
            path_count=path_count,
            seed=seed,
        )
        blocks.append(_summary(excursions, levels))
    values = np.stack(blocks) if blocks else np.empty((0, 3))
    grid = pl.DataFrame(
        [
            (horizon, side, level)
            for horizon in horizons_minutes
            for side in sides
            for level in levels
        ],
        schema={"horizon_minutes": pl.Int64, "side": pl.String, "level": pl.Float64},
        orient="row",
    )
    summary = values.reshape(-1, 3)
    return (
        state.select("symbol", "ts")
        .join(grid, how="cross", maintain_order="left_right")
        .with_columns(
            pl.Series("forecast", summary[:, 0]),
            pl.Series("expected_shortfall", summary[:, 1]),
            pl.Series("standard_error", summary[:, 2]),
        )
        .select(ORACLE_COLUMNS)
    )


def _require_arguments(
    state: pl.DataFrame,
    *,
    horizons_minutes: Sequence[int],
    levels: Sequence[float],
    sides: Sequence[Side],
    path_count: int,
    seed: int,
) -> None:
    wanted = ("symbol", "ts", *_SCALAR_PARTS, *_ARRAY_PARTS)
    missing = [name for name in wanted if name not in state.columns]
    if missing:
        raise InputError(
            f"the oracle's state lacks the columns {', '.join(missing)}; "
            "pass rows of SimulatedMarket.state"
        )
    if not horizons_minutes or min(horizons_minutes) < 1:
        raise InputError(
            f"the oracle needs horizons of at least 1 minute, found {list(horizons_minutes)}"
        )
    if not levels or not all(0.0 < level < 1.0 for level in levels):
        raise InputError(
            f"the oracle's levels must lie strictly between 0 and 1, found {list(levels)}"
        )
    if not sides or any(side not in SIDES for side in sides):
        raise InputError(f"the oracle's sides are 'long' and 'short', found {list(sides)}")
    if seed < 0:
        raise InputError(f"the oracle's seed must be zero or more, found {seed}")
    tail = 1.0 - max(levels)
    if (path_count + 1) * tail < _LEAST_EXCEEDANCES * (1.0 - 1e-9):
        needed = math.ceil(_LEAST_EXCEEDANCES / tail) - 1
        raise InputError(
            f"{path_count} paths are too few for the level {max(levels):g}; take {needed} or more"
        )


def _excursions(
    parameters: MarketParameters,
    decision: dict[str, object],
    *,
    horizons_minutes: Sequence[int],
    sides: Sequence[Side],
    path_count: int,
    seed: int,
) -> FloatArray:
    """Draw the excursions after one decision, shape (horizons * sides, paths)."""
    contract = parameters.contract(str(decision["symbol"]))
    first_minute = _minute_of(decision["ts"])
    horizons = np.minimum(horizons_minutes, _minutes_left(contract, first_minute))
    minute_count, last = int(horizons.max()), horizons - 1
    close = grid_ticks(np.asarray(decision["log_price"], float), contract)
    entropy = [seed, zlib.crc32(contract.symbol.encode()), first_minute]
    generator = np.random.default_rng(entropy)
    # Long horizons are drawn in batches of paths, so that memory does not grow with their number.
    batch = max(1, _STEPS_AT_A_TIME // (minute_count * parameters.substeps_per_minute))
    excursions = np.empty((len(last) * len(sides), path_count))
    for begin in range(0, path_count, batch):
        count = min(batch, path_count - begin)
        paths = simulate_paths(
            parameters,
            (contract,),
            _state_of(decision, count),
            first_minute=first_minute,
            minute_count=minute_count,
            generator=generator,
        )
        prices = paths.log_price[:, 0]
        lowest = np.minimum.accumulate(prices.min(axis=-1), axis=-1)[:, last]
        highest = np.maximum.accumulate(prices.max(axis=-1), axis=-1)[:, last]
        by_side = {
            "long": 1.0 - grid_ticks(lowest, contract) / close,
            "short": grid_ticks(highest, contract) / close - 1.0,
        }
        stacked = np.stack([by_side[side] for side in sides], axis=-1)
        excursions[:, begin : begin + count] = stacked.reshape(count, -1).T
    return np.maximum(0.0, excursions)


def _state_of(decision: dict[str, object], count: int) -> MarketState:
    """Return the state of a decision as the start of ``count`` paths of its contract."""
    part = {name: np.full((count, 1), decision[name], float) for name in _SCALAR_PARTS}
    size, edge = (
        np.tile(np.array([decision[f"{side}_{name}"] for side in SIDES], float), (count, 1, 1))
        for name in ("size", "edge")
    )
    return MarketState(
        part["log_price"],
        VolatilityState(
            regime=part["regime"],
            slow_common=part["slow_common"],
            fast_common=part["fast_common"],
            slow_own=part["slow_own"],
            fast_own=part["fast_own"],
        ),
        part["common_excitation"],
        part["own_excitation"],
        PositionState(part["pressure"][:, 0], size, edge),
    )


def _minute_of(ts: object) -> int:
    if not isinstance(ts, datetime) or ts.tzinfo is None:
        raise InputError(f"the oracle's ts must be times with a time zone, found {ts!r}")
    return minute_of(ts)


def _minutes_left(contract: ContractParameters, first_minute: int) -> int:
    """Return the minutes of trading left: a price that is no longer made moves against nobody."""
    if contract.delisted_at is None:
        return sys.maxsize
    left = minute_of(contract.delisted_at) - first_minute
    if left < 1:
        raise InputError(
            f"{contract.symbol} is delisted at {contract.delisted_at}, so there is no excursion "
            "after that; leave out decisions from then on"
        )
    return left


def _summary(excursions: FloatArray, levels: Sequence[float]) -> FloatArray:
    """Return quantile, expected shortfall and standard error, shape (rows, levels, 3)."""
    path_count = excursions.shape[1]
    level = np.asarray(levels)
    # The rank of the true quantile among the paths is binomial: one standard deviation of it on
    # either side gives the quantile's own, whatever the density there.
    rank_deviation = np.sqrt(level * (1.0 - level) / path_count)
    around = np.concatenate(
        [level, np.maximum(0.0, level - rank_deviation), np.minimum(1.0, level + rank_deviation)]
    )
    quantile, below, above = np.split(
        np.quantile(excursions, around, axis=1, method="weibull"), 3, axis=0
    )
    summary = np.empty((len(excursions), len(level), 3))
    summary[..., 0] = quantile.T
    for row, column in np.ndindex(summary.shape[:2]):
        beyond = excursions[row][excursions[row] > quantile[column, row]]
        summary[row, column, 1] = beyond.mean() if beyond.size else quantile[column, row]
    summary[..., 2] = (0.5 * (above - below)).T
    return summary
