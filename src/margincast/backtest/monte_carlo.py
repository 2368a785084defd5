"""Monte-Carlo p-values: the law of a statistic under correct forecasts of this very sample size.

Exceedances of a correct forecast are independent with probability 1 - level once outcomes do not
overlap; everything a test of exceedances can see follows from that. One set of simulated sequences
serves all tests and all contracts of the same sample size and level.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from margincast.backtest.verdicts import NAN
from margincast.core.types import BoolArray, FloatArray

HitStatistic = Callable[[BoolArray], FloatArray]
"""From sequences of exceedances, shape (replications, T), to statistics, shape (replications,)."""


def rank_p_value(observed: float, simulated: FloatArray, generator: np.random.Generator) -> float:
    """Return the exact Monte-Carlo p-value of a statistic that is large when forecasts are wrong.

    ``(1 + number at least as large) / (1 + simulated)``, ties broken at random: exact for any
    number of simulations, also for statistics with few different values. Simulated statistics that
    do not exist (NaN) count as smaller than all others.

    Args:
        observed: the statistic; NaN gives NaN.
        simulated: the same statistic of simulated correct forecasts, shape (replications,).
        generator: breaks ties.

    Source: Dufour (2006), doi:10.1016/j.jeconom.2005.06.007.
    """
    if np.isnan(observed):
        return NAN
    larger = int(np.count_nonzero(simulated > observed))
    ties = int(np.count_nonzero(simulated == observed))
    above = larger + int(generator.integers(0, ties + 1))
    return (1 + above) / (1 + simulated.size)


@dataclass
class SimulatedExceedances:
    """Sequences of exceedances of correct forecasts, and the statistics already taken of them.

    Attributes:
        replications: simulated sequences; 999 makes 0.001 the smallest p-value.
        seed: of all that is drawn.
    """

    replications: int = 999
    seed: int = 1
    _sequences: dict[tuple[int, float], BoolArray] = field(default_factory=dict, repr=False)
    _statistics: dict[tuple[str, int, float], FloatArray] = field(default_factory=dict, repr=False)

    def sequences(self, sample_size: int, level: float) -> BoolArray:
        """Return simulated exceedances, shape (replications, sample_size)."""
        key = (sample_size, level)
        if key not in self._sequences:
            generator = np.random.default_rng((self.seed, sample_size, round(level * 1_000_000)))
            draws = generator.random((self.replications, sample_size), dtype=np.float32)
            self._sequences = {key: draws < np.float32(1.0 - level)}  # the last one: they are large
        return self._sequences[key]

    def p_value(self, name: str, statistic: HitStatistic, hits: BoolArray, level: float) -> float:
        """Return the Monte-Carlo p-value of a sample's statistic; simulations are made once.

        Ties are broken by the sample itself: the same sample gives the same p-value, and different
        ones do not share their luck.

        Args:
            name: of the test and whatever its statistic hangs on beside the exceedances.
            statistic: large when forecasts are wrong.
            hits: the sample, shape (T,).
            level: share not exceeded.
        """
        key = (name, hits.size, level)
        if key not in self._statistics:
            self._statistics[key] = statistic(self.sequences(hits.size, level))
        observed = float(statistic(hits[np.newaxis, :])[0])
        generator = np.random.default_rng((self.seed, luck_of(hits)))
        return rank_p_value(observed, self._statistics[key], generator)


def luck_of(sample: BoolArray | FloatArray) -> int:
    """Return a number that hangs on a sample alone, to seed what breaks its ties."""
    return zlib.crc32(np.ascontiguousarray(sample).tobytes())
