from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.margin.account import Collateral, Position, PositionTiers, distance, pools_of
from margincast.margin.liquidation_price import Headroom, Requirement
from margincast.margin.rounding import exact


def tiers_of(floors, last_cap, mmrs):
    caps = [*floors[1:], last_cap]
    return PositionTiers(
        Requirement.of([float(f) for f in floors], [float(c) for c in caps], mmrs),
        tuple(min(1.0, 2 * rate) for rate in mmrs),
    )


# Brackets of Binance USD-M futures as they were in 2020 and 2021; their amounts (135,365 and 16,300
# in the tiers of the worked example below) follow from them.
ETH = tiers_of(
    [0, 10_000, 100_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000],
    1e9,
    [0.005, 0.0065, 0.01, 0.02, 0.05, 0.1, 0.125, 0.15, 0.25],
)
BTC = tiers_of(
    [0, 50_000, 250_000, 1_000_000, 10_000_000, 20_000_000],
    1e9,
    [0.004, 0.005, 0.01, 0.025, 0.05, 0.1],
)
LONG_ETH = Position("ETHUSDT", "long", 3683.979, 1456.84, 1335.18, ETH)
LONG_BTC = Position("BTCUSDT", "long", 109.488, 32481.98, 31967.27, BTC)
WALLET = Collateral("USD", 1535443.01, 1.0, Fraction(0))


def test_binances_worked_example_of_two_cross_positions():
    # Binance support, "How to Calculate Liquidation Price of USD-M Futures Contracts", example of
    # 2020: wallet 1,535,443.01, maintenance margins 356,512.508 and 71,200.81144; liquidation
    # prices 1,153.26 and 26,316.89. The same four numbers, isolated ones included, stand in
    # freqtrade, tests/exchange/test_binance.py, test_liquidation_price_binance.
    (pool,) = pools_of([LONG_ETH, LONG_BTC], [WALLET])
    maintenance = [each.tiers.maintenance.at(each.notional_usd) for each in pool.positions]
    assert [float(each) for each in maintenance] == pytest.approx([356512.508, 71200.81144])
    for position, price in ((LONG_ETH, 1153.26), (LONG_BTC, 26316.89)):
        found = distance(pool, position.symbol)
        assert found is not None
        assert round(float((1 + found.down) * exact(position.mark_price)), 2) == price
        assert found.up is None


@pytest.mark.parametrize(("position", "price"), [(LONG_ETH, 1114.78), (LONG_BTC, 18778.73)])
def test_binances_worked_example_of_isolated_positions(position, price):
    shared, pool = pools_of([replace(position, isolated_margin_usd=1535443.01)], [])
    assert (shared.positions, pool.equity_usd) == ((), exact(1535443.01) + position.unrealised_usd)
    found = distance(pool, position.symbol)
    assert round(float((1 + found.down) * exact(position.mark_price)), 2) == price


def test_initial_margin_is_the_whole_notional_at_the_rate_of_its_tier():
    (pool,) = pools_of([LONG_ETH, LONG_BTC], [WALLET])
    # 4,918,775.08122 at 20 % and 3,500,032.45776 at 5 %
    assert float(pool.initial_usd) == pytest.approx(983755.016244 + 175001.622888)


SIZES = st.integers(1, 10**6).map(lambda number: number / 100)
PRICES = st.integers(1, 10**5).map(lambda number: number / 10)


@st.composite
def positions(draw, symbol, *, side=None):
    floors = [0, *sorted(draw(st.sets(st.integers(1, 10**6), min_size=0, max_size=4)))]
    mmrs = sorted(draw(st.lists(st.integers(1, 5000), min_size=len(floors), max_size=len(floors))))
    return Position(
        symbol,
        side or draw(st.sampled_from(["long", "short"])),
        draw(SIZES),
        draw(PRICES),
        draw(PRICES),
        tiers_of(floors, 1e10, [rate / 10_000 for rate in mmrs]),
    )


@st.composite
def accounts(draw):
    held = [draw(positions(symbol)) for symbol in ("A", "B")]
    held.append(draw(positions("A", side="long" if held[0].side == "short" else "short")))
    need = sum(each.tiers.maintenance.at(each.notional_usd) - each.unrealised_usd for each in held)
    cash = Collateral("USD", float(draw(SIZES) + max(need, 0)) + 1.0, 1.0, Fraction(0))
    coin = Collateral(
        "COIN", draw(SIZES), draw(PRICES), Fraction(draw(st.integers(0, 99)), 100), "A"
    )
    return pools_of(held, [cash, coin])[0]


@settings(max_examples=25)
@given(accounts(), st.sampled_from(["A", "B", None]))
def test_at_the_liquidation_price_equity_is_the_requirement_and_beyond_it_less(pool, symbol):
    def after(move):
        """The account revalued at the moved prices: nothing of the solver is used."""
        moved = {symbol} if symbol else {"A", "B"}
        scale = {name: 1 + move if name in moved else 1 for name in ("A", "B")}
        required = equity = Fraction(0)
        for each in pool.positions:
            notional = each.notional_usd * scale[each.symbol]
            gain = notional - exact(each.size) * exact(each.entry_price)
            equity += gain if each.side == "long" else -gain
            required += each.tiers.maintenance.at(notional)
        for each in pool.collateral:
            equity += each.counted_usd * (scale["A"] if each.contract else 1)
        return equity - required

    found = distance(pool, symbol)
    assert after(Fraction(0)) == pool.equity_usd - pool.maintenance_usd >= 0
    for move, beyond in ((found.down, Fraction(-1, 10**6)), (found.up, Fraction(1, 10**6))):
        if move is not None:
            assert after(move) == 0
            assert after(move + beyond) < 0 or move == -1
            assert after(move / 2) >= 0
    if found.down is None:
        assert all(after(Fraction(-step, 50)) >= 0 for step in range(0, 51, 5))
    if found.up is None:
        assert all(after(Fraction(step * step)) >= 0 for step in range(0, 100, 9))


@settings(max_examples=40)
@given(positions("A"), st.integers(1, 10**9))
def test_one_position_is_liquidated_where_the_published_formula_of_its_tier_says(position, cash):
    # the slow twin: Binance's formula with every tier's rate and amount, kept where the notional at
    # the price lies in that tier
    pool = pools_of([replace(position, isolated_margin_usd=cash / 100)], [])[1]
    if pool.is_below_maintenance:
        assert distance(pool) is None
        return
    tiers, size = position.tiers.maintenance, exact(position.size)
    side = 1 if position.side == "long" else -1
    floors = [Fraction(0), *tiers.caps_usd[:-1]]
    prices = set()
    for floor, cap, rate, amount in zip(
        floors, tiers.caps_usd, tiers.rates, tiers.amounts_usd, strict=True
    ):
        price = (exact(cash / 100) + amount - side * size * exact(position.entry_price)) / (
            size * (rate - side)
        )
        if max(floor, Fraction(0)) <= price * size <= cap and price > 0:
            prices.add(price)
    found = distance(pool)
    moves = [move for move in (found.down, found.up) if move is not None and move > -1]
    assert {(1 + move) * exact(position.mark_price) for move in moves} == prices


@settings(max_examples=40)
@given(accounts())
def test_an_account_is_the_sum_of_its_parts(pool):
    alone = [pools_of([each], [])[0] for each in pool.positions]
    assert pool.maintenance_usd == sum(each.maintenance_usd for each in alone)
    assert pool.initial_usd == sum(each.initial_usd for each in alone)
    counted = sum(each.counted_usd for each in pool.collateral)
    assert pool.equity_usd == counted + sum(each.equity_usd for each in alone)


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=8).map(sorted))
def test_the_requirement_never_falls_with_notional(notionals):
    for lower, upper in pairwise(map(Fraction, notionals)):
        assert ETH.maintenance.at(lower) <= ETH.maintenance.at(upper)
        assert ETH.initial_usd(lower) <= ETH.initial_usd(upper)
        assert ETH.maintenance.at(upper) <= ETH.initial_usd(upper)


def test_what_is_owed_counts_in_full_and_haircuts_take_from_what_is_held():
    owed = Collateral("USDT", -100.0, 0.5, Fraction(1, 10))
    held = replace(owed, amount=100.0)
    assert (owed.counted_usd, held.counted_usd) == (-50, 45)


def test_collateral_that_follows_the_contract_brings_liquidation_nearer():
    still = pools_of([LONG_ETH], [WALLET])[0]
    coin = Collateral("ETH", WALLET.amount / 1335.18, 1335.18, Fraction(0), "ETHUSDT")
    follows = pools_of([LONG_ETH], [coin])[0]
    assert float(follows.equity_usd) == pytest.approx(float(still.equity_usd))
    assert distance(follows).down > distance(still).down


def test_a_hedged_account_can_be_ended_by_a_rise():
    short = replace(LONG_ETH, side="short", size=5000.0)
    found = distance(pools_of([LONG_ETH, short], [WALLET])[0])
    assert found.up is not None
    assert found.down is None


def test_a_price_beyond_the_last_tier_is_charged_its_rate():
    tiers = tiers_of([0], 200.0, [0.5])
    short = Position("A", "short", 1.0, 100.0, 100.0, tiers, isolated_margin_usd=400.0)
    # 400 + 100 - p = p / 2
    assert distance(pools_of([short], [])[1]).up == Fraction(500, 150) * 100 / 100 - 1


def test_an_account_below_its_requirement_has_no_distance():
    pool = pools_of([replace(LONG_ETH, isolated_margin_usd=0.0)], [])[1]
    assert pool.margin_ratio is None
    assert distance(pool) is None
    with pytest.raises(InputError, match="below its maintenance requirement already"):
        pool.headroom(lambda _: True).distance()


def test_nothing_that_moves_has_no_end():
    still = Headroom(Fraction(1), Fraction(0), ())
    assert (still.distance().down, still.distance().up) == (None, None)


@pytest.mark.parametrize(
    ("floors", "caps", "mmrs", "said"),
    [
        ([0.0, 2.0], [1.0, 3.0], [0.1, 0.2], "must follow one another"),
        ([1.0], [2.0], [0.1], "must follow one another"),
        ([0.0, 1.0], [1.0, 1.0], [0.1, 0.2], "must follow one another"),
        ([0.0, 1.0], [1.0, 2.0], [0.2, 0.1], "must not fall"),
    ],
)
def test_tiers_that_contradict_each_other_are_refused(floors, caps, mmrs, said):
    with pytest.raises(InputError, match=said):
        Requirement.of(floors, caps, mmrs)


def test_each_position_and_asset_is_there_once():
    with pytest.raises(InputError, match=r"found twice: .'ETHUSDT long'"):
        pools_of([LONG_ETH, LONG_ETH], [])
    with pytest.raises(InputError, match=r"found twice: .'USD'"):
        pools_of([], [WALLET, WALLET])


def test_a_notional_above_the_last_tier_has_no_initial_margin():
    with pytest.raises(InputError, match="lies above the last tier, which ends at 1,000,000,000"):
        ETH.tier(Fraction(10**9 + 1))
