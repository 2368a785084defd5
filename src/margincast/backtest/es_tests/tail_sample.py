"""One series of outcomes with its forecasts of quantile and expected shortfall, checked.

Responsible for what every test of expected shortfall reads: who exceeded the margin, and how far in
units of what was promised.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from margincast.backtest.var_tests.forecast_series import require_series
from margincast.backtest.verdicts import TestResult, undefined
from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_finite

NO_EXCEEDANCE = "no outcome exceeded its forecast, so no loss beyond it can be judged"
NEVER_BELOW = "every outcome exceeded its forecast; the quantile is wrong, test it first"


@dataclass(frozen=True)
class TailSample:
    """T decisions of one contract, side and horizon in time order; outcomes do not overlap.

    Attributes:
        outcome: realised adverse excursions, positive losses, simple fractions, shape (T,).
        forecast: quantile forecasts, the same shape.
        expected_shortfall: forecasts of the mean outcome beyond the true quantile, the same shape.
        level: share not exceeded, in (0.5, 1).
    """

    outcome: FloatArray
    forecast: FloatArray
    expected_shortfall: FloatArray
    level: float

    @property
    def sample_size(self) -> int:
        """Number of decisions T."""
        return self.outcome.size

    @property
    def tail(self) -> float:
        """Promised probability of an exceedance, 1 - level."""
        return 1.0 - self.level

    @cached_property
    def hits(self) -> npt.NDArray[np.intp]:
        """Positions of the exceedances, outcome > forecast."""
        return np.flatnonzero(self.outcome > self.forecast)

    @cached_property
    def spread(self) -> FloatArray:
        """Promised mean excess over the forecast, expected shortfall - forecast, shape (T,)."""
        return self.expected_shortfall - self.forecast

    @cached_property
    def unit_excess(self) -> FloatArray:
        """Excess of each exceedance over its forecast in units of the promised mean, shape (n,).

        Infinite where an expected shortfall equal to its forecast promises nothing beyond it.
        """
        with np.errstate(divide="ignore"):
            return (self.outcome - self.forecast)[self.hits] / self.spread[self.hits]

    def undefined(self, name: str, reason: str) -> TestResult:
        """Make the result of a test whose statistic does not exist for this sample."""
        return undefined(name, reason, sample_size=self.sample_size, exceedances=self.hits.size)


def tail_sample(
    outcome: FloatArray, forecast: FloatArray, expected_shortfall: FloatArray, level: float
) -> TailSample:
    """Check one series.

    Args:
        outcome: see :class:`TailSample`, as the other arguments.
        forecast: see there.
        expected_shortfall: see there.
        level: see there.

    Raises:
        InputError: level outside (0.5, 1); shapes differ or are not (T,); empty, NaN, infinite or
            in per cent; an expected shortfall that is not positive or lies below its forecast.
    """
    outcome, forecast, level = require_series(outcome, forecast, level)
    shortfall = require_finite(expected_shortfall, "expected_shortfall")
    if shortfall.shape != forecast.shape:
        raise InputError(
            f"expected_shortfall has shape {shortfall.shape} and forecast {forecast.shape}; "
            "they must pair one to one"
        )
    unusable = (shortfall <= 0.0) | (shortfall < forecast)
    if unusable.any():
        raise InputError(
            f"{int(unusable.sum())} of {shortfall.size} expected shortfalls are not positive or "
            f"lie below their forecast, the first in row {int(np.flatnonzero(unusable)[0])}; "
            "expected shortfall is a positive loss at least as large as the quantile "
            "(returns-side forecasts must change sign)"
        )
    return TailSample(outcome, forecast, shortfall, level)


def positive_scale(sample: TailSample, scale: FloatArray) -> FloatArray:
    """Return volatility forecasts if they are positive and pair with the sample.

    Raises:
        InputError: they are not, or hold NaN or infinite values.
    """
    divisor = require_finite(scale, "scale")
    if divisor.shape != sample.forecast.shape or not (divisor > 0.0).all():
        raise InputError(
            f"scale must be positive and of shape {sample.forecast.shape}, found shape "
            f"{divisor.shape} and a smallest value of {float(divisor.min()):g}"
        )
    return divisor
