"""The published margin, replayed: what the venue would have charged, not what was forecast.

Responsible for putting a policy behind a model's forecasts decision by decision: liquidation cost,
buffer, floors, caps, rounding, the rhythm of publication, and the base schedule wherever no
forecast could be used. The arithmetic is serving's own (``margincast.margin``).
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.types import SIDES, BoolArray, FloatArray
from margincast.margin.history import maintenance_margin_rates
from margincast.margin.liquidation_cost import liquidation_costs
from margincast.margin.schedule import require_floors_below_caps, tiers_for
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.serving import BaseSchedule, MarginPolicy


@dataclass(frozen=True)
class PublishedMargin:
    """Margins in force at n decisions, for both sides' positions in one tier.

    Attributes:
        rates: maintenance margin rates in force, fractions, shape (S, n).
        fallback: where the base schedule was in force, shape (S, n).
        costs: liquidation cost that the policy assumes, fractions, shape (S, n).
        base: the base schedule's rates, shape (n,).
    """

    rates: FloatArray
    fallback: BoolArray
    costs: FloatArray
    base: FloatArray

    def losses(self, outcomes: FloatArray) -> FloatArray:
        """Return what closing a position costs its owner: the excursion and the liquidation.

        Beyond the margin in force somebody else pays it.

        Args:
            outcomes: adverse excursions, fractions, shape (S, n).
        """
        return outcomes + self.costs


def published_margin(
    panel: Panel,
    forecast: TailForecast,
    schedule: BaseSchedule,
    policy: MarginPolicy,
    *,
    tier: int,
    publish_every: timedelta,
) -> PublishedMargin:
    """Replay what a policy publishes from a model's forecasts.

    A margin is published at the first decision of every period of ``publish_every`` (counted from
    the start of 1970) and stays in force until the next one, or until it is older than the policy
    lets data be: then the base schedule is. There is no order book in a replay of bars: a policy
    that walks the book charges what it says of depth that is not shown.

    Args:
        panel: the n decisions, sorted by time.
        forecast: of the same decisions; its levels hold the policy's.
        schedule: the base schedule.
        policy: the margin policy.
        tier: number of the notional tier to replay, from 1; the last one where there are fewer.
        publish_every: time between publications; the decisions' spacing publishes every forecast.

    Raises:
        InputError: the model does not forecast the policy's level, or the policy contradicts
            itself on a tier.
    """
    require_level(forecast, policy)
    column = forecast.levels.index(policy.model.level)
    wanted = forecast.quantiles[:, :, column].T
    if policy.forecast.sides == "larger":
        # as in serving: the larger of both stands only where both could be used
        usable = (wanted > 0.0) & (wanted <= policy.forecast.largest_plausible)
        both = usable.all(axis=0) & (set(forecast.sides) == set(SIDES))
        wanted = np.broadcast_to(np.where(both, wanted.max(axis=0), np.nan), wanted.shape)
    source = _published_at(panel, publish_every)
    age = panel.decided - panel.decided[source]
    stale = age > np.timedelta64(policy.staleness.max_data_age)
    rates, costs = np.empty(wanted.shape), np.empty(wanted.shape)
    base = np.empty(len(panel))
    symbols, contract_of = np.unique(panel.frame["symbol"].to_numpy(dtype=str), return_inverse=True)
    for number, symbol in enumerate(symbols):
        rows = np.flatnonzero(contract_of == number)
        tiers = tiers_for(schedule, str(symbol))
        require_floors_below_caps(policy, tiers, str(symbol))
        position = min(tier, len(tiers)) - 1
        base[rows] = tiers[position].mmr
        for i, side in enumerate(forecast.sides):
            cost = liquidation_costs(tiers, side, policy.liquidation, None)[position]
            used = wanted[i, source[rows]]
            rates[i, rows] = maintenance_margin_rates(used, tiers[position], cost, policy)
            costs[i, rows] = cost.rate
    fallback = np.isnan(rates) | stale
    return PublishedMargin(np.where(fallback, base, rates), fallback, costs, base)


def require_level(forecast: TailForecast, policy: MarginPolicy) -> None:
    """Check that a model forecasts the level a policy margins.

    Raises:
        InputError: it does not; says which it does.
    """
    if policy.model.level not in forecast.levels:
        raise InputError(
            f"policy {policy.name} margins level {policy.model.level:g}, the forecasts have "
            f"{', '.join(f'{level:g}' for level in forecast.levels)}; backtest that level as well"
        )


def _published_at(panel: Panel, publish_every: timedelta) -> npt.NDArray[np.intp]:
    """Return the row of the publication in force at each decision."""
    microseconds = panel.decided.astype("datetime64[us]").astype(np.int64)
    period = microseconds // (publish_every // timedelta(microseconds=1))
    period -= period.min()
    names = panel.frame["symbol"].to_numpy(dtype=str)
    contract_of = np.unique(names, return_inverse=True)[1]
    key = contract_of * (period.max() + 1) + period
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return first[inverse]
