"""The base schedule: the margins in force without a forecast, which the multiplier multiplies.

Responsible for finding a contract's tiers, and for refusing a policy whose floors lie above its
caps on one of them.
"""

from margincast.core.errors import InputError, did_you_mean
from margincast.specs.schedule import BaseSchedule, Tier
from margincast.specs.serving import MarginPolicy


def tiers_for(schedule: BaseSchedule, symbol: str) -> tuple[Tier, ...]:
    """Return a contract's tiers: those of the brackets that name it, else the default ones.

    Raises:
        InputError: nothing names the contract and the schedule has no default.
    """
    for brackets in schedule.brackets:
        if symbol in brackets.symbols:
            return brackets.tiers
    if schedule.default is None:
        named = [name for brackets in schedule.brackets for name in brackets.symbols]
        raise InputError(
            f"base schedule {schedule.name!r} has no tiers for {symbol!r}"
            f"{did_you_mean(symbol, named)} and no [default]; add the contract to [[brackets]] or "
            "write a [default]"
        )
    return schedule.default.tiers


def require_floors_below_caps(policy: MarginPolicy, tiers: tuple[Tier, ...], name: str) -> None:
    """Check that on every tier the policy's floors lie at or below its caps.

    The limits are of two kinds, rates and multipliers of the tier's base rate, so whether they
    contradict each other depends on the tier.

    Args:
        policy: a margin policy.
        tiers: base tiers of a contract.
        name: what the tiers are called in the message.

    Raises:
        InputError: names the tier, the floor and the cap.
    """
    limits = policy.limits
    for number, tier in enumerate(tiers, start=1):
        lifted, capped = limits.multiplier_floor * tier.mmr, limits.multiplier_cap * tier.mmr
        if lifted > limits.mmr_cap:
            raise InputError(
                f"policy {policy.name!r} contradicts itself on tier {number} of {name}: "
                f"limits.multiplier_floor x base MMR = {lifted:g} lies above limits.mmr_cap = "
                f"{limits.mmr_cap:g}; raise the cap, or lower the multiplier floor or the base MMR"
            )
        if capped < limits.mmr_floor:
            raise InputError(
                f"policy {policy.name!r} contradicts itself on tier {number} of {name}: "
                f"limits.multiplier_cap x base MMR = {capped:g} lies below limits.mmr_floor = "
                f"{limits.mmr_floor:g}; lower the floor, or raise the multiplier cap or the base "
                "MMR"
            )


def require_policy_fits(policy: MarginPolicy, schedule: BaseSchedule) -> None:
    """Check a policy against every tier of its base schedule, before any margin is computed.

    Raises:
        InputError: see :func:`require_floors_below_caps`; or a base rate lies below the policy's
            floors or its fees, so that the fallback would publish less than the policy allows.
    """
    multiple = policy.limits.multiplier_floor
    if multiple > 1.0:
        raise InputError(
            f"policy {policy.name} has limits.multiplier_floor = {multiple:g}: a fallback is "
            "the base schedule and would lie below that floor; use 1 at most, and multiply the "
            f"rates of base schedule {schedule.name} instead"
        )
    tables = [(", ".join(table.symbols), table.tiers) for table in schedule.brackets]
    if schedule.default is not None:
        tables.append(("[default]", schedule.default.tiers))
    fees = policy.liquidation.taker_fee_rate + policy.liquidation.liquidation_fee_rate
    least = max(policy.limits.mmr_floor, fees)
    for name, tiers in tables:
        require_floors_below_caps(policy, tiers, name)
        if tiers[0].mmr < least:
            raise InputError(
                f"base schedule {schedule.name}, {name}: the first tier's MMR {tiers[0].mmr:g} "
                f"lies below {least:g}, the larger of limits.mmr_floor and the fees of policy "
                f"{policy.name}; a fallback would publish it: raise the tier or lower the floor"
            )
