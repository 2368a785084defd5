from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from margincast.backtest.stress.scenarios import GRID
from margincast.backtest.stress.shocks import ShockGrid
from margincast.backtest.stress.sufficiency import (
    DEVIATIONS_IN_A_FORECAST,
    StressedAccount,
    under_moves,
    under_shocks,
)
from margincast.core.errors import InputError
from margincast.margin.account import Collateral, Position, PositionTiers, pools_of
from margincast.margin.liquidation_price import Requirement

TIERS = PositionTiers(Requirement.of([0.0, 500.0], [500.0, 1e6], [0.05, 0.1]), (0.1, 0.2))
LONG = Position("A", "long", 10.0, 100.0, 100.0, TIERS)
SHORT = Position("B", "short", 20.0, 50.0, 50.0, TIERS, isolated_margin_usd=150.0)
CASH = Collateral("USD", 200.0, 1.0, Fraction(0))
COIN = Collateral("COIN", 1.0, 100.0, Fraction(1, 5), "A")
ACCOUNT = StressedAccount(
    pools_of([LONG, SHORT], [CASH, COIN]),
    {"A": 0.05, "B": 0.1},
    {("A", "long"): 0.01, ("B", "short"): 0.02},
)


def test_a_fall_by_hand():
    # A falls by a quarter: the long loses 250 and the coin 25. The cross pool counts 200 + 60 - 250
    # = 10, less than the 5 % of 500 and 10 % of 250 that are required: it is liquidated, at 1 % of
    # 750. Its 200 + 75 - 250 = 25 pay for that. B is unmoved.
    (line,) = under_moves(ACCOUNT, {"fall": {"A": -0.25, "B": 0.0}})
    assert (line.loss_usd, line.equity_usd, line.closing_cost_usd) == (275.0, 175.0, 7.5)
    assert (line.shortfall_usd, line.liquidated, line.is_sufficient) == (0.0, ("cross",), True)


def test_what_one_pool_has_left_does_not_pay_for_another():
    # The isolated short loses 200 of its 150, and 2 % of 1,200 for closing: 74 is missing.
    (line,) = under_moves(ACCOUNT, {"rise": {"A": 0.0, "B": 0.2}})
    assert line.liquidated == ("B short",)
    assert (line.equity_usd, line.shortfall_usd) == pytest.approx((250.0, 74.0))
    assert not line.is_sufficient


def slow_line(account, price_move, factor, depth, correlation):
    """Every pool by itself, in plain arithmetic."""
    leader = account.forecasts["A"]
    shortfall = loss = 0.0
    for pool in account.pools:
        left, counted, required, closing = pool.cash_usd, pool.cash_usd, 0.0, 0.0

        def moved(contract, sign):
            size = account.forecasts[contract]
            own = np.sqrt(1 - correlation**2) * factor * size / DEVIATIONS_IN_A_FORECAST
            return max(-1.0, correlation * size / leader * price_move - sign * own)

        for each in pool.collateral:
            move = moved(each.contract, 1) if each.contract else 0.0
            value = each.amount * each.price_usd * (1 + move)
            loss -= value - each.amount * each.price_usd
            left += value
            counted += value * (1 - float(each.haircut))
        for each in pool.positions:
            sign = 1 if each.side == "long" else -1
            before = each.size * each.mark_price
            notional = before * (1 + moved(each.symbol, sign))
            gain = sign * (notional - each.size * each.entry_price)
            loss -= sign * (notional - before)
            left, counted = left + gain, counted + gain
            required += 0.05 * min(notional, 500) + 0.1 * max(notional - 500, 0)
            rate = account.closing_rates[each.symbol, each.side] * factor / np.sqrt(depth)
            closing += notional * min(1.0, rate)
        if counted < required:
            shortfall += max(0.0, closing - left)
    return shortfall, loss


@pytest.mark.parametrize("size", [1.0, 4.0])
def test_the_conditions_shown_are_the_worst_of_the_grid(size):
    pools = pools_of([replace(LONG, size=10 * size), SHORT], [CASH, COIN])
    account = replace(ACCOUNT, pools=pools)
    for line, price_move in zip(under_shocks(account, GRID, "A"), GRID.price_moves, strict=True):
        every = [
            slow_line(account, price_move, factor, depth, correlation)
            for factor in GRID.volatility_factors
            for depth in GRID.depth_factors
            for correlation in GRID.correlations
        ]
        assert line.shortfall_usd == pytest.approx(max(shortfall for shortfall, _ in every))
        shown = slow_line(account, price_move, *line.conditions.values())
        assert shown == pytest.approx((line.shortfall_usd, line.loss_usd))


def test_no_shock_lets_a_long_alone_lack_more_than_its_notional_and_closing():
    deep = ShockGrid((-0.999,), (5.0,), (0.001,), (0.0, 1.0))
    account = replace(ACCOUNT, pools=pools_of([LONG], []))
    (line,) = under_shocks(account, deep, "A")
    assert line.shortfall_usd <= 1000.0 + line.closing_cost_usd


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ({"A": -0.1}, "'s' has no move of B"),
        ({"A": -1.1, "B": 0.0}, "moves A by -1.1; a simple move is -1 or more"),
        ({"A": float("nan"), "B": 0.0}, "moves A by nan"),
    ],
)
def test_scenarios_that_cannot_be_used_are_refused(scenario, said):
    with pytest.raises(InputError, match=said):
        under_moves(ACCOUNT, {"s": scenario})


@pytest.mark.parametrize("forecasts", [{"A": 0.05}, {"A": 0.05, "B": 0.0}])
def test_a_contract_without_a_forecast_is_refused(forecasts):
    with pytest.raises(InputError, match="no forecast of B"):
        under_shocks(replace(ACCOUNT, forecasts=forecasts), GRID, "A")
