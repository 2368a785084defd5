"""Power of tests that judge only the size of exceedances, not their number.

Responsible for "no power" next to a test of the loss beyond the margin: how many exceedances it
takes to see that they go further than promised.
"""

import math

from scipy import special

from margincast.backtest.es_tests.tail_law import TailLaw
from margincast.backtest.verdicts import Criterion


def severity_power(exceedances: int, law: TailLaw, criterion: Criterion) -> float:
    """Return the approximate power to see excesses ``detectable_ratio`` times as large as promised.

    One sided, normal approximation of the mean unit excess.
    """
    error = math.sqrt(law.variance / exceedances)
    critical = float(special.ndtri(1.0 - criterion.significance)) * error
    ratio = criterion.detectable_ratio
    return float(special.ndtr((ratio - 1.0 - critical) / (ratio * error)))


def too_few(exceedances: int, law: TailLaw, criterion: Criterion) -> str:
    """Return why this number of exceedances has no power, or an empty string."""
    power = severity_power(exceedances, law, criterion)
    if power >= criterion.minimum_power:
        return ""
    return (
        f"{exceedances} exceedances show {criterion.detectable_ratio:g} times the promised loss "
        f"beyond the forecast with probability {power:.2f} only"
    )
