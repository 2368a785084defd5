"""Impact, hypothetical shocks and reverse stress: each against the others and against hands."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from margincast.backtest.stress.impact import ImpactLaw
from margincast.backtest.stress.positions import StressedPositions, shortfall_usd
from margincast.backtest.stress.reverse import reverse_stress
from margincast.backtest.stress.shocks import ShockGrid, scaled_historical, shock_surface
from margincast.core.errors import InputError

NO_IMPACT = ImpactLaw(0.0)


def positions_of(notional, margin, volatility=None, depth=None):
    count = len(notional)
    return StressedPositions(
        tuple(f"p{row}" for row in range(count)),
        np.array(notional, float),
        np.array(margin, float),
        np.full(count, 0.02) if volatility is None else np.array(volatility, float),
        np.full(count, 1e6) if depth is None else np.array(depth, float),
    )


@st.composite
def drawn_positions(draw):
    count = draw(st.integers(1, 5))

    def several(low, high):
        return draw(st.lists(st.floats(low, high), min_size=count, max_size=count))

    signs = draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=count, max_size=count))
    notional = np.array(signs) * np.array(several(1e3, 1e6))
    return positions_of(notional, several(0.01, 0.3), several(0.01, 0.1), several(1e5, 1e7))


LAWS = st.builds(ImpactLaw, st.floats(0.0, 0.1), st.sampled_from(["linear", "square-root"]))


@given(LAWS, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_the_mean_move_is_the_integral_of_the_move(law, before, after):
    if abs(after - before) < 1.0:
        return
    bend = [0.0] if before * after < 0.0 else None
    integral, _ = quad(lambda size: float(law.move(size, 5e5)), before, after, points=bend)
    expected = integral / (after - before)
    assert law.mean_move(before, after, 5e5) == pytest.approx(expected, abs=1e-8)
    assert law.mean_move(0.0, after, 5e5) == pytest.approx(
        np.sign(after) * float(law.cost(after, 5e5)), abs=1e-12
    )
    assert law.mean_move(after, after, 5e5) == float(law.move(after, 5e5))


def test_the_laws_by_hand():
    assert float(ImpactLaw(0.01, "linear").move(5e5, 1e6)) == pytest.approx(0.005)
    assert float(ImpactLaw(0.01, "linear").cost(5e5, 1e6)) == pytest.approx(0.0025)
    assert float(ImpactLaw(0.01).move(-2.5e5, 1e6)) == pytest.approx(-0.005)
    assert float(ImpactLaw(0.01).cost(2.5e5, 1e6)) == pytest.approx(0.01 / 3)


def test_a_shock_by_hand():
    # long 100k at 5 %, short 50k at 5 %; the second contract is twice as volatile
    positions = positions_of([1e5, -5e4], [0.05, 0.05], [0.02, 0.04])
    grid = ShockGrid(price_moves=(-0.10, 0.10), correlations=(0.5, 1.0))
    found = shock_surface(positions, grid, NO_IMPACT, leader_volatility=0.02)
    expected = {
        (0, 0): [0.0, 0.0],  # the long's contract falls 5 %: just held
        (0, 1): [5e3, 0.0],
        (1, 0): [0.0, 5e4 * 0.05],  # the short's rises 10 %
        (1, 1): [0.0, 5e4 * 0.15],
    }
    for (price, correlation), lost in expected.items():
        assert found.by_position_usd[price, 0, 0, correlation] == pytest.approx(lost, abs=1e-6)
    worst, shock = found.worst()
    assert worst == pytest.approx(7.5e3)
    assert (shock["price_move"], shock["correlation"]) == (0.10, 1.0)


@given(drawn_positions(), LAWS, st.floats(0.0, 3.0))
def test_nothing_gets_better_when_the_shock_gets_worse(positions, law, own):
    grid = ShockGrid(
        price_moves=(-0.05, -0.1, -0.3),
        volatility_factors=(1.0, 2.0, 5.0),
        depth_factors=(1.0, 0.3, 0.02),
        correlations=(1.0,),
    )
    lost = shock_surface(
        positions, grid, law, leader_volatility=0.02, own_deviations=own
    ).by_position_usd
    assert (np.diff(lost, axis=1) >= -1e-9).all()
    assert (np.diff(lost, axis=2) >= -1e-9).all()
    long = positions.is_long
    assert (np.diff(lost[..., long], axis=0) >= -1e-9).all()
    assert (lost[..., ~long] == 0.0).all()


@given(drawn_positions(), st.floats(0.0, 2.0))
def test_own_moves_hurt_both_sides_and_vanish_at_full_correlation(positions, own):
    grid = ShockGrid(price_moves=(1e-12,), volatility_factors=(5.0,), correlations=(0.0, 1.0))
    found = shock_surface(positions, grid, NO_IMPACT, leader_volatility=0.02, own_deviations=own)
    lost = found.by_position_usd[0, 0, 0]
    adverse = own * 5.0 * positions.volatility
    adverse = np.where(positions.is_long, np.minimum(adverse, 1.0), adverse)
    expected = np.abs(positions.notional_usd) * np.maximum(adverse - positions.margin, 0.0)
    np.testing.assert_allclose(lost[0], expected, rtol=1e-9, atol=1e-6)
    assert (lost[1] == 0.0).all()


@given(drawn_positions(), LAWS, st.sampled_from([0.5, 1.0, 2.0, 10.0]))
def test_scaled_history_is_history_at_one_and_a_price_never_falls_below_zero(
    positions, law, factor
):
    moves = np.linspace(-0.6, 0.8, 4 * len(positions.names)).reshape(4, -1)
    found = scaled_historical(positions, moves, np.array([1.0, factor, 0.0]), law)
    as_it_was = shortfall_usd(positions, moves, law).sum(axis=1)
    np.testing.assert_allclose(found[:, 0], as_it_was)
    assert (found[:, 2] == 0.0).all()
    squared = shortfall_usd(positions, (1.0 + moves) ** factor - 1.0, law).sum(axis=1)
    np.testing.assert_allclose(found[:, 1], squared, rtol=1e-9)


@given(
    positions=drawn_positions(),
    law=LAWS,
    fund=st.floats(0.0, 3e5),
    direction=st.sampled_from(["down", "up"]),
    correlation=st.sampled_from([0.3, 1.0]),
    concentration=st.sampled_from([0.2, 1.0]),
)
def test_reverse_stress_is_the_inverse_of_stress(
    *, positions, law, fund, direction, correlation, concentration
):
    found = reverse_stress(
        positions,
        fund,
        law,
        leader_volatility=0.03,
        direction=direction,
        correlation=correlation,
        concentration=concentration,
    )
    part = StressedPositions(
        positions.names,
        concentration * positions.notional_usd,
        positions.margin,
        positions.volatility,
        positions.depth_usd,
    )
    sign = -1.0 if direction == "down" else 1.0

    def draw(move):
        own = sign * move * correlation * positions.volatility / 0.03
        return shortfall_usd(part, np.maximum(own, -1.0), law).sum()

    assert found.move_exhausting_margin <= found.move_exhausting_fund
    for move, covered in (
        (found.move_exhausting_margin, 0.0),
        (found.move_exhausting_fund, fund),
    ):
        if np.isinf(move):
            assert draw(1.0 if direction == "down" else 1e-9) <= covered + 1e-6
            continue
        if move > 1e-9:
            assert draw(move * (1.0 - 1e-9)) <= covered + 1e-6 * (1.0 + covered)
        assert draw(move * (1.0 + 1e-6) + 1e-9) > covered * (1.0 - 1e-9)
    if direction == "down":
        assert found.largest_draw_usd == pytest.approx(draw(1.0), abs=1e-6)


def test_reverse_stress_by_hand():
    # 100k at 5 %, 100k of a contract twice as volatile at 20 %
    positions = positions_of([1e5, 1e5, -1e9], [0.05, 0.20, 0.01], [0.02, 0.04, 0.02])
    found = reverse_stress(positions, 2e4, NO_IMPACT, leader_volatility=0.02)
    assert found.move_exhausting_margin == pytest.approx(0.05)
    assert found.first_to_fail == "p0"
    # the first alone draws 5k at 10 %; from there both draw, 3e5 a unit: 15k more
    assert found.move_exhausting_fund == pytest.approx(0.15)
    assert found.positions_failing == ("p0", "p1")
    assert found.largest_draw_usd == pytest.approx(1e5 * 0.95 + 1e5 * 0.80)
    rich = reverse_stress(positions, 2e5, NO_IMPACT, leader_volatility=0.02)
    assert np.isinf(rich.move_exhausting_fund)


def test_concentration_and_thin_books_bring_the_move_nearer():
    positions = positions_of([1e6], [0.05])
    law = ImpactLaw(0.03)
    spread_out, one_hand, thin = (
        reverse_stress(positions, 1e4, law, leader_volatility=0.02, **change)
        for change in ({"concentration": 0.1}, {}, {"depth_factor": 0.1})
    )
    moves = [each.move_exhausting_margin for each in (spread_out, one_hand, thin)]
    assert moves == sorted(moves, reverse=True)
    assert one_hand.move_exhausting_margin == pytest.approx(0.05 - 0.02)
    assert thin.move_exhausting_margin == 0.0  # the cost alone is 6.3 %
    assert thin.first_to_fail == "p0"


def test_nobody_loses_on_the_winning_side():
    found = reverse_stress(positions_of([-1e5], [0.05]), 0.0, NO_IMPACT, leader_volatility=0.02)
    assert np.isinf(found.move_exhausting_margin)
    assert (found.first_to_fail, found.largest_draw_usd) == ("", 0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImpactLaw(-1.0), "zero or more"),
        (lambda: ImpactLaw(1.0, "cubic"), "'linear' or 'square-root'"),
        (lambda: positions_of([0.0], [0.05]), "no position"),
        (lambda: positions_of([1.0], [5.0]), "per cents"),
        (lambda: positions_of([1.0], [0.05], depth=[0.0]), "depth_usd must be positive"),
        (lambda: positions_of([1.0, 2.0], [0.05]), "one value a position"),
        (lambda: ShockGrid(()), "price_moves is empty"),
        (lambda: ShockGrid((-1.0,)), "above -1"),
        (lambda: ShockGrid((-0.1,), correlations=(1.5,)), r"\[0, 1\]"),
        (lambda: ShockGrid((-0.1,), depth_factors=(0.0,)), "depth_factors must lie above 0"),
    ],
)
def test_shapes_and_ranges_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_arguments_out_of_range_are_refused():
    positions = positions_of([1e5], [0.05])
    with pytest.raises(InputError, match="leader_volatility must be positive"):
        shock_surface(positions, ShockGrid((-0.1,)), NO_IMPACT, leader_volatility=0.0)
    with pytest.raises(InputError, match="shape"):
        scaled_historical(positions, np.array([-0.1]), np.array([1.0]), NO_IMPACT)
    with pytest.raises(InputError, match="factors must be zero or more"):
        scaled_historical(positions, np.array([[-0.1]]), np.array([-1.0]), NO_IMPACT)
    for change in (
        {"correlation": 0.0},
        {"concentration": 1.1},
        {"depth_factor": 0.0},
        {"fund_usd": -1.0},
    ):
        arguments = {"fund_usd": 0.0, "leader_volatility": 0.02} | change
        with pytest.raises(InputError):
            reverse_stress(positions, impact=NO_IMPACT, **arguments)
