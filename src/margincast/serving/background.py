"""What every contract brings along to the margin of tonight: the policy's memory and references.

The memory is not stored. It follows from the forecasts since the model was fitted, put through the
same loop as in a backtest, so that a margin depends on recorded inputs only and can be computed
again.
"""

import numpy as np
import numpy.typing as npt

from margincast.core.types import SIDES
from margincast.margin.background import Background
from margincast.margin.chain import Memory
from margincast.margin.fees import fee_multipliers, fee_need
from margincast.margin.levels import costs_of
from margincast.margin.notice import InForce
from margincast.margin.parameters import Parameters
from margincast.margin.tier_rows import TierRows
from margincast.margin.timeline import Forecasts, Rows, inputs_at, through_time
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.serving import MarginPolicy
from margincast.training.policy_inputs import references_of, wanted_of


def background_at(
    at: np.datetime64,
    panel: Panel,
    forecast: TailForecast,
    *,
    policy: MarginPolicy,
    rows: TierRows,
    history: Panel | None,
) -> Background:
    """Return the background of rows of a panel's contracts.

    There is no record of order books: a policy that walks the book is taken to have charged what
    it says of depth that is not shown.

    Args:
        at: the moment margins are made for; decisions at it or later are no past.
        panel: decisions since the model was fitted, in order of time.
        forecast: of them.
        policy: the margin policy.
        rows: of the panel's contracts, sorted by name.
        history: outcomes for long-run rates; None where they are not known.
    """
    names = panel.frame["symbol"].to_numpy(dtype=str)
    contract_of = np.searchsorted(np.array(rows.symbols, dtype=str), names)
    past = panel.decided < at
    # the rates of the month hold also for whoever has no past
    moments = np.append(panel.decided[past], at)
    references = (
        None if history is None else references_of(history, rows.symbols, SIDES, moments, policy)
    )
    wanted = wanted_of(forecast, SIDES, policy)
    layout, place = _layout(rows, policy)
    memory, in_force = Memory.blank(len(layout.cost)), InForce.blank(len(layout.cost))
    fees = np.full(len(rows.symbols), np.nan)
    for moment in through_time(
        Forecasts(panel.decided[past], contract_of[past], wanted[:, past]),
        layout,
        Parameters.of(policy),
        references=references,
        publish_every=policy.publication.every if policy.publication is not None else None,
        max_data_age=policy.staleness.max_data_age,
    ):
        memory = moment.memory
        if moment.published is not None:
            at_once = moment.first | moment.published.fallback
            in_force = in_force.publish(moment.published.mmr, moment.at, policy, at_once=at_once)
            if policy.fees is not None and references is not None:
                month = int(references.at(np.array([moment.at]))[0])
                rates = references.long_run[month].reshape(len(SIDES), -1)
                used = moment.published.values[0][: rates.size].reshape(rates.shape)
                fees = fee_multipliers(fee_need(used, rates), fees, policy.fees)
    known = inputs_at(at, np.full(len(layout.cost), np.nan), layout, references)
    return Background(
        at,
        memory.rows(place),
        in_force.rows(place),
        known.long_run[place],
        known.stressed[place],
        fees[rows.contract],
    )


def _layout(rows: TierRows, policy: MarginPolicy) -> tuple[Rows, npt.NDArray[np.intp]]:
    """Return rows tiers x sides x contracts, and the place of every row among them.

    Of a contract with fewer tiers than another the rows beyond its last have no rates.
    """
    contracts = len(rows.symbols)
    deepest = int(rows.tier.max(initial=0))
    place = ((rows.tier - 1) * len(SIDES) + rows.side) * contracts + rows.contract
    base, cost = (np.full(deepest * len(SIDES) * contracts, np.nan) for _ in range(2))
    base[place] = rows.base_mmr
    cost[place], _ = costs_of(rows, policy, {})
    return Rows(contracts, len(SIDES), base, cost), place
