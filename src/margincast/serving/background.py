"""What every contract brings along to the margin of tonight: the policy's memory and references.

The memory is not stored. It follows from the forecasts since the model was fitted, put through the
same loop as in a backtest, so that a margin depends on recorded inputs only and can be computed
again.
"""

import numpy as np

from margincast.core.types import SIDES, Side
from margincast.margin.chain import Memory
from margincast.margin.levels import Background
from margincast.margin.liquidation_cost import liquidation_costs
from margincast.margin.parameters import Parameters
from margincast.margin.schedule import tiers_for
from margincast.margin.timeline import Forecasts, Rows, through_time
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy
from margincast.training.policy_inputs import references_of, wanted_of


def backgrounds_at(
    at: np.datetime64,
    panel: Panel,
    forecast: TailForecast,
    *,
    policy: MarginPolicy,
    schedule: BaseSchedule,
    history: Panel | None,
) -> dict[tuple[str, Side], Background]:
    """Return the background of every contract and side of a panel.

    There is no record of order books: a policy that walks the book is taken to have charged what
    it says of depth that is not shown.

    Args:
        at: the moment margins are made for; decisions at it or later are no past.
        panel: decisions since the model was fitted, in order of time.
        forecast: of them.
        policy: the margin policy.
        schedule: the base schedule.
        history: outcomes for long-run rates; None where they are not known.

    Raises:
        InputError: a contract has no tiers.
    """
    names = panel.frame["symbol"].to_numpy(dtype=str)
    symbols, contract_of = np.unique(names, return_inverse=True)
    rows, tiers_of = _rows(symbols.tolist(), policy, schedule)
    past = panel.decided < at
    # the rates of the month hold also for whoever has no past
    moments = np.append(panel.decided[past], at)
    references = (
        None
        if history is None
        else references_of(history, symbols.tolist(), SIDES, moments, policy)
    )
    wanted = wanted_of(forecast, SIDES, policy)
    memory = Memory.blank(len(rows.cost))
    for moment in through_time(
        Forecasts(panel.decided[past], contract_of[past], wanted[:, past]),
        rows,
        Parameters.of(policy),
        references=references,
        publish_every=policy.publication.every if policy.publication is not None else None,
        max_data_age=policy.staleness.max_data_age,
    ):
        memory = moment.memory
    place = 0 if references is None else int(references.at(np.array([at]))[0])
    found: dict[tuple[str, Side], Background] = {}
    shape = (rows.tiers, len(SIDES), len(symbols))
    number = np.arange(len(rows.cost)).reshape(shape)
    for c, symbol in enumerate(symbols.tolist()):
        for s, side in enumerate(SIDES):
            own = number[: tiers_of[symbol], s, c]
            long_run = stressed = float("nan")
            if references is not None:
                row = s * len(symbols) + c
                long_run = float(references.long_run[place, row])
                stressed = float(references.stressed[place, row])
            found[symbol, side] = Background(at, memory.rows(own), long_run, stressed)
    return found


def _rows(
    symbols: list[str], policy: MarginPolicy, schedule: BaseSchedule
) -> tuple[Rows, dict[str, int]]:
    """Return rows tiers x sides x contracts, and every contract's number of tiers.

    Of a contract with fewer tiers than another the rows beyond its last have no rates.
    """
    tiers_of = {symbol: tiers_for(schedule, symbol) for symbol in symbols}
    deepest = max(map(len, tiers_of.values()), default=0)
    shape = (deepest, len(SIDES), len(symbols))
    base, cost = np.full(shape, np.nan), np.full(shape, np.nan)
    for c, symbol in enumerate(symbols):
        own = tiers_of[symbol]
        base[: len(own), :, c] = np.array([[tier.mmr] for tier in own])
        for s, side in enumerate(SIDES):
            costs = liquidation_costs(own, side, policy.liquidation, None)
            cost[: len(own), s, c] = [one.rate for one in costs]
    rows = Rows(len(symbols), len(SIDES), base.ravel(), cost.ravel())
    return rows, {symbol: len(own) for symbol, own in tiers_of.items()}
