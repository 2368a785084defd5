"""Margin schedules in a cascade: margin as a function of time, or of the price it helps to make.

Responsible for the margin side of the feedback: a schedule sees the prices so far and the margins
it has set, nothing else, and says what is in force next.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray

MarginSchedule = Callable[[FloatArray, FloatArray], float]
"""From mark prices up to now, shape (k + 1,), and margins so far, shape (k,), to the maintenance
margin rate now, in (0, 1)."""


@dataclass(frozen=True)
class ConstantMargin:
    """The same margin whatever happens."""

    mmr: float

    def __call__(self, prices: FloatArray, margins: FloatArray) -> float:  # noqa: ARG002 (a schedule)
        """Return the margin."""
        return self.mmr


@dataclass(frozen=True, eq=False)
class MarginByTime:
    """A margin given step by step, for example as it was published; shape (steps,)."""

    mmr: FloatArray

    def __call__(self, prices: FloatArray, margins: FloatArray) -> float:
        """Return the margin of the present step.

        Raises:
            InputError: the path is longer than the schedule.
        """
        if len(margins) >= len(self.mmr):
            raise InputError(
                f"the schedule has {len(self.mmr)} margins and the path {len(prices)} or more steps"
            )
        return float(self.mmr[len(margins)])


@dataclass(frozen=True)
class VolatilityMargin:
    """A margin that follows the volatility of the prices it helps to make.

    ``multiple * sigma * sqrt(horizon_steps)`` between floor and cap, with sigma the exponentially
    weighted root mean square of log returns, started at ``calm_volatility``.

    Attributes:
        multiple: standard deviations covered.
        horizon_steps: liquidation horizon, steps.
        calm_volatility: per square root of a step, before the path begins.
        half_life_steps: in which a return loses half its weight.
        floor: least margin.
        cap: largest margin.
        largest_rise: speed limit, relative rise a step; infinite: none.

    Raises:
        InputError: a value out of range.
    """

    multiple: float
    horizon_steps: float
    calm_volatility: float
    half_life_steps: float
    floor: float
    cap: float
    largest_rise: float = np.inf

    def __post_init__(self) -> None:
        for name in ("multiple", "horizon_steps", "calm_volatility", "half_life_steps"):
            value = getattr(self, name)
            if not 0.0 < value < np.inf:
                raise InputError(f"{name} of the schedule must be positive, found {value:g}")
        if not 0.0 < self.floor <= self.cap < 1.0:
            raise InputError(
                f"floor and cap must lie in (0, 1) and in this order, found {self.floor:g} and "
                f"{self.cap:g}"
            )
        if not self.largest_rise >= 0.0:
            raise InputError(f"largest_rise must be zero or more, found {self.largest_rise:g}")

    def __call__(self, prices: FloatArray, margins: FloatArray) -> float:
        """Return the margin of the present step."""
        returns = np.diff(np.log(prices))
        keep = 0.5 ** (1.0 / self.half_life_steps)
        weights = (1.0 - keep) * keep ** np.arange(len(returns) - 1, -1, -1)
        variance = keep ** len(returns) * self.calm_volatility**2 + float(weights @ returns**2)
        needed = self.multiple * np.sqrt(variance * self.horizon_steps)
        margin = min(max(float(needed), self.floor), self.cap)
        if margins.size:
            margin = min(margin, float(margins[-1]) * (1.0 + self.largest_rise))
        return margin
