"""What an operator's policy allows at all, and the initial margin rate.

Responsible for saying why data, a forecast or a cost cannot be margined, and for the rate at which
a position may be opened.
"""

import math
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from margincast.core.time import format_duration
from margincast.core.types import FloatArray
from margincast.margin.explanation import percent
from margincast.margin.rounding import exact, round_up
from margincast.specs.serving import MarginPolicy


def initial_margin_rates(
    mmr: FloatArray, base_imr: FloatArray, policy: MarginPolicy
) -> tuple[FloatArray, npt.NDArray[np.object_]]:
    """Return initial margin rates and their reasons.

    The policy's ratio times the MMR, never below the tier's base IMR, rounded up to its grid, at
    most 1. It lies above any MMR below 1, because the ratio is above 1. The product is exact in
    decimals.

    Args:
        mmr: maintenance margin rates, shape (k,).
        base_imr: the base schedule's rates, shape (k,).
        policy: the margin policy.
    """
    ratio, step = policy.initial.imr_over_mmr, policy.rounding.imr_step
    one = exact(1.0)
    rates, of_mmr = np.unique(mmr, return_inverse=True)
    bases, of_base = np.unique(base_imr, return_inverse=True)
    wanted = [exact(ratio) * exact(rate) for rate in rates.tolist()]
    # Validation has it that the step divides 1, so a rate up to 1 stays up to 1 when rounded;
    # and as rounding keeps the order, the larger of two rounded rates is the larger one rounded.
    rounded = np.array([round_up(min(rate, one), step) for rate in wanted])
    lowest = np.array([round_up(rate, step) for rate in bases.tolist()])
    said = np.array([f"{ratio:g} x MMR {percent(rate)}" for rate in rates], dtype=object)
    said_base = np.array([f"base IMR {percent(rate)}" for rate in bases], dtype=object)
    above = np.array([float(rate) for rate in wanted])[of_mmr] >= base_imr
    return (
        np.maximum(rounded[of_mmr], lowest[of_base]),
        np.where(above, said[of_mmr], said_base[of_base]),
    )


def age_problem(data_age: timedelta, policy: MarginPolicy) -> str | None:
    """Say why data cannot be used, or None when it can."""
    allowed = policy.staleness.max_data_age
    if timedelta(0) <= data_age <= allowed:
        return None
    if data_age < timedelta(0):
        return f"data from the future: its time lies {-data_age} ahead of the moment of use"
    rounded = timedelta(seconds=round(data_age.total_seconds()))
    return f"stale data: {rounded} old, allowed {format_duration(allowed)}"


def forecast_problem(forecast: float, policy: MarginPolicy) -> str | None:
    """Say why a forecast cannot be used, or None when it can."""
    largest = policy.forecast.largest_plausible
    if 0.0 < forecast <= largest:
        return None
    if math.isnan(forecast):
        return "forecast not known (NaN)"
    return f"forecast {forecast:g} is not above 0 and at most {largest:g}"


def cost_problem(cost_rate: float, policy: MarginPolicy) -> str | None:
    """Say why a liquidation cost cannot be margined, or None when it can."""
    cap = policy.limits.mmr_cap
    if 0.0 <= cost_rate <= cap:
        return None
    return f"liquidation cost {cost_rate:g} is not between 0 and limits.mmr_cap = {cap:g}"
