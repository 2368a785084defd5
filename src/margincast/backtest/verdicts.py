"""What a statistical test of a margin says, and when it may say it.

Responsible for one shape of answer for all tests of quantile and expected-shortfall forecasts:
statistic, law, p-values, and a verdict that is "no power" where a sample cannot tell.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from scipy import special

from margincast.core.errors import InputError

Verdict = Literal["pass", "fail", "no power"]
NAN = float("nan")


@dataclass(frozen=True)
class Criterion:
    """When a test fails, and when it may not be called passed.

    Attributes:
        significance: a smaller p-value fails; 0.05 is the convention of every test's source.
        detectable_ratio: the under-margining a sample must be able to show, as an exceedance
            ratio: by default half as many exceedances again as promised.
        minimum_power: the least probability of showing it; 0.8 is customary (Cohen 1988,
            ISBN 9780805802832, chapter 2).

    Raises:
        InputError: significance or minimum power outside (0, 1), or a ratio not above 1.
    """

    significance: float = 0.05
    detectable_ratio: float = 1.5
    minimum_power: float = 0.8

    def __post_init__(self) -> None:
        for name in ("significance", "minimum_power"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise InputError(f"{name} must lie strictly between 0 and 1, found {value:g}")
        if not self.detectable_ratio > 1.0:
            raise InputError(
                "detectable_ratio must be above 1, which is exact coverage, "
                f"found {self.detectable_ratio:g}"
            )


USUAL = Criterion()


@dataclass(frozen=True)
class TestResult:
    """What one test says of one sequence of forecasts and outcomes.

    Attributes:
        name: the test.
        statistic: by the test's own definition; NaN where it does not exist.
        degrees_of_freedom: of the chi-squared law behind the p-value; 0 for another or exact law.
        p_value: asymptotic, or exact where the test says so: the probability of at least this much
            under correct forecasts; NaN where the statistic does not exist.
        monte_carlo_p_value: the same under simulated correct forecasts of this very sample size;
            NaN unless asked for.
        sample_size: number of decisions.
        exceedances: number of exceedances among them.
        verdict: "fail" when the p-value (the Monte-Carlo one if there is one) is below the
            significance; "no power" when the test could not have told; else "pass".
        reason: why there is no statistic, or no power; empty otherwise.
    """

    # Keeps pytest, which collects classes by this name, from taking it for a test.
    __test__: ClassVar[bool] = False

    name: str
    statistic: float
    degrees_of_freedom: int
    p_value: float
    monte_carlo_p_value: float
    sample_size: int
    exceedances: int
    verdict: Verdict
    reason: str = ""


def conclude(
    name: str,
    statistic: float,
    p_value: float,
    *,
    degrees_of_freedom: int = 0,
    monte_carlo_p_value: float = NAN,
    sample_size: int,
    exceedances: int,
    criterion: Criterion = USUAL,
    powerless: str = "",
) -> TestResult:
    """Make the result of a test whose statistic exists.

    Args:
        name: see :class:`TestResult`, as the other arguments of the same name.
        statistic: see there.
        p_value: see there.
        degrees_of_freedom: see there.
        monte_carlo_p_value: see there; decides where it is known.
        sample_size: see there.
        exceedances: see there.
        criterion: what fails.
        powerless: why the test could not have told; a failure stands nevertheless.
    """
    decisive = p_value if math.isnan(monte_carlo_p_value) else monte_carlo_p_value
    if math.isnan(decisive) and not powerless:
        powerless = "the p-value is not known"
    verdict: Verdict = "no power" if powerless else "pass"
    if decisive < criterion.significance:
        verdict = "fail"
    return TestResult(
        name,
        statistic,
        degrees_of_freedom,
        p_value,
        monte_carlo_p_value,
        sample_size,
        exceedances,
        verdict,
        powerless if verdict == "no power" else "",
    )


def undefined(name: str, reason: str, *, sample_size: int, exceedances: int) -> TestResult:
    """Make the result of a test whose statistic does not exist for this sample."""
    return TestResult(name, NAN, 0, NAN, NAN, sample_size, exceedances, "no power", reason)


def chi_squared_p(statistic: float, degrees_of_freedom: int) -> float:
    """Return the upper tail of the chi-squared law."""
    return float(special.chdtrc(degrees_of_freedom, statistic))
