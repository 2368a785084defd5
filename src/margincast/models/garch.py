"""GARCH: tomorrow's variance from today's return, the textbook answer to clustered volatility.

Parameters of GARCH(1,1) (Bollerslev 1986, doi:10.1016/0304-4076(86)90063-1) and of its asymmetric
form (Glosten, Jagannathan and Runkle 1993, doi:10.1111/j.1540-6261.1993.tb05128.x) with Student-t
innovations are estimated by ``arch``; filtering and forecasting with them is done here, because a
margin is due long after the estimation. With e = return - mean the variance of the next step is

    omega + (alpha + gamma 1{e < 0}) e^2 + beta variance.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from margincast.core.types import FloatArray

HOURS_PER_DAY = 24
MICROSECONDS_PER_HOUR = 3_600_000_000

DIURNAL_PRIOR_DAYS = 30
"""Days of a flat rhythm with which the measured one is averaged: two days show regimes, not hours.
"""


@dataclass(frozen=True)
class GarchParameters:
    """Parameters in the unit of the returns they are used with.

    Attributes:
        mean: mean return of a step.
        omega: constant of the variance.
        alpha: weight of the squared return.
        gamma: further weight of a squared fall (0: symmetric).
        beta: weight of the step's variance.
        degrees_of_freedom: of the Student-t innovations, which have unit variance.
    """

    mean: float
    omega: float
    alpha: float
    gamma: float
    beta: float
    degrees_of_freedom: float

    @property
    def persistence(self) -> float:
        """Share of a variance shock that is left a step later."""
        return self.alpha + self.gamma / 2 + self.beta

    def rescaled(self, factor: float) -> "GarchParameters":
        """Return the parameters of the same returns times ``factor``."""
        return GarchParameters(
            self.mean * factor,
            self.omega * factor**2,
            self.alpha,
            self.gamma,
            self.beta,
            self.degrees_of_freedom,
        )

    def averaged(self, other: "GarchParameters", trust: float) -> "GarchParameters":
        """Return trust x these + (1 - trust) x others: its persistence lies between theirs."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return GarchParameters(*(trust * mine + (1 - trust) * theirs for mine, theirs in pairs))


@dataclass(frozen=True)
class GarchEstimate:
    """A maximum likelihood fit.

    Attributes:
        parameters: where the search stopped.
        log_likelihood: there, of all returns, constants included.
        converged: whether the search says that this is the maximum.
    """

    parameters: GarchParameters
    log_likelihood: float
    converged: bool


def estimate_garch(returns: FloatArray, *, asymmetric: bool) -> GarchEstimate:
    """Estimate by maximum likelihood with ``arch`` (constant mean, Student-t innovations).

    The recursion starts, as ``arch`` has it, from an exponentially weighted mean of the first
    squares; persistence is held at or below 1.

    Args:
        returns: log returns of equally long steps, shape (n,), not all equal.
        asymmetric: whether a fall may weigh differently from a rise (GJR).
    """
    # here, because serving a saved model needs no estimator and arch takes seconds to import
    from arch.univariate import arch_model  # noqa: PLC0415 (see above)

    # in units of their own deviation, so that a contract ten times as wild has the same fit
    deviation = float(returns.std())
    model = arch_model(
        returns / deviation,
        mean="Constant",
        vol="GARCH",
        p=1,
        o=int(asymmetric),
        q=1,
        dist="t",
        rescale=False,
    )
    # arch rewrites the process's warning filters; a step beyond the bounds is the search's own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        fit = model.fit(disp="off", show_warning=False)
    found = fit.params
    parameters = GarchParameters(
        mean=float(found["mu"]),
        omega=float(found["omega"]),
        alpha=float(found["alpha[1]"]),
        gamma=float(found["gamma[1]"]) if asymmetric else 0.0,
        beta=float(found["beta[1]"]),
        degrees_of_freedom=float(found["nu"]),
    )
    return GarchEstimate(
        parameters.rescaled(deviation),
        float(fit.loglikelihood) - len(returns) * math.log(deviation),
        bool(fit.convergence_flag == 0) and bool(np.isfinite(astuple(parameters)).all()),
    )


def median_parameters(parameters: Sequence[GarchParameters]) -> GarchParameters:
    """Return the median of each parameter; all must be in comparable units."""
    table = np.array([astuple(one) for one in parameters])
    return GarchParameters(*np.median(table, axis=0).tolist())


def filter_variance(
    returns: FloatArray,
    steps: npt.NDArray[np.int64],
    parameters: GarchParameters,
    first_variance: float,
    long_run_variance: float,
) -> FloatArray:
    """Return the variance of the step that follows each return, shape (n,).

    Given the parameters the recursion is a linear filter. A return over several steps (prices
    were missing) counts as one of its square root of time; the variance before it is what was to
    be expected then (:func:`bridged_variance`). Values hang on nothing later, to the last bit.

    Args:
        returns: shape (n,).
        steps: steps each return spans, shape (n,), at least 1.
        parameters: in the unit of the returns.
        first_variance: variance of the first step of the first return.
        long_run_variance: the most to which a missing stretch lets a lower variance grow.
    """
    residuals = (returns - parameters.mean * steps) / np.sqrt(steps)
    weights = parameters.alpha + parameters.gamma * (residuals < 0)
    shocks = parameters.omega + weights * residuals**2
    variances = np.empty(len(returns))
    before = first_variance
    starts = np.unique(np.append(0, np.flatnonzero(steps != 1)))
    for start, stop in zip(starts, np.append(starts[1:], len(returns)), strict=True):
        if start == stop:
            continue
        missing = int(steps[start]) - 1
        before = bridged_variance(before, missing, parameters, long_run_variance)
        variances[start:stop], _ = lfilter(
            [1.0], [1.0, -parameters.beta], shocks[start:stop], zi=[parameters.beta * before]
        )
        before = float(variances[stop - 1])
    return variances


def bridged_variance(
    variance: float, missing: int, parameters: GarchParameters, long_run_variance: float
) -> float:
    """Return the variance to be expected ``missing`` steps after the step of ``variance``.

    A fit with persistence 1 has no mean to return to and its expectation grows for ever; so the
    growth ends at ``long_run_variance`` (or where it started, if that is more).
    """
    if missing == 0:
        return variance
    persistence = parameters.persistence
    decay = persistence**missing
    sum_of_decays = missing if persistence == 1 else (1 - decay) / (1 - persistence)
    expected = decay * variance + parameters.omega * sum_of_decays
    return min(expected, max(variance, long_run_variance))


def expected_variances(
    next_variance: FloatArray, parameters: GarchParameters
) -> Iterator[FloatArray]:
    """Yield the expected variances one, two, three... steps ahead, each of shape (n,)."""
    expected = next_variance
    while True:
        yield expected
        expected = parameters.omega + parameters.persistence * expected


def hour_of_step(ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Hour of the day (UTC) in which steps end, shape as given.

    Args:
        ends: microseconds since 1970; a step that ends on the hour belongs to the hour before.
    """
    return (ends - 1) // MICROSECONDS_PER_HOUR % HOURS_PER_DAY


def diurnal_factors(
    sizes: FloatArray, hours: npt.NDArray[np.int64], distinct_days: int
) -> FloatArray:
    """Return the rhythm of the day: each hour's return size over the average, shape (24,).

    GARCH of hourly returns mistakes the quiet night for a calm market unless returns are divided
    by it first (Andersen and Bollerslev 1997, doi:10.1016/S0927-5398(97)00004-2).

    Args:
        sizes: absolute returns over their contract's mean, shape (n,).
        hours: hour of the day of each, shape (n,).
        distinct_days: days they come from.
    """
    count = np.bincount(hours, minlength=HOURS_PER_DAY)
    total = np.bincount(hours, sizes, minlength=HOURS_PER_DAY)
    factors = np.ones(HOURS_PER_DAY)
    np.divide(total, count, out=factors, where=count > 0)
    trust = distinct_days / (distinct_days + DIURNAL_PRIOR_DAYS)
    factors = 1.0 + trust * (factors - 1.0)
    root_mean_square = math.sqrt(float(np.average(factors**2, weights=np.maximum(count, 1))))
    return np.asarray(factors / root_mean_square, dtype=np.float64)
