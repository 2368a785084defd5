"""Liquidation cascades: money is neither made nor lost, and small cases worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.stress.accounts import CascadeAccounts, draw_accounts
from margincast.backtest.stress.cascade import (
    CascadeMarket,
    Venue,
    compare_schedules,
    run_cascade,
)
from margincast.backtest.stress.impact import ImpactLaw
from margincast.backtest.stress.ledger import Ledger
from margincast.backtest.stress.schedules import ConstantMargin, MarginByTime, VolatilityMargin
from margincast.core.errors import InputError
from margincast.data.simulated.parameters import DEFAULT_LEVERAGE_CLASSES

NO_IMPACT = ImpactLaw(0.0)
FOLLOWING = VolatilityMargin(
    multiple=3.0,
    horizon_steps=10.0,
    calm_volatility=0.001,
    half_life_steps=5.0,
    floor=0.005,
    cap=0.2,
)


def accounts_of(*rows):
    """Rows of size, entry price and collateral."""
    size, entry, collateral = np.array(rows, float).T
    return CascadeAccounts(size, entry, collateral)


def market_of(prices, impact=NO_IMPACT, depth=1e6, half_life=2.0):
    prices = np.asarray(prices, float)
    return CascadeMarket(np.log(prices), np.full(prices.size, depth), impact, half_life)


def drawn_accounts(seed, count=60, mmr=0.004, open_interest=1e6):
    return draw_accounts(
        count,
        DEFAULT_LEVERAGE_CLASSES,
        price_usd=100.0,
        open_interest_usd=open_interest,
        long_share=0.55,
        mmr=mmr,
        size_deviation=1.0,
        generator=np.random.default_rng(seed),
    )


def drawn_market(seed, steps=40, coefficient=0.05, kind="square-root"):
    generator = np.random.default_rng((seed, 1))
    moves = 0.01 * generator.standard_normal(steps)
    moves[0] = 0.0
    moves[steps // 3] -= 0.05
    depth = 2e5 * np.exp(0.3 * generator.standard_normal(steps))
    return CascadeMarket(
        np.log(100.0) + moves.cumsum(), depth, ImpactLaw(coefficient, kind), half_life_steps=3.0
    )


@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["linear", "square-root"]),
    fund=st.sampled_from([0.0, 500.0, 1e5]),
    fee=st.sampled_from([0.0, 0.005]),
    schedule=st.sampled_from([ConstantMargin(0.004), ConstantMargin(0.05), FOLLOWING]),
)
def test_money_is_neither_made_nor_lost(seed, kind, fund, fee, schedule):
    accounts, market = drawn_accounts(seed), drawn_market(seed, kind=kind)
    run = run_cascade(accounts, market, schedule, Venue(fund, fee))
    at_start = accounts.equity_usd(100.0).sum() + fund
    np.testing.assert_allclose(run.total_usd, at_start, rtol=1e-9)
    assert (run.fund_usd >= 0.0).all()
    assert run.uncovered_usd >= 0.0
    assert not (run.margin_induced & ~run.liquidated).any()
    assert not (run.bankrupt & ~run.liquidated).any()


@given(seed=st.integers(0, 10**6), fund=st.sampled_from([0.0, 1e3]))
def test_contracts_are_neither_made_nor_lost_and_the_closed_have_nothing_open(seed, fund):
    """Whatever the order in which accounts of a ledger are sold or deleveraged."""
    generator = np.random.default_rng(seed)
    accounts = drawn_accounts(seed)
    ledger = Ledger(accounts, 100.0, fund)
    total = ledger.total_usd(100.0)
    for account in generator.permutation(len(accounts))[:30]:
        if ledger.size[account] == 0.0:
            continue
        price = float(generator.uniform(80.0, 120.0))
        left = ledger.deleverage(account, price) if generator.random() < 0.5 else 1.0
        if left:
            ledger.sell(account, price, 0.001)
        assert ledger.size[account] == 0.0
        assert ledger.cash_usd[account] >= 0.0
        assert ledger.size.sum() == pytest.approx(0.0, abs=1e-6 * np.abs(accounts.size).sum())
        for at in (50.0, 100.0, 200.0):
            assert ledger.total_usd(at) == pytest.approx(total, rel=1e-9)


def test_by_hand_without_impact():
    # 10x long and 2x long from 100; at 91 the first has 1 left of 91, below 2 %
    accounts = accounts_of((1.0, 100.0, 10.0), (1.0, 100.0, 50.0))
    run = run_cascade(
        accounts, market_of([100.0, 91.0, 95.0]), ConstantMargin(0.02), Venue(0.0, 0.005)
    )
    assert run.liquidated.tolist() == [True, False]
    assert run.liquidated_usd == pytest.approx([0.0, 91.0, 0.0])
    assert run.fund_usd == pytest.approx([0.0, 0.455, 0.455])  # the fee
    assert (run.shortfall_usd, run.bankrupt.sum(), run.margin_induced.sum()) == (0.0, 0, 0)
    np.testing.assert_allclose(run.mark_price_usd, [100.0, 91.0, 95.0])


def test_by_hand_the_fund_pays():
    run = run_cascade(
        accounts_of((1.0, 100.0, 10.0)), market_of([100.0, 85.0]), ConstantMargin(0.02), Venue(8.0)
    )
    assert run.bankrupt.tolist() == [True]
    assert run.shortfall_usd == pytest.approx(5.0)
    assert run.fund_usd == pytest.approx([8.0, 3.0])
    assert (run.auto_deleveraged_usd, run.uncovered_usd) == (0.0, 0.0)


def test_by_hand_winners_are_deleveraged_when_the_fund_is_too_small():
    # bankrupt long of 1 at 85 (bankruptcy price 90); the 20x short wins most for its margin
    accounts = accounts_of((1.0, 100.0, 10.0), (-0.6, 100.0, 3.0), (-0.6, 100.0, 30.0))
    run = run_cascade(accounts, market_of([100.0, 85.0]), ConstantMargin(0.02), Venue(4.0))
    assert run.liquidated.tolist() == [True, False, False]
    assert run.deleveraged.tolist() == [False, True, True]
    assert run.auto_deleveraged_usd == pytest.approx(90.0)
    assert run.borne_by_winners_usd == pytest.approx(5.0)
    assert run.fund_usd == pytest.approx([4.0, 4.0])
    assert (run.shortfall_usd, run.uncovered_usd) == (0.0, 0.0)


def test_deleveraging_sells_nothing_into_the_book():
    accounts = accounts_of((1.0, 100.0, 10.0), (-1.0, 100.0, 50.0))
    market = market_of([100.0, 85.0, 85.0], ImpactLaw(0.05), depth=100.0)
    without_fund = run_cascade(accounts, market, ConstantMargin(0.02), Venue(0.0))
    assert without_fund.mark_price_usd[2] == pytest.approx(85.0)
    with_fund = run_cascade(accounts, market, ConstantMargin(0.02), Venue(1e3))
    assert with_fund.mark_price_usd[2] < 85.0
    assert with_fund.shortfall_usd > 5.0  # the sale's own impact


def test_by_hand_one_liquidation_presses_the_next_into_its_own():
    # The first sells 100 contracts at 90 into 9,000 of depth: 10 % down, fading by half a step.
    accounts = accounts_of((100.0, 100.0, 1_100.0), (1.0, 100.0, 15.0))
    impact = ImpactLaw(0.10, "linear")
    market = market_of([100.0, 90.0, 90.0], impact, depth=9_000.0, half_life=1.0)
    run = run_cascade(accounts, market, ConstantMargin(0.02), Venue(1e6))
    assert run.mark_price_usd[2] == pytest.approx(90.0 * np.exp(-0.05))  # 85.61: 0.61 left
    assert run.liquidated.tolist() == [True, True]
    # filled at half the move: equity 1100 + 100 * (90 exp(-0.05) - 100)
    assert run.shortfall_usd == pytest.approx(100.0 * (100.0 - 90.0 * np.exp(-0.05)) - 1_100.0)
    alone = run_cascade(accounts, market_of([100.0, 90.0, 90.0]), ConstantMargin(0.02), Venue(1e6))
    assert alone.liquidated.tolist() == [True, False]


def test_a_margin_that_rises_over_an_account_is_counted():
    accounts = accounts_of((1.0, 100.0, 10.0), (1.0, 100.0, 5.0))
    schedule = MarginByTime(np.array([0.02, 0.02, 0.08]))
    run = run_cascade(accounts, market_of([100.0, 97.0, 97.0]), schedule, Venue(0.0))
    # at 97 equity 7 and 2: 7.2 % and 2.06 % of 97
    assert run.liquidated.tolist() == [True, True]
    assert run.margin_induced.tolist() == [True, True]
    constant = run_cascade(accounts, market_of([100.0, 96.0]), ConstantMargin(0.02), Venue(0.0))
    assert constant.liquidated.tolist() == [False, True]
    assert constant.margin_induced.tolist() == [False, False]


@given(st.integers(0, 10**6))
def test_a_constant_margin_induces_nothing_and_without_impact_prices_are_their_own(seed):
    run = run_cascade(
        drawn_accounts(seed),
        drawn_market(seed, coefficient=0.0),
        ConstantMargin(0.004),
        Venue(1e4),
    )
    assert run.margin_induced.sum() == 0
    np.testing.assert_allclose(run.mark_price_usd, run.unpressed_price_usd, rtol=1e-12)


@given(st.integers(0, 10**6))
def test_without_impact_a_higher_margin_liquidates_more_and_leaves_less_unpaid(seed):
    accounts, market = drawn_accounts(seed), drawn_market(seed, coefficient=0.0)
    low, high = (
        run_cascade(accounts, market, ConstantMargin(mmr), Venue(1e9)) for mmr in (0.004, 0.009)
    )
    assert (high.liquidated >= low.liquidated).all()
    assert high.shortfall_usd <= low.shortfall_usd + 1e-9


def test_same_arguments_same_run_and_feedback_raises_a_margin_that_follows():
    accounts, market = drawn_accounts(7, open_interest=5e6), drawn_market(7, coefficient=0.1)
    schedules = {"constant": ConstantMargin(0.004), "following": FOLLOWING}
    first, again = (compare_schedules(accounts, market, schedules, Venue(1e4)) for _ in range(2))
    assert first == again
    quiet = compare_schedules(accounts, drawn_market(7, coefficient=0.0), schedules, Venue(1e4))
    assert first["following"].largest_mmr > quiet["following"].largest_mmr
    assert first["following"].margin_induced > 0
    assert first["constant"].mean_mmr == pytest.approx(0.004)
    assert first["following"].largest_press > 0.0


def test_drawn_accounts_have_the_shares_and_distances_asked_for():
    accounts = drawn_accounts(3, count=4_000)
    notional = 100.0 * accounts.size
    shares = np.array([each.share for each in DEFAULT_LEVERAGE_CLASSES])
    assert notional[notional > 0.0].sum() == pytest.approx(1e6 * 0.55 * shares.sum())
    assert -notional[notional < 0.0].sum() == pytest.approx(1e6 * 0.45 * shares.sum())
    leverage = np.abs(accounts.size) * accounts.entry_price_usd / accounts.collateral_usd
    rate = accounts.equity_usd(100.0) / np.abs(notional)
    for each in DEFAULT_LEVERAGE_CLASSES:
        own = np.isclose(leverage, each.leverage)
        width = 1.0 / each.leverage - 0.004
        assert own.sum() == 800
        assert np.abs(notional[own]).sum() == pytest.approx(1e6 * each.share)
        distance = (rate[own] - 0.004) / width
        assert 0.5 <= distance.min() < distance.max() <= 1.5
        assert distance.mean() == pytest.approx(1.0, abs=0.05)


def test_the_volatility_margin_is_its_definition():
    prices = np.array([100.0, 103.0, 99.0, 101.0])
    variance = FOLLOWING.calm_volatility**2
    keep = 0.5 ** (1.0 / 5.0)
    for move in np.diff(np.log(prices)):
        variance = keep * variance + (1.0 - keep) * move**2
    expected = 3.0 * np.sqrt(10.0 * variance)
    assert FOLLOWING(prices, np.zeros(3)) != expected  # no speed limit on a margin of zero
    free = VolatilityMargin(3.0, 10.0, 0.001, 5.0, 0.005, 0.9)
    assert free(prices, np.full(3, 0.02)) == pytest.approx(expected)
    assert free(prices[:1], np.array([])) == pytest.approx(3.0 * np.sqrt(10.0) * 0.001)
    limited = VolatilityMargin(3.0, 10.0, 0.001, 5.0, 0.005, 0.9, largest_rise=0.25)
    assert limited(prices, np.full(3, 0.02)) == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: accounts_of((0.0, 100.0, 1.0)), "none of them zero"),
        (lambda: accounts_of((1.0, 100.0, 0.0)), "collateral_usd must be positive"),
        (lambda: market_of([100.0], depth=0.0), "depths positive"),
        (lambda: market_of([100.0], half_life=0.0), "half_life_steps"),
        (lambda: Venue(-1.0), "fund_usd must be zero or more"),
        (lambda: VolatilityMargin(3.0, 1.0, 0.0, 5.0, 0.01, 0.2), "calm_volatility"),
        (lambda: VolatilityMargin(3.0, 1.0, 0.1, 5.0, 0.3, 0.2), "floor and cap"),
        (lambda: drawn_accounts(1, mmr=0.02), "below 1 / leverage"),
        (lambda: drawn_accounts(1, count=9), "two accounts or more"),
    ],
)
def test_what_is_out_of_range_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("schedule", "message"),
    [(ConstantMargin(2.0), "at step 0"), (MarginByTime(np.array([0.1])), "has 1 margins")],
)
def test_a_schedule_that_does_not_fit_is_refused(schedule, message):
    with pytest.raises(InputError, match=message):
        run_cascade(accounts_of((1.0, 100.0, 10.0)), market_of([100.0, 99.0]), schedule, Venue(0.0))
