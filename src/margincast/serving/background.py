"""What every contract brings along to the margin of tonight: the policy's memory and references.

Responsible for what a margin hangs on beside tonight's forecast. Once margins are published the
memory is that of the last publication, recorded with it; before, it follows from the forecasts
since the model was fitted. Either way a margin depends on recorded inputs only and can be computed
again.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from margincast.core.types import SIDES
from margincast.margin.background import Background, Remembered
from margincast.margin.chain import Memory
from margincast.margin.fees import fee_multipliers, fee_need
from margincast.margin.levels import costs_of
from margincast.margin.notice import InForce
from margincast.margin.parameters import Parameters
from margincast.margin.reference import References
from margincast.margin.tier_rows import TierRows
from margincast.margin.timeline import Forecasts, Rows, inputs_at, through_time
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.serving import MarginPolicy
from margincast.training.policy_inputs import references_of, wanted_of

Past = Callable[[TierRows], Remembered]
"""Says of some rows what their last publication left behind."""


def background_at(
    at: np.datetime64,
    panel: Panel,
    forecast: TailForecast,
    *,
    policy: MarginPolicy,
    rows: TierRows,
    history: Panel | None,
    past: Past | None = None,
) -> Background:
    """Return the background of rows of a panel's contracts.

    What the policy remembers is what the last publication left behind. Before the first one it is
    made of the forecasts since the model was fitted, put through the same loop as in a backtest.

    There is no record of order books: a policy that walks the book is taken to have charged what
    it says of depth that is not shown.

    Args:
        at: the moment margins are made for; decisions at it or later are no past.
        panel: decisions since the model was fitted, in order of time.
        forecast: of them.
        policy: the margin policy.
        rows: of the panel's contracts, sorted by name.
        history: outcomes for long-run rates; None where they are not known.
        past: what was published before the moment; None where nothing was.
    """
    names = panel.frame["symbol"].to_numpy(dtype=str)
    contract_of = np.searchsorted(np.array(rows.symbols, dtype=str), names)
    past_rows = panel.decided < at
    # the rates of the month hold also for whoever has no past
    moments = np.append(panel.decided[past_rows], at)
    if past is not None:
        # earlier months say nothing any more; what was first known in this one still counts
        month = at.astype("datetime64[M]").astype("datetime64[us]")
        moments = np.array([max(month, moments[0])])
    references = (
        None if history is None else references_of(history, rows.symbols, SIDES, moments, policy)
    )
    layout, place = _layout(rows, policy)
    known = inputs_at(at, np.full(len(layout.cost), np.nan), layout, references)
    if past is not None:
        remembered = past(rows)
    else:
        forecasts = Forecasts(
            panel.decided[past_rows],
            contract_of[past_rows],
            wanted_of(forecast, SIDES, policy)[:, past_rows],
        )
        remembered = _as_backtested(forecasts, layout, policy, references).rows(place)
    return Background.of(at, remembered, known.long_run[place], known.stressed[place])


def _as_backtested(
    forecasts: Forecasts, layout: Rows, policy: MarginPolicy, references: References | None
) -> Remembered:
    """Return what the policy would remember had it published the forecasts of the past."""
    rows = len(layout.cost)
    memory, in_force = Memory.blank(rows), InForce.blank(rows)
    fees = np.full(layout.contracts, np.nan)
    for moment in through_time(
        forecasts,
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
    return Remembered(memory, in_force, np.tile(fees, rows // max(layout.contracts, 1)))


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
    under = np.maximum(np.arange(len(base)) - len(SIDES) * contracts, -1)
    return Rows(contracts, len(SIDES), base, cost, under), place
