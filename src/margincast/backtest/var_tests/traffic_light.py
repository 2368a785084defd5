"""The Basel traffic light: which zone a margin's exceedance count falls into.

Responsible for the zone of a count and for the capital multipliers that supervisors attach to it.
"""

from dataclasses import dataclass
from typing import Literal

from scipy import stats

from margincast.backtest.var_tests.judgement import require_counts

Zone = Literal["green", "yellow", "red"]

YELLOW_PROBABILITY = 0.95
RED_PROBABILITY = 0.9999
"""Zone limits on P(X <= count): Basel Committee (1996), Supervisory framework for the use of
"backtesting" in conjunction with the internal models approach, section III."""

_PLUS_FACTOR_1996 = {5: 0.40, 6: 0.50, 7: 0.65, 8: 0.75, 9: 0.85}
_MULTIPLIER_MAR99 = {5: 1.70, 6: 1.76, 7: 1.83, 8: 1.88, 9: 1.92}


@dataclass(frozen=True)
class TrafficLight:
    """The zone of an exceedance count, with the probabilities and limits that decide it.

    ``cumulative_probability`` is P(X <= count), ``tail_probability`` is P(X >= count), which is the
    type I column of the Basel table; yellow and red begin at ``yellow_from`` and ``red_from``.
    """

    zone: Zone
    cumulative_probability: float
    tail_probability: float
    yellow_from: int
    red_from: int


def traffic_light(exceedance_count: int, sample_size: int, level: float) -> TrafficLight:
    """Return the Basel zone of an exceedance count, for any sample size and level.

    Yellow begins at the first count with P(X <= count) >= 0.95, red at the first with >= 0.9999:
    5 and 10 exceedances for 250 decisions at 0.99. Where even no exceedance reaches a limit (very
    short samples at extreme levels) the zone begins at 1: no exceedance is never held against a
    margin. The zone is a rule, not a test: it has no significance and no power to state.

    Raises:
        InputError: a count outside 0..T, T below 1, or level outside (0.5, 1).

    Source: Basel Committee (1996), table 2; Basel Framework, MAR99.
    """
    level = require_counts(exceedance_count, sample_size, level)
    law = stats.binom(sample_size, 1.0 - level)
    yellow_from = max(1, int(law.ppf(YELLOW_PROBABILITY)))
    red_from = max(1, int(law.ppf(RED_PROBABILITY)))
    zone: Zone = "green"
    if exceedance_count >= red_from:
        zone = "red"
    elif exceedance_count >= yellow_from:
        zone = "yellow"
    return TrafficLight(
        zone=zone,
        cumulative_probability=float(law.cdf(exceedance_count)),
        tail_probability=float(law.sf(exceedance_count - 1)),
        yellow_from=yellow_from,
        red_from=red_from,
    )


def basel_plus_factor(exceedance_count: int) -> float:
    """Return the 1996 increase of the capital multiplier, for 250 decisions at level 0.99.

    A table, not a formula: Basel Committee (1996), table 2.
    """
    require_counts(exceedance_count, 250, 0.99)
    return 0.0 if exceedance_count < 5 else _PLUS_FACTOR_1996.get(exceedance_count, 1.0)


def basel_multiplier(exceedance_count: int) -> float:
    """Return the capital multiplier of the current Basel Framework, for 250 decisions at 0.99.

    A table, not a formula: Basel Framework, MAR99.
    """
    require_counts(exceedance_count, 250, 0.99)
    return 1.5 if exceedance_count < 5 else _MULTIPLIER_MAR99.get(exceedance_count, 2.0)
