"""Power: what a sample of this size could have shown, before anybody reads its p-values.

Responsible for the sentence next to every coverage verdict: which under-margining the test would
have seen, and which it cannot. At 8 h, two years of one contract cannot tell 1.5 times the promised
exceedances from 1 at 0.99, and nothing of that length can at 0.999.
"""

import math
from dataclasses import dataclass, replace

from scipy import optimize

from margincast.backtest.var_tests.proportion import coverage_power
from margincast.backtest.verdicts import USUAL, Criterion


@dataclass(frozen=True)
class Power:
    """What the exact one-sided binomial test of one sample can show.

    Attributes:
        sample_size: decisions whose outcomes do not overlap.
        level: share not exceeded.
        expected_exceedances: under a correct forecast.
        power: probability of rejecting when the criterion's ratio is the truth.
        smallest_detectable: least true exceedance ratio that is seen with the criterion's power;
            infinite where even a margin that is always exceeded would not be.
        enough: whether ``power`` reaches the criterion's.
    """

    sample_size: int
    level: float
    expected_exceedances: float
    power: float
    smallest_detectable: float
    enough: bool

    def sentence(self, criterion: Criterion = USUAL) -> str:
        """Say it in words."""
        sample = f"{self.sample_size:,} decisions at {self.level:g}"
        if self.enough:
            return (
                f"{sample} show {criterion.detectable_ratio:g}x with probability {self.power:.2f}"
            )
        least = "nothing"
        if not math.isinf(self.smallest_detectable):
            least = f"only {self.smallest_detectable:.1f}x and more"
        return (
            f"{sample} cannot tell {criterion.detectable_ratio:g}x from 1x "
            f"(power {self.power:.2f}); {least} would be seen"
        )


def power_of(sample_size: int, level: float, criterion: Criterion = USUAL) -> Power:
    """Return what a sample can show.

    Args:
        sample_size: decisions of one series whose outcomes do not overlap, or the number of
            independent decisions a panel is worth.
        level: share not exceeded, in (0.5, 1).
        criterion: significance, ratio and power asked for.

    Raises:
        InputError: as :func:`~margincast.backtest.var_tests.proportion.coverage_power`.
    """
    power = coverage_power(sample_size, level, criterion)
    return Power(
        sample_size,
        level,
        sample_size * (1.0 - level),
        power,
        smallest_detectable_ratio(sample_size, level, criterion),
        power >= criterion.minimum_power,
    )


def smallest_detectable_ratio(
    sample_size: int, level: float, criterion: Criterion = USUAL
) -> float:
    """Return the least true exceedance ratio seen with the criterion's power, to three digits.

    Args and errors as :func:`power_of`.

    >>> round(smallest_detectable_ratio(2190, 0.99), 1)
    1.6
    """
    largest = 1.0 / (1.0 - level)

    def missing(ratio: float) -> float:
        own = replace(criterion, detectable_ratio=ratio)
        return coverage_power(sample_size, level, own) - criterion.minimum_power

    if missing(largest * (1.0 - 1e-9)) < 0.0:
        return math.inf
    just_above = 1.0 + 1e-9
    if missing(just_above) >= 0.0:
        return 1.0
    return float(optimize.brentq(missing, just_above, largest * (1.0 - 1e-9), rtol=1e-4))
