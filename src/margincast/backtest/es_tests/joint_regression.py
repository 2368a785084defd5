"""Joint linear regression of quantile and expected shortfall on what was known at the decision.

Responsible for the coefficients that the tests of Bayer and Dimitriadis compare with those of a
correct forecast. The loss is Fissler and Ziegel's FZ0, which is consistent for both at once.
"""

from dataclasses import dataclass

import numpy as np

from margincast.core.types import FloatArray
from margincast.models.quantile_regression import quantile_regression

ROUNDS = 50
"""Alternations of the two parts; a handful is usual."""

NEWTON_STEPS = 100
"""For the coefficients of the expected shortfall, given the quantile."""

SMALLEST_STEP = 1e-12
"""Relative change of the loss from which a part counts as solved."""

LEAST_SHORTFALL = 0.1
"""Start with a fitted expected shortfall of at least this share of its mean, by its intercept."""


@dataclass(frozen=True)
class JointRegression:
    """A fitted regression, in losses shifted so that the smallest is 0.

    Attributes:
        quantile_coefficients: shape (k,).
        shortfall_coefficients: shape (m,).
        quantile: fitted, shape (n,).
        shortfall: fitted expected shortfall, positive, shape (n,).
        loss: mean FZ0 loss.
    """

    quantile_coefficients: FloatArray
    shortfall_coefficients: FloatArray
    quantile: FloatArray
    shortfall: FloatArray
    loss: float


def joint_regression(
    outcome: FloatArray,
    quantile_design: FloatArray,
    shortfall_design: FloatArray,
    level: float,
) -> JointRegression:
    """Minimise ``mean((q + max(0, y - q) / (1 - level)) / e + log(e)) - 1``, q and e linear.

    Given e, q is an exact quantile regression with weights 1/e; given q, e follows from Fisher
    scoring. The two alternate until neither lowers the loss: a point from which no direction leads
    down, because the kinks of the loss hang on q alone. Dimitriadis and Bayer search the same loss
    by Nelder-Mead from random starts; losses agree to 1e-8, never below these.

    Args:
        outcome: losses, not negative (subtract the smallest), shape (n,).
        quantile_design: first column ones, shape (n, k).
        shortfall_design: first column ones, shape (n, m).
        level: share not exceeded.

    Source: Dimitriadis and Bayer (2019), doi:10.1214/19-EJS1560; the shift is theirs too.
    """
    tail = 1.0 - level
    coefficients = _quantile(outcome, quantile_design, level)
    quantile = quantile_design @ coefficients
    target = quantile + np.maximum(outcome - quantile, 0.0) / tail
    shortfall_coefficients = _start(target, shortfall_design)
    loss = np.inf
    for _ in range(ROUNDS):
        shortfall_coefficients = _shortfall(target, shortfall_design, shortfall_coefficients)
        shortfall = shortfall_design @ shortfall_coefficients
        current = _loss(target, shortfall)
        if not current < loss - SMALLEST_STEP:
            break
        loss = current
        again = _quantile(outcome, quantile_design, level, 1.0 / shortfall)
        trial = quantile_design @ again
        trial_target = trial + np.maximum(outcome - trial, 0.0) / tail
        if not _loss(trial_target, shortfall) < loss - SMALLEST_STEP:
            break
        coefficients, quantile, target = again, trial, trial_target
    return JointRegression(coefficients, shortfall_coefficients, quantile, shortfall, loss - 1.0)


def _quantile(
    outcome: FloatArray, design: FloatArray, level: float, weights: FloatArray | None = None
) -> FloatArray:
    return quantile_regression(design, outcome, [level], weights)[0].coefficients


def _loss(target: FloatArray, shortfall: FloatArray) -> float:
    return float(np.mean(target / shortfall + np.log(shortfall)))


def _start(target: FloatArray, design: FloatArray) -> FloatArray:
    """Start at least squares, lifted until every fitted value is positive."""
    coefficients = np.asarray(np.linalg.lstsq(design, target, rcond=None)[0])
    fitted = design @ coefficients
    lift = LEAST_SHORTFALL * float(np.mean(np.abs(fitted))) - float(fitted.min())
    coefficients[0] += max(0.0, lift)
    return coefficients


def _shortfall(target: FloatArray, design: FloatArray, start: FloatArray) -> FloatArray:
    """Minimise ``mean(target / e + log(e))``, e = design @ b > 0, by Fisher scoring."""
    coefficients = start
    shortfall = design @ coefficients
    loss = _loss(target, shortfall)
    for _ in range(NEWTON_STEPS):
        scaled = design / shortfall[:, np.newaxis]
        step = np.linalg.lstsq(scaled, target / shortfall - 1.0, rcond=None)[0]
        length = 1.0
        while length > SMALLEST_STEP:
            trial = design @ (coefficients + length * step)
            if trial.min() > 0.0 and _loss(target, trial) <= loss:
                break
            length /= 2.0
        else:
            return coefficients
        coefficients = coefficients + length * step
        shortfall = trial
        previous, loss = loss, _loss(target, trial)
        if previous - loss < SMALLEST_STEP:
            return coefficients
    return coefficients
