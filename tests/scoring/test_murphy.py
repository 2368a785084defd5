"""Murphy diagrams: elementary scores add up to the pinball loss, and dominance is exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from margincast.core.errors import InputError
from margincast.scoring.murphy import dominance, elementary_score, murphy_diagram
from margincast.scoring.pinball import mean_pinball

VALUES = st.integers(0, 12).map(lambda value: value / 16)  # ties are the rule
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=30).map(
    lambda pairs: np.array(pairs).T
)
TRIPLES = st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=20).map(
    lambda rows: np.array(rows).T
)
LEVELS = st.floats(0.51, 0.999)


@given(PAIRS, LEVELS)
def test_integrates_to_the_pinball_loss(pairs, level):
    thresholds = np.arange(16) / 16  # steps end where outcomes and forecasts lie
    area = murphy_diagram(*pairs, level, thresholds).sum() / 16
    assert area == pytest.approx(mean_pinball(*pairs, level), abs=1e-12)


@given(PAIRS, LEVELS, st.lists(st.floats(-0.1, 1.0), min_size=1, max_size=10))
def test_counting_equals_the_definition(pairs, level, thresholds):
    found = murphy_diagram(*pairs, level, np.array(thresholds))
    slow = [elementary_score(*pairs, level, threshold).mean() for threshold in thresholds]
    assert found == pytest.approx(slow, abs=1e-12)


@given(TRIPLES, LEVELS, st.lists(st.floats(-0.1, 1.0), min_size=20, max_size=20))
def test_dominance_holds_at_every_threshold(rows, level, thresholds):
    outcome, first, second = rows
    found = dominance(outcome, first, second, level)
    thresholds = np.array(thresholds)
    difference = murphy_diagram(outcome, first, level, thresholds)
    difference -= murphy_diagram(outcome, second, level, thresholds)
    assert found.first_dominates <= bool(np.all(difference <= 1e-12))
    assert found.second_dominates <= bool(np.all(difference >= -1e-12))
    assert difference.max() <= found.largest_disadvantage + 1e-12
    assert -difference.min() <= found.largest_advantage + 1e-12
    if found.first_dominates:
        better = mean_pinball(outcome, first, level)
        assert better <= mean_pinball(outcome, second, level) + 1e-12


@given(TRIPLES, LEVELS)
def test_exchanging_the_models_exchanges_the_answer(rows, level):
    outcome, first, second = rows
    one, other = dominance(outcome, first, second, level), dominance(outcome, second, first, level)
    assert one.first_dominates == other.second_dominates
    assert one.largest_advantage == other.largest_disadvantage
    same = dominance(outcome, first, first, level)
    assert same.first_dominates
    assert same.second_dominates


def test_more_information_dominates_in_expectation():
    generator = np.random.default_rng(2)
    known, hidden = np.exp(generator.normal(-4.0, 0.4, (2, 200_000)))
    law = stats.norm()
    outcome = np.hypot(known, hidden) * law.rvs(known.size, random_state=generator)
    ideal = np.hypot(known, hidden) * law.ppf(0.95)
    constant = np.full_like(ideal, np.quantile(outcome, 0.95))
    found = dominance(outcome, ideal, constant, 0.95)
    assert found.largest_advantage > 20 * found.largest_disadvantage
    assert not found.second_dominates


@pytest.mark.parametrize("thresholds", [np.array([]), np.array([np.nan])])
def test_unusable_thresholds_are_refused(thresholds):
    with pytest.raises(InputError, match="thresholds"):
        murphy_diagram(np.array([0.1]), np.array([0.2]), 0.95, thresholds)
