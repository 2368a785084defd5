"""The published margin, replayed: what the venue would have charged, not what was forecast.

Responsible for putting a policy behind a model's forecasts moment by moment: liquidation cost,
buffer, references, floors, caps, speed limits, rounding, notice, the rhythm of publication, and the
fallback wherever no forecast could be used; but not the margins that somebody set by hand, because
a policy is judged by what it does itself. The arithmetic is serving's own
(:mod:`margincast.margin.chain`), and at every moment only what was known by then goes in.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray, Side
from margincast.margin.liquidation_cost import liquidation_costs
from margincast.margin.notice import InForce
from margincast.margin.parameters import Parameters
from margincast.margin.schedule import require_floors_below_caps, tiers_for
from margincast.margin.timeline import Forecasts, Rows, through_time
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy
from margincast.training.policy_inputs import references_of, wanted_of


@dataclass(frozen=True)
class PublishedMargin:
    """Margins in force at n decisions, for both sides' positions in one tier.

    Attributes:
        rates: maintenance margin rates in force, fractions, shape (S, n).
        fallback: where the last publication was a fallback, shape (S, n).
        costs: liquidation cost that the policy assumes, fractions, shape (S, n).
        base: the base schedule's rates, shape (n,).
        rules: what set the rate that was published last, shape (S, n), numbers of
            :data:`~margincast.margin.chain.RULES`.
    """

    rates: FloatArray
    fallback: BoolArray
    costs: FloatArray
    base: FloatArray
    rules: npt.NDArray[np.intp]

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
    history: Panel,
) -> PublishedMargin:
    """Replay what a policy publishes from a model's forecasts.

    Margins are published in the policy's rhythm, without one at every decision, of every contract
    from its first decision on, from its latest decision that is not stale. There is no order book
    in a replay of bars: a policy that walks the book charges what it says of depth that is
    not shown.

    Args:
        panel: the n decisions, sorted by time.
        forecast: of the same decisions; its levels hold the policy's.
        schedule: the base schedule.
        policy: the margin policy.
        tier: number of the notional tier to replay, from 1; the last one where there are fewer.
        history: outcomes that long-run rates are made of, those before the panel included; each
            counts from when it was known.

    Raises:
        InputError: the model does not forecast the policy's level, or the policy contradicts
            itself on a tier.
    """
    require_level(forecast, policy)
    symbols, contract_of = np.unique(panel.frame["symbol"].to_numpy(dtype=str), return_inverse=True)
    sides, contracts = forecast.sides, len(symbols)
    wanted = wanted_of(forecast, sides, policy)
    base, costs = _rows_of_schedule(symbols, sides, schedule, policy, tier)
    shape = (len(sides), contracts)
    references = references_of(history, symbols.tolist(), sides, panel.decided, policy)
    in_force = InForce.blank(base.size)
    rates = np.empty(wanted.shape)
    fallback = np.zeros(wanted.shape, dtype=bool)
    rules = np.empty(wanted.shape, dtype=np.intp)
    binding = np.zeros(base.size, dtype=np.intp)
    fell_back = np.zeros(base.size, dtype=bool)
    for moment in through_time(
        Forecasts(panel.decided, contract_of, wanted),
        Rows(contracts, len(sides), base, costs),
        Parameters.of(policy),
        references=references,
        publish_every=policy.publication.every if policy.publication is not None else None,
        max_data_age=policy.staleness.max_data_age,
    ):
        if moment.published is not None:
            binding, fell_back = moment.published.rules(), moment.published.fallback
            in_force = in_force.publish(
                moment.published.mmr, moment.at, policy, at_once=moment.first | fell_back
            )
        else:
            in_force = in_force.at(moment.at)
        own = contract_of[moment.decisions]
        rates[:, moment.decisions] = in_force.mmr.reshape(shape)[:, own]
        fallback[:, moment.decisions] = fell_back.reshape(shape)[:, own]
        rules[:, moment.decisions] = binding.reshape(shape)[:, own]
    of_decision = np.broadcast_to(costs.reshape(shape)[:, contract_of], rates.shape)
    return PublishedMargin(rates, fallback, of_decision, base[:contracts][contract_of], rules)


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


def _rows_of_schedule(
    symbols: "np.ndarray[tuple[int], np.dtype[np.str_]]",
    sides: tuple[Side, ...],
    schedule: BaseSchedule,
    policy: MarginPolicy,
    tier: int,
) -> tuple[FloatArray, FloatArray]:
    """Return base rates and liquidation costs of one tier, rows sides x contracts."""
    base, costs = [], []
    for side in sides:
        for symbol in symbols:
            tiers = tiers_for(schedule, str(symbol))
            require_floors_below_caps(policy, tiers, str(symbol))
            position = min(tier, len(tiers)) - 1
            base.append(tiers[position].mmr)
            costs.append(liquidation_costs(tiers, side, policy, None)[position].rate)
    return np.array(base), np.array(costs)
