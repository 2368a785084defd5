"""Stress that never happened, on margins that did.

Shocks, reverse stress, history made larger, and a cascade on a real crash's path.

Responsible for the stress part of the report beside the historical windows. A backtest of forecasts
knows prices and margins, not who holds what: the positions are assumptions, stated as such and
the same for every model. Each contract has a long and a short of one unit of notional, one per
cent of what the contract trades in a day; liquidating one in a calm market moves the price by
volatility times the root of that share (the square-root law).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from margincast.backtest.stress.accounts import draw_accounts
from margincast.backtest.stress.cascade import CascadeMarket, Venue, compare_schedules
from margincast.backtest.stress.impact import ImpactLaw
from margincast.backtest.stress.positions import StressedPositions
from margincast.backtest.stress.reverse import reverse_stress
from margincast.backtest.stress.schedules import ConstantMargin, MarginByTime
from margincast.backtest.stress.shocks import ShockGrid, scaled_historical, shock_surface
from margincast.core.types import FloatArray
from margincast.data.simulated.parameters import LeverageClass

DAILY_SHARE = 0.01
"""Part of a day's trading that one position is."""
GRID = ShockGrid(
    price_moves=(-0.5, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3, 0.5),
    volatility_factors=(1.0, 3.0),
    depth_factors=(1.0, 0.3, 0.02),
    correlations=(0.5, 0.8, 1.0),
)
"""Two per cent is what books held at their thinnest on 10 October 2025."""
OWN_DEVIATIONS = 1.0
FUND_SHARE = 0.01
"""Insurance fund, a part of the notional of all positions."""
HISTORY_FACTORS = (1.0, 1.5, 2.0)
LARGEST_MARGIN = 0.99
CONSTANT = "a constant margin"

CLASSES = (
    LeverageClass(leverage=2.0, share=0.2, half_life_minutes=10_080.0),
    LeverageClass(leverage=3.0, share=0.2, half_life_minutes=10_080.0),
    LeverageClass(leverage=5.0, share=0.1, half_life_minutes=10_080.0),
)
"""Leverages that margins for horizons of hours let in, and their shares of the open interest."""
CASCADE_ACCOUNTS = 2000
OPEN_INTEREST = 0.5
"""In units of a day's trading; the rest of the assumptions of a cascade follow."""
LONG_SHARE = 0.6
HALF_LIFE_STEPS = 2.0
SIZE_DEVIATION = 1.0
CASCADE_FUND_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Margins of one model at one moment.

    Attributes:
        contracts: names, shape (C,).
        long_margin: maintenance margin rates of longs, shape (C,), in (0, 1).
        short_margin: of shorts.
        volatility: standard deviation of each contract's move over the horizon, shape (C,).
        daily_volatility: over a day: the unit of the impact law.
        leader: position of the leading contract.
    """

    contracts: tuple[str, ...]
    long_margin: FloatArray
    short_margin: FloatArray
    volatility: FloatArray
    daily_volatility: FloatArray
    leader: int

    def positions(self) -> StressedPositions:
        """Return a long and a short of one unit in every contract.

        Depth is in the square-root law's own unit: a day's trading, with the contract's daily
        volatility relative to the leader's folded in (the law has one coefficient for all).
        """
        count = len(self.contracts)
        relative = self.daily_volatility / self.daily_volatility[self.leader]
        depth = 1.0 / DAILY_SHARE / relative**2
        margin = np.concatenate([self.long_margin, self.short_margin])
        return StressedPositions(
            tuple(f"{name} {side}" for side in ("long", "short") for name in self.contracts),
            np.concatenate([np.ones(count), -np.ones(count)]),
            np.clip(margin, 1e-6, LARGEST_MARGIN),
            np.tile(self.volatility, 2),
            np.tile(depth, 2),
        )

    @property
    def impact(self) -> ImpactLaw:
        """The square-root law, in units of the leader's daily volatility."""
        return ImpactLaw(float(self.daily_volatility[self.leader]))


def shocks(of_model: Mapping[str, Snapshot]) -> pd.DataFrame:
    """Return what is lost beyond margin under hypothetical shocks.

    Returns:
        A row a model and price move of the leading contract: ``loss``, a part of all notional, in
        the mildest other conditions, and ``worst_loss`` over volatility, depth and correlation,
        with the conditions that make it.
    """
    rows = []
    for model, snapshot in of_model.items():
        positions = snapshot.positions()
        surface = shock_surface(
            positions,
            GRID,
            snapshot.impact,
            leader_volatility=float(snapshot.volatility[snapshot.leader]),
            own_deviations=OWN_DEVIATIONS,
        )
        # one side of the market loses at a time: half of the notional
        whole = np.abs(positions.notional_usd).sum() / 2.0
        for i, move in enumerate(GRID.price_moves):
            of_move = surface.shortfall_usd[i] / whole
            place = np.unravel_index(int(of_move.argmax()), of_move.shape)
            rows.append(
                {
                    "model": model,
                    "price_move": move,
                    "loss": float(of_move.min()),
                    "worst_loss": float(of_move[place]),
                    "volatility_factor": GRID.volatility_factors[int(place[0])],
                    "depth_factor": GRID.depth_factors[int(place[1])],
                    "correlation": GRID.correlations[int(place[2])],
                }
            )
    return pd.DataFrame(rows)


def reverse(of_model: Mapping[str, Snapshot]) -> pd.DataFrame:
    """Return the smallest moves of the leading contract that exhaust a margin, and the fund.

    Returns:
        A row a model, direction and depth factor; moves are fractions, infinite where none does.
    """
    rows = []
    for model, snapshot in of_model.items():
        positions = snapshot.positions()
        fund = FUND_SHARE * float(np.abs(positions.notional_usd).sum())
        for direction in ("down", "up"):
            for depth in GRID.depth_factors:
                found = reverse_stress(
                    positions,
                    fund,
                    snapshot.impact,
                    leader_volatility=float(snapshot.volatility[snapshot.leader]),
                    direction=direction,
                    depth_factor=depth,
                )
                rows.append(
                    {
                        "model": model,
                        "direction": direction,
                        "depth_factor": depth,
                        "move_exhausting_margin": found.move_exhausting_margin,
                        "first_to_fail": found.first_to_fail,
                        "move_exhausting_fund": found.move_exhausting_fund,
                        "positions_failing": len(found.positions_failing),
                    }
                )
    return pd.DataFrame(rows)


def history_scaled(
    of_model: Mapping[str, Snapshot], adverse: Mapping[str, FloatArray]
) -> pd.DataFrame:
    """Return what the margins of today would lose in the windows of history, and in larger ones.

    Args:
        of_model: margins by model.
        adverse: by window, the worst move of every contract over one horizon in it, down in the
            first row and up in the second, simple fractions, shape (2, C); zero where unknown.

    Returns:
        A row a model, window and factor: the loss beyond margin as a part of all notional that
        loses, the worse of the two directions.
    """
    rows = []
    for model, snapshot in of_model.items():
        positions = snapshot.positions()
        count = len(snapshot.contracts)
        for window, moves in adverse.items():
            down, up = np.clip(moves[0], -0.999, 0.0), moves[1]
            both = np.stack([np.tile(down, 2), np.tile(up, 2)])
            lost = scaled_historical(
                positions, both, np.array(HISTORY_FACTORS), snapshot.impact
            ).max(axis=0)
            for factor, loss in zip(HISTORY_FACTORS, lost, strict=True):
                rows.append(
                    {
                        "model": model,
                        "window": window,
                        "factor": factor,
                        "loss": float(loss) / count,
                    }
                )
    return pd.DataFrame(rows)


def cascade(
    price: FloatArray, margins: Mapping[str, FloatArray], daily_volatility: float
) -> pd.DataFrame:
    """Run the same accounts down one real path under every model's margin.

    The path is taken as what the price would have done without these accounts' liquidations, which
    press it further. Margins are brought to one mean over the path; a constant one stands beside.

    Args:
        price: closes of one contract through a crash, shape (steps,), positive.
        margins: by model, maintenance margin rates along it, shape (steps,), in (0, 1).
        daily_volatility: of the contract, for the impact law.

    Returns:
        A row a schedule: the fields of
        :class:`~margincast.backtest.stress.cascade.CascadeSummary`, money in units of the open
        interest.
    """
    level = float(np.mean([own.mean() for own in margins.values()]))
    highest = 0.9 / max(each.leverage for each in CLASSES)
    mean = min(level, highest)
    schedules: dict[str, MarginByTime | ConstantMargin] = {
        name: MarginByTime(np.clip(own * (mean / own.mean()), 1e-6, LARGEST_MARGIN))
        for name, own in margins.items()
    }
    schedules[CONSTANT] = ConstantMargin(mean)
    start = float(price[0])
    accounts = draw_accounts(
        CASCADE_ACCOUNTS,
        CLASSES,
        price_usd=start,
        open_interest_usd=1.0,
        long_share=LONG_SHARE,
        mmr=mean,
        size_deviation=SIZE_DEVIATION,
        generator=np.random.default_rng(1),
    )
    market = CascadeMarket(
        np.log(price),
        np.full(len(price), 1.0 / OPEN_INTEREST),
        ImpactLaw(daily_volatility),
        HALF_LIFE_STEPS,
    )
    found = compare_schedules(accounts, market, schedules, Venue(CASCADE_FUND_SHARE))
    return pd.DataFrame([{"schedule": name, **vars(summary)} for name, summary in found.items()])
