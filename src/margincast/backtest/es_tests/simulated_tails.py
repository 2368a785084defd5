"""Simulated exceedances of correct margins and how far they go: Monte-Carlo p-values beyond counts.

Responsible for the null law of every test of expected shortfall at its very sample size: an
exceedance is independent of all else with probability 1 - level, and its unit excess follows a
:class:`~margincast.backtest.es_tests.tail_law.TailLaw`. Only exceedances are kept, a hundredth of
the decisions at 0.99, and one set serves all tests and contracts of a sample size and level.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from margincast.backtest.es_tests.tail_law import TailLaw
from margincast.backtest.monte_carlo import rank_p_value
from margincast.core.types import FloatArray

IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class TailDraws:
    """Exceedances of R simulated series of T decisions, N in all, in order of series and time.

    Attributes:
        replications: R.
        sample_size: T.
        series: number of the series of each exceedance, 0 to R - 1, shape (N,).
        position: its decision, 0 to T - 1, shape (N,).
        share: share of exceedances that go further, uniform in (0, 1], shape (N,).
        counts: exceedances of each series, shape (R,).
    """

    replications: int
    sample_size: int
    series: IndexArray
    position: IndexArray
    share: FloatArray
    counts: FloatArray

    def total(self, values: FloatArray) -> FloatArray:
        """Add up the exceedances' values, shape (N,), within series; shape (R,)."""
        sums = np.bincount(self.series, weights=values, minlength=self.replications)
        return np.asarray(sums, dtype=np.float64)


PathFreeStatistic = Callable[[TailDraws], FloatArray]
"""From draws to statistics, shape (R,), that hang on no forecast."""


@dataclass
class SimulatedTails:
    """Draws and what was already computed of them; those of the last sample size are kept.

    Attributes:
        replications: simulated series; 999 makes 0.001 the smallest p-value.
        seed: of all that is drawn.
    """

    replications: int = 999
    seed: int = 1
    _sample_size: int = field(default=0, repr=False)
    _draws: dict[float, TailDraws] = field(default_factory=dict, repr=False)
    _excesses: dict[tuple[float, TailLaw], FloatArray] = field(default_factory=dict, repr=False)
    _statistics: dict[tuple[str, int, float], FloatArray] = field(default_factory=dict, repr=False)

    def draws(self, sample_size: int, level: float) -> TailDraws:
        """Return simulated exceedances of a sample size and level."""
        if sample_size != self._sample_size:  # they are large
            self._draws, self._excesses = {}, {}
            self._sample_size = sample_size
        if level not in self._draws:
            self._draws[level] = _draw(
                self._generator(sample_size, level), self.replications, sample_size, level
            )
        return self._draws[level]

    def excesses(self, sample_size: int, level: float, law: TailLaw) -> FloatArray:
        """Return the unit excesses of the draws, shape (N,)."""
        draws = self.draws(sample_size, level)
        if (level, law) not in self._excesses:
            self._excesses[level, law] = law.excess(draws.share)
        return self._excesses[level, law]

    def p_value(
        self,
        name: str,
        statistic: PathFreeStatistic,
        observed: float,
        sample_size: int,
        level: float,
    ) -> float:
        """Return the Monte-Carlo p-value of a statistic that hangs on no forecast; taken once.

        Args:
            name: of the test and whatever its statistic hangs on beside the draws.
            statistic: large when forecasts are wrong.
            observed: its value for the sample.
            sample_size: decisions T.
            level: share not exceeded.
        """
        key = (name, sample_size, level)
        if key not in self._statistics:
            self._statistics[key] = statistic(self.draws(sample_size, level))
        return self.rank(observed, self._statistics[key], sample_size, level)

    def rank(self, observed: float, simulated: FloatArray, sample_size: int, level: float) -> float:
        """Return the exact Monte-Carlo p-value; see :func:`rank_p_value`."""
        return rank_p_value(observed, simulated, self._generator(sample_size, level))

    def _generator(self, sample_size: int, level: float) -> np.random.Generator:
        return np.random.default_rng((self.seed, sample_size, round(level * 1_000_000)))


def _draw(
    generator: np.random.Generator, replications: int, sample_size: int, level: float
) -> TailDraws:
    """Draw all series end to end by the gaps between exceedances, which are geometric."""
    length = replications * sample_size
    tail = 1.0 - level
    expected = length * tail
    block = int(expected + 6.0 * np.sqrt(expected)) + 10
    gaps = generator.geometric(tail, size=block)
    while gaps.sum() <= length:
        gaps = np.concatenate([gaps, generator.geometric(tail, size=block)])
    position = np.cumsum(gaps) - 1
    position = position[position < length]
    series, position = np.divmod(position, sample_size)
    return TailDraws(
        replications,
        sample_size,
        series,
        position,
        1.0 - generator.random(series.size),
        np.bincount(series, minlength=replications).astype(np.float64),
    )
