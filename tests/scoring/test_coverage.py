"""Exceedances, coverage and shortfall, and what every score demands of its input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.scoring.coverage import (
    coverage,
    exceedance_ratio,
    exceedances,
    mean_shortfall,
    quantile_crossings,
    require_level,
    shortfall,
)
from margincast.scoring.fissler_ziegel import fz0_loss
from margincast.scoring.pinball import mean_pinball, pinball_loss

PAIRS = st.lists(st.tuples(st.floats(0.0, 0.9), st.floats(0.0, 0.9)), min_size=1, max_size=40).map(
    lambda pairs: np.array(pairs).T
)

PAIRED_SCORES = [
    exceedances,
    coverage,
    shortfall,
    mean_shortfall,
    lambda outcome, forecast: exceedance_ratio(outcome, forecast, 0.99),
    lambda outcome, forecast: pinball_loss(outcome, forecast, 0.99),
    lambda outcome, forecast: mean_pinball(outcome, forecast, 0.99),
    lambda outcome, forecast: fz0_loss(outcome, forecast, np.full(2, 9.0), 0.99),
]


def test_an_outcome_equal_to_its_forecast_is_no_exceedance():
    outcome = np.array([0.01, 0.02, np.nextafter(0.02, 1.0)])
    assert exceedances(outcome, np.full(3, 0.02)).tolist() == [False, False, True]


@given(PAIRS)
def test_coverage_is_the_share_without_shortfall(pairs):
    outcome, forecast = pairs
    assert coverage(outcome, forecast) == pytest.approx(np.mean(shortfall(*pairs) == 0.0))
    assert np.array_equal(exceedances(*pairs), shortfall(*pairs) > 0.0)
    # A margin raised by the shortfall is never exceeded.
    assert np.all(outcome <= forecast + shortfall(*pairs) + 1e-15)


@given(PAIRS)
def test_mean_shortfall_is_per_exceedance(pairs):
    count = exceedances(*pairs).sum()
    if count == 0:
        assert np.isnan(mean_shortfall(*pairs))
    else:
        assert mean_shortfall(*pairs) * count == pytest.approx(shortfall(*pairs).sum())


@pytest.mark.parametrize("level", [0.95, 0.99, 0.999])
def test_exact_coverage_has_ratio_one(level):
    outcome = (np.arange(100_000) + 0.5) / 100_000
    assert exceedance_ratio(outcome, np.full_like(outcome, level), level) == pytest.approx(1.0)
    doubled = np.full_like(outcome, 1.0 - 2.0 * (1.0 - level))
    assert exceedance_ratio(outcome, doubled, level) == pytest.approx(2.0)


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 1000))
def test_crossings_count_every_inverted_neighbour(rows, columns, seed):
    matrix = np.random.default_rng(seed).uniform(0.0, 0.5, (rows, columns))
    levels = [0.9, 0.95, 0.99, 0.995, 0.999][:columns]
    ordered = np.sort(matrix, axis=1)
    assert quantile_crossings(ordered, levels) == 0
    assert quantile_crossings(ordered[:, ::-1], levels) == rows * (columns - 1)
    slow = sum(row[k + 1] < row[k] for row in matrix for k in range(columns - 1))
    assert quantile_crossings(matrix, levels) == slow


def test_equal_neighbours_do_not_cross():
    assert quantile_crossings(np.full((4, 3), 0.02), [0.99, 0.995, 0.999]) == 0


@pytest.mark.parametrize(
    ("matrix", "levels", "found"),
    [
        (np.ones((3, 2)), [0.99, 0.995, 0.999], r"expected \(n, 3\)"),
        (np.ones(3), [0.99], r"shape \(3,\)"),
        (np.ones((3, 2)), [0.995, 0.99], "increase"),
        (np.ones((3, 2)), [0.99, 0.99], "increase"),
        (np.ones((3, 2)), [0.1, 0.99], "found 0.1"),
        (np.array([[0.1, np.nan]]), [0.99, 0.999], "1 NaN"),
    ],
)
def test_unusable_forecast_matrices_are_refused(matrix, levels, found):
    with pytest.raises(InputError, match=found):
        quantile_crossings(matrix, levels)


@pytest.mark.parametrize("score", PAIRED_SCORES)
@pytest.mark.parametrize(
    ("outcome", "forecast", "found"),
    [
        ([0.01, np.nan], [0.01, 0.02], "outcome holds 1 NaN or infinite values among 2"),
        ([0.01, 0.02], [np.nan, np.inf], "forecast holds 2 NaN or infinite values among 2"),
        ([0.01, 0.02], [0.01], "must pair"),
        ([], [], "outcome is empty"),
        ([0.01, 0.02], [2.1, 2.3], "median forecast is 2.2"),
        ([1.5, 3.0], [0.01, 0.02], "median outcome is 2.25"),
    ],
)
def test_unusable_pairs_are_refused_by_every_score(score, outcome, forecast, found):
    with pytest.raises(InputError, match=found):
        score(np.array(outcome), np.array(forecast))


def test_a_single_outcome_above_the_price_is_no_per_cent():
    outcome = np.array([0.01, 0.02, 1.8])
    assert exceedances(outcome, np.full(3, 0.05)).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("level", "advice"),
    [
        (99.0, "did you mean 0.99"),
        (0.01, "did you mean 0.99"),
        (1.0, "found 1"),
        (0.5, "found 0.5"),
        (-1.0, "found -1"),
        (float("nan"), "found nan"),
    ],
)
def test_a_level_outside_its_range_gets_advice(level, advice):
    with pytest.raises(InputError, match=advice):
        require_level(level)
