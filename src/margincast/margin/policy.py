"""What an operator's policy allows at all, and the initial margin rate.

Responsible for saying why a forecast or a cost cannot be margined, and for the rate at which a
position may be opened.
"""

import math

from margincast.core.time import format_duration
from margincast.margin.explanation import percent
from margincast.margin.rounding import exact, round_up
from margincast.specs.schedule import Tier
from margincast.specs.serving import MarginPolicy


def initial_margin_rate(mmr: float, tier: Tier, policy: MarginPolicy) -> tuple[float, str]:
    """Return the initial margin rate and its reason.

    The policy's ratio times the MMR, never below the tier's base IMR, rounded up to its grid, at
    most 1. It lies above any MMR below 1, because the ratio is above 1.
    """
    ratio, step = policy.initial.imr_over_mmr, policy.rounding.imr_step
    wanted, base = exact(ratio) * exact(mmr), exact(tier.imr)
    if wanted >= base:
        reason = f"{ratio:g} x MMR {percent(mmr)}"
    else:
        reason = f"base IMR {percent(tier.imr)}"
    # Validation has it that the step divides 1, so a rate up to 1 stays up to 1 when rounded.
    return round_up(min(max(wanted, base), exact(1.0)), step), reason


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


def source_of(policy: MarginPolicy) -> str:
    """Say what the forecast of a policy is."""
    level, horizon = policy.model.level, format_duration(policy.model.horizon)
    return f"{level:g} quantile of the adverse excursion over {horizon}"
