"""What an operator's policy allows at all.

Responsible for saying why data, a forecast or a cost cannot be margined.
"""

import math
from datetime import timedelta

from margincast.core.time import format_duration
from margincast.specs.serving import MarginPolicy


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
