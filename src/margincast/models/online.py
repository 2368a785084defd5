"""Online calibration: coverage that stays true while the market drifts between refits.

Quantile tracking (Gibbs and Candes 2021, arXiv:2106.00170; conformal PID, Angelopoulos et al. 2023,
arXiv:2307.16895), in logarithms: after an outcome the log of the forecast moves by rate x
(exceeded - (1 - level)), up by much when it was exceeded and down by little when it was not. Its
fixed point is the stated coverage, whatever the market does. Two clocks run side by side:
everybody's correction, from the share of contracts exceeded at one time, and each contract's own.
Both are slow: fast ones cost more pinball loss than the coverage they repair.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.types import BoolArray, FloatArray

YEAR = np.timedelta64(365 * 24 * 3600 * 1_000_000, "us")


@dataclass(frozen=True)
class QuantileTracking:
    """Rates and bound of the correction.

    Attributes:
        everybody_rate: log units a year for exceedances that are certain, side by side.
        contract_rate: the same for a contract's own correction, both sides together.
        lowest: no forecast is lowered below this share of itself: should a model go without refit
            through years of calm, its margin does not melt away.
    """

    everybody_rate: float
    contract_rate: float
    lowest: float

    def corrections(
        self,
        scores: FloatArray,
        contract: npt.NDArray[np.object_],
        decided: npt.NDArray[np.datetime64],
        label_end: npt.NDArray[np.datetime64],
        *,
        levels: tuple[float, ...],
        overlap: float,
    ) -> FloatArray:
        """Return the log correction of every decision, from what was known at its time.

        An outcome counts from its ``label_end`` on, at the first decision not before it. The
        correction starts at 0.

        Args:
            scores: outcome / forecast, shape (n, sides, levels); NaN where there is no outcome.
            contract: contract of each row, shape (n,).
            decided: decision times, shape (n,), sorted.
            label_end: times at which outcomes became known, shape (n,).
            levels: levels of the forecasts.
            overlap: decisions of a contract that share one horizon.

        Returns:
            Shape (n, sides, levels).
        """
        times, start = np.unique(decided, return_index=True)
        stop = np.append(start[1:], len(decided))
        codes, names = pd.factorize(contract)
        with np.errstate(divide="ignore"):
            logs = np.log(scores)
        known: BoolArray = np.asarray(np.isfinite(scores).all(axis=(1, 2)))
        # rows decided together mature together: their horizon is one
        ready = np.maximum.reduceat(np.where(known, label_end, _NEVER), start)
        # decisions that share a horizon repeat each other: each carries its share of a year
        share = (ready - times) / YEAR / overlap
        standing = Standing(self, levels, scores.shape[1], len(names))
        result = np.empty_like(scores)
        used = 0
        for k, time in enumerate(times):
            while used < k and ready[used] <= time:
                rows = np.arange(start[used], stop[used])[known[start[used] : stop[used]]]
                if len(rows):
                    standing.learn(codes[rows], logs[rows], result[rows], float(share[used]))
                used += 1
            now = slice(start[k], stop[k])
            result[now] = standing.corrections(codes[now])
        return result


class Standing:
    """The correction as it stands: what :class:`QuantileTracking` has learnt so far.

    Args:
        tracking: rates and bound.
        levels: L levels of the forecasts.
        sides: number of sides, S.
        contracts: number of contracts, C; it may grow.
    """

    def __init__(
        self, tracking: QuantileTracking, levels: tuple[float, ...], sides: int, contracts: int
    ) -> None:
        self._tracking = tracking
        self._tail = 1.0 - np.array(levels)
        self._floor = np.log(tracking.lowest)
        self._everybody = np.zeros((sides, len(levels)))
        self._own = np.zeros((contracts, len(levels)))

    def learn(
        self, contract: npt.NDArray[np.intp], logs: FloatArray, made: FloatArray, share: float
    ) -> None:
        """Learn from outcomes that became known together.

        Args:
            contract: number of each row's contract, shape (n,).
            logs: log(outcome / forecast), shape (n, S, L).
            made: corrections that were made of these forecasts, shape (n, S, L).
            share: of a year that the decision stands for.
        """
        tracking = self._tracking
        surprise = (logs > made) - self._tail
        self._everybody += tracking.everybody_rate * share * surprise.mean(axis=0)
        self._own[contract] += tracking.contract_rate * share * surprise.mean(axis=1)

    def corrections(self, contract: npt.NDArray[np.intp]) -> FloatArray:
        """Return the log correction of rows, by the number of their contract; shape (n, S, L)."""
        more = int(contract.max(initial=-1)) + 1 - len(self._own)
        if more > 0:
            self._own = np.concatenate([self._own, np.zeros((more, self._own.shape[1]))])
        return np.maximum(self._everybody[None] + self._own[contract][:, None, :], self._floor)


_NEVER = np.datetime64("1970-01-01", "us")
