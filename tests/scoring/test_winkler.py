"""Winkler's interval score: the pinball losses of both bounds, in one number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.scoring.pinball import pinball_loss
from margincast.scoring.winkler import interval_score

FRACTIONS = st.floats(-0.9, 0.9)
INTERVALS = st.lists(st.tuples(FRACTIONS, FRACTIONS, FRACTIONS), min_size=1, max_size=30).map(
    lambda rows: (np.array(rows)[:, 0], *np.sort(np.array(rows)[:, 1:], axis=1).T)
)
LEVELS = st.floats(0.51, 0.999)


@given(INTERVALS, LEVELS)
def test_is_the_pinball_losses_of_both_bounds(rows, level):
    outcome, lower, upper = rows
    # the lower bound is the upper bound of the outcome's negative
    losses = pinball_loss(outcome, upper, level) + pinball_loss(-outcome, -lower, level)
    found = interval_score(outcome, lower, upper, level)
    assert found == pytest.approx(losses / (1.0 - level), rel=1e-9, abs=1e-12)


@given(INTERVALS, LEVELS)
def test_is_the_width_and_more_outside_only(rows, level):
    outcome, lower, upper = rows
    extra = interval_score(outcome, lower, upper, level) - (upper - lower)
    inside = (lower <= outcome) & (outcome <= upper)
    assert np.all(extra[inside] == 0.0)
    outside = np.maximum(lower - outcome, outcome - upper)[~inside]
    assert extra[~inside] == pytest.approx(outside / (1.0 - level), abs=1e-12)


def test_the_true_interval_wins_in_simulation():
    generator = np.random.default_rng(1)
    scale = np.exp(generator.normal(-4.0, 0.5, 100_000))
    outcome = scale * generator.standard_normal(scale.size)
    width = 1.6448536269514722 * scale

    def mean(factor, width=width):
        return interval_score(outcome, -factor * width, factor * width, 0.95).mean()

    assert mean(1.0) < min(mean(0.85), mean(1.15))
    constant = np.full_like(width, np.quantile(np.abs(outcome), 0.9))
    assert mean(1.0) < mean(1.0, constant)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (([0.0], [0.1], [-0.1], 0.95), "1 of 1 intervals"),
        (([0.0, 0.0], [-0.1, -0.1], [0.1], 0.95), "pair one to one"),
        (([np.nan], [-0.1], [0.1], 0.95), "1 NaN"),
        (([0.0], [-0.1], [0.1], 0.05), "did you mean 0.95"),
    ],
)
def test_unusable_input_is_refused(call, found):
    with pytest.raises(InputError, match=found):
        interval_score(*(np.array(values) for values in call[:3]), call[3])
