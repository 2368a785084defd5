"""FZ0 loss: a proper score of quantile and expected shortfall together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from margincast.core.errors import InputError
from margincast.scoring.fissler_ziegel import fz0_loss

LEVELS = st.floats(0.6, 0.999)
ROWS = st.lists(
    st.tuples(st.floats(-0.5, 0.9), st.floats(0.001, 0.5), st.floats(1.0, 3.0)),
    min_size=1,
    max_size=40,
).map(lambda rows: (np.array(rows).T[0], np.array(rows).T[1], np.prod(np.array(rows)[:, 1:], 1)))


@given(ROWS, LEVELS)
def test_equals_the_returns_side_form_of_patton_ziegel_chen(rows, level):
    outcome, forecast, shortfall = rows
    y, v, e, alpha = -outcome, -forecast, -shortfall, 1.0 - level
    published = -((y <= v) * (v - y)) / (alpha * e) + v / e + np.log(-e) - 1.0
    assert fz0_loss(outcome, forecast, shortfall, level) == pytest.approx(published, rel=1e-9)


@given(ROWS, LEVELS, st.floats(0.01, 1.0))
def test_scale_adds_its_logarithm_so_rankings_stay(rows, level, factor):
    scaled = fz0_loss(*(factor * values for values in rows), level)
    expected = fz0_loss(*rows, level) + np.log(factor)
    assert scaled == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_the_true_pair_wins_in_simulation(level):
    generator = np.random.default_rng(12)
    degrees = 5.0
    scale = np.exp(generator.normal(-4.5, 0.4, 400_000))
    outcome = scale * generator.standard_t(degrees, scale.size)
    quantile = stats.t(degrees).ppf(level)
    # Closed form of the t tail, McNeil, Frey and Embrechts (2015), example 2.15.
    shortfall = stats.t(degrees).pdf(quantile) / (1 - level)
    shortfall *= (degrees + quantile**2) / (degrees - 1)

    def loss(quantile_factor, shortfall_factor):
        forecast = scale * quantile * quantile_factor
        return fz0_loss(outcome, forecast, scale * shortfall * shortfall_factor, level).mean()

    of_truth = loss(1.0, 1.0)
    for rival in [(0.85, 1.0), (1.15, 1.0), (1.0, 0.8), (1.0, 1.25), (0.9, 0.9), (1.15, 1.15)]:
        assert of_truth < loss(*rival), rival


@pytest.mark.parametrize(
    ("shortfall", "found"),
    [
        ([0.02, 0.0], "1 of 2 expected shortfalls"),
        ([-0.02, -0.03], "2 of 2 expected shortfalls"),
        ([0.009, 0.03], "1 of 2 expected shortfalls"),
        ([0.02, np.nan], "1 NaN"),
        ([0.02], r"shape \(1,\)"),
    ],
)
def test_impossible_expected_shortfalls_are_refused(shortfall, found):
    with pytest.raises(InputError, match=found):
        fz0_loss(np.array([0.01, 0.02]), np.array([0.01, 0.01]), np.array(shortfall), 0.99)
