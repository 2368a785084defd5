"""Importances are the contributions of single explanations, at many decisions at once."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models.attribution_case import LEVELS, MODEL, SIDES, other_days, simulated

from margincast.models._plots import draw_contributions, draw_importances
from margincast.models.attribution import logarithmic_mean
from margincast.models.importance import importances, logarithmic_means
from margincast.models.margincast import MargincastForecaster
from margincast.models.parts import parts_of


@pytest.fixture(scope="module")
def fitted():
    return MargincastForecaster(MODEL, SIDES, LEVELS, overlap=1.0, threads=1).fit(simulated())


@pytest.fixture(scope="module")
def future():
    return other_days()


@pytest.fixture(scope="module")
def importance(fitted, future):
    return importances(fitted, future)


def test_importances_split_scale_and_head_without_remainder(fitted, future, importance):
    stages = fitted.stages(future)
    width = stages.scale.predict(future.frame)
    known = np.isfinite(width)
    heads = stages.head.predict(future.rows(known).frame, width[known])
    assert [(one.side, one.level) for one in importance] == [
        (side, level) for side in SIDES for level in stages.head.levels
    ]
    for one in importance:
        head = heads[:, SIDES.index(one.side), stages.head.levels.index(one.level)]
        positive = head > 0
        assert one.decisions == positive.sum()
        assert one.left_out == len(future) - positive.sum()
        total = np.log(width[known][positive] * head[positive])
        left = total - one.contributions.sum(axis=1)
        # what is left is the logarithm of the average, the same for every decision
        np.testing.assert_allclose(left, left[0], rtol=0, atol=1e-9)


def test_importances_are_those_of_a_single_explanation(fitted, future, importance):
    usual, parts = parts_of(fitted, future, 3, "short", 0.95)
    one = next(one for one in importance if (one.side, one.level) == ("short", 0.95))
    width = fitted.stages(future).scale.predict(future.frame)
    assert one.left_out == (~np.isfinite(width)).sum()
    row = np.flatnonzero(np.isfinite(width)).tolist().index(3)
    value = parts.average_head + sum(parts.head.values())
    mean = logarithmic_mean(value, usual.average_head)
    for name in one.features:
        column = one.features.index(name)
        assert one.scale[row, column] == pytest.approx(parts.scale.get(name, 0.0), abs=1e-12)
        assert one.head[row, column] == pytest.approx(parts.head.get(name, 0.0) / mean, abs=1e-12)
        np.testing.assert_allclose(one.worth[row, column], parts.worth[name], rtol=1e-12)


def test_importances_find_what_was_put_in(importance):
    for one in importance:
        table = one.table().set_index("feature")
        assert table["mean_absolute"].is_monotonic_decreasing
        assert table["through_head"].drop("stress").max() < table.loc["stress", "through_head"]
        assert table.loc["stress", "through_scale"] == 0.0
        assert table.loc["stress", "known"] == pytest.approx(0.8, abs=0.03)


@given(st.floats(1e-3, 1e3), st.floats(-1e-3, 1e-3) | st.floats(-5, 5))
def test_logarithmic_means_of_arrays_are_those_of_pairs(right, distance):
    left = right * math.exp(distance)
    (found,) = logarithmic_means(np.array([left]), np.array([right]))
    assert found == pytest.approx(logarithmic_mean(left, right), rel=1e-12)


def test_the_figures_name_every_feature_that_is_shown(importance):
    for draw in (draw_importances, draw_contributions):
        (axes,) = draw(importance[0]).axes
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert labels[::-1] == importance[0].table()["feature"].head(20).tolist()
