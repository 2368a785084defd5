from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from margincast.core.errors import InputError
from margincast.margin.collateral import (
    HAIRCUT_STEPS,
    HaircutInputs,
    account_haircut,
    haircuts,
    joint_tail_share,
    tail_quantile,
    wrong_way_exceedance,
)
from margincast.margin.rounding import round_up

FLOOR, CAP, STEP = 0.01, 0.9, 0.005


def inputs_of(**values):
    given = {"forecast": 0.1, "cost": 0.0, "long_run": np.nan, "depeg_floor": 0.0, "fallback": 0.3}
    return HaircutInputs(**{k: np.array([v], dtype=float) for k, v in (given | values).items()})


def haircut_of(**values):
    return haircuts(inputs_of(**values), floor=FLOOR, cap=CAP, step=STEP)


@pytest.mark.parametrize(
    ("values", "haircut", "rule"),
    [
        # What is left after a fall of 10 % is sold 1 % lower: 1 - 0.9 x 0.99 = 10.9 %, and up
        ({"cost": 0.01}, 0.11, "forecast"),
        ({"long_run": 0.2}, 0.2, "long-run floor"),
        ({"forecast": 0.001, "depeg_floor": 0.05}, 0.05, "depeg floor"),
        ({"forecast": 0.0, "depeg_floor": 0.05}, 0.05, "depeg floor"),
        ({"forecast": 0.001}, 0.01, "floor"),
        ({"forecast": 0.95}, 0.9, "cap"),
        ({"forecast": np.nan}, 0.3, "fallback"),
        ({"forecast": 1.0, "depeg_floor": 0.4}, 0.4, "fallback"),
        ({"forecast": -0.1, "fallback": 0.0}, 0.01, "fallback"),
        ({"forecast": np.nan, "fallback": 0.99}, 0.9, "fallback"),
    ],
)
def test_haircuts_by_hand(values, haircut, rule):
    made = haircut_of(**values)
    assert made.haircut.tolist() == [haircut]
    assert made.binding() == (rule,)
    assert made.fallback.tolist() == [rule == "fallback"]


def slow_haircut(forecast, cost, long_run, depeg_floor, fallback):
    if not 0.0 <= forecast < 1.0:
        value = max(fallback, depeg_floor)
    else:
        value = max(forecast + cost * (1.0 - forecast), depeg_floor)
        value = value if np.isnan(long_run) else max(value, long_run)
    return min(round_up(min(max(value, FLOOR), CAP), STEP), CAP)


RATES = st.floats(0.0, 1.2)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            RATES | st.just(np.nan),
            st.floats(0, 0.1),
            RATES | st.just(np.nan),
            st.just(0.0) | st.floats(0, 0.2),
            st.floats(0, 0.9),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_all_at_once_is_one_after_another_and_each_within_floor_and_cap(assets):
    columns = [np.array(column) for column in zip(*assets, strict=True)]
    made = haircuts(HaircutInputs(*columns), floor=FLOOR, cap=CAP, step=STEP)
    assert made.haircut.tolist() == [slow_haircut(*asset) for asset in assets]
    assert made.haircut.min() >= FLOOR
    assert made.haircut.max() <= CAP
    assert made.values.shape == (len(HAIRCUT_STEPS), len(assets))


@given(st.floats(0.0, 0.999), st.floats(0.0, 0.999), st.sampled_from(["forecast", "long_run"]))
def test_a_larger_forecast_never_lowers_a_haircut(first, second, name):
    low, high = sorted((first, second))
    assert haircut_of(**{name: low}).haircut <= haircut_of(**{name: high}).haircut


def test_the_conditional_level_is_the_one_that_holds_in_a_joint_sample():
    # Mixture: with probability chi' both tails are one, otherwise the ranks are independent. The
    # haircut of the conditional level holds with the level in the events it is for, the plain one
    # does not.
    generator = np.random.default_rng(5)
    count, level, together = 2_000_000, 0.95, 0.4
    position = generator.uniform(size=count)
    asset = np.where(generator.uniform(size=count) < together, position, 1.0)
    free = asset == 1.0
    asset[free] = generator.uniform(size=int(free.sum()))
    liquidated = position < 1.0 - level
    chi = joint_tail_share(liquidated, asset < 1.0 - level)
    assert chi == pytest.approx(together + (1 - together) * (1 - level), abs=0.01)
    p = float(wrong_way_exceedance(level, chi))
    assert (asset[liquidated] < p).mean() == pytest.approx(1 - level, abs=0.003)
    assert (asset[liquidated] < 1 - level).mean() > 0.4


def test_without_dependence_nothing_is_added_and_with_all_of_it_the_level_is_squared():
    assert wrong_way_exceedance(0.99, np.array([0.0, 0.01, 1.0])) == pytest.approx(
        [0.01, 0.01, 1e-4]
    )


@pytest.mark.parametrize("shape", [0.1, 0.3, 0.6])
def test_the_tail_is_exact_for_a_power_law(shape):
    quantile = stats.pareto(1 / shape).isf
    found = tail_quantile(
        np.array([quantile(0.01)]),
        np.array([quantile(0.001)]),
        np.array([1e-4]),
        level=0.99,
        tail_level=0.999,
    )
    assert found == pytest.approx([quantile(1e-4)])


@settings(max_examples=40)
@given(st.floats(1e-4, 0.5), st.floats(1.0, 3.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_more_joint_tail_never_lowers_the_wrong_way_forecast(forecast, ratio, first, second):
    chi = np.sort([0.0, first, second])
    found = tail_quantile(
        np.full(3, forecast),
        np.full(3, forecast * ratio),
        wrong_way_exceedance(0.99, chi),
        level=0.99,
        tail_level=0.999,
    )
    assert np.all(np.diff(found) >= 0.0)
    assert found[0] == pytest.approx(forecast)


@pytest.mark.parametrize(
    ("low", "high", "found"), [(0.0, 0.0, 0.0), (0.2, 0.1, np.nan), (np.nan, 0.1, np.nan)]
)
def test_forecasts_that_make_no_tail_make_no_quantile(low, high, found):
    arrays = (np.array([low]), np.array([high]), np.array([0.001]))
    made = tail_quantile(*arrays, level=0.99, tail_level=0.999)
    np.testing.assert_array_equal(made, [found])


def test_a_joint_tail_needs_events():
    nothing = np.zeros(3, dtype=bool)
    with pytest.raises(InputError, match="0 exceedances"):
        joint_tail_share(nothing, nothing)
    with pytest.raises(InputError, match="found shapes"):
        joint_tail_share(np.ones(2, dtype=bool), nothing)


USD = st.integers(0, 10**6).map(Fraction)
CASES = {"haircut": Fraction(1, 10), "own_haircut": Fraction(1, 2), "other_haircut": Fraction(1, 5)}


def test_the_wrong_way_part_by_hand():
    # 100 of collateral, a long of 30 in its contract, of 50 in others: 15 + 10 + 2 = 27
    assert account_haircut(Fraction(100), Fraction(30), Fraction(50), **CASES) == Fraction(27, 100)


@settings(max_examples=40)
@given(st.integers(1, 10**6).map(Fraction), USD, USD, USD)
def test_wrong_way_haircuts_lie_between_plain_and_own_and_grow_with_the_longs(
    value, own, other, more
):
    found = account_haircut(value, own, other, **CASES)
    assert CASES["haircut"] <= found <= CASES["own_haircut"]
    assert account_haircut(value, own + more, other, **CASES) >= found
    assert account_haircut(value, own, other + more, **CASES) >= found
    # what counts never falls when collateral is added
    counted = [
        each * (1 - account_haircut(each, own, other, **CASES)) for each in (value, value + more)
    ]
    assert counted[0] <= counted[1]


def test_no_long_no_add_on():
    assert account_haircut(Fraction(9), Fraction(0), Fraction(0), **CASES) == CASES["haircut"]


def test_a_fallback_shows_no_steps():
    made = haircuts(
        replace(inputs_of(), forecast=np.array([np.nan])), floor=FLOOR, cap=CAP, step=STEP
    )
    assert np.isnan(made.values).all()
