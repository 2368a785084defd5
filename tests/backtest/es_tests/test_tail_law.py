"""Laws of the unit excess: mean 1, the variance they state, and inverses that are inverses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.es_tests.tail_law import ParetoTail, StudentTail
from margincast.core.errors import InputError

LAWS = [
    ParetoTail(0.0),
    ParetoTail(0.1),
    ParetoTail(0.3),
    StudentTail(0.99),
    StudentTail(0.95, 10.0),
    StudentTail(0.975, 5.0),
]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_mean_is_one_and_variance_as_stated(law):
    nodes, weights = np.polynomial.legendre.leggauss(300)
    root = (nodes + 1.0) / 2.0
    weights = weights / 2.0 * 16.0 * root**15  # share = root^16 removes the pole at 0
    excess = law.excess(root**16)
    assert weights @ excess == pytest.approx(1.0, rel=1e-6)
    assert weights @ (excess - 1.0) ** 2 == pytest.approx(law.variance, rel=1e-4)


@pytest.mark.parametrize("law", LAWS, ids=str)
@given(share=st.floats(1e-6, 1.0))
def test_share_beyond_is_the_inverse_of_excess(law, share):
    excess = law.excess(np.array([share]))
    assert excess[0] >= -1e-12
    assert law.share_beyond(excess)[0] == pytest.approx(share, rel=1e-8)


def test_pareto_tends_to_the_exponential():
    share = np.array([0.9, 0.5, 0.01])
    assert ParetoTail(1e-9).excess(share) == pytest.approx(ParetoTail(0.0).excess(share), rel=1e-6)


def test_an_infinite_excess_is_beyond_everything():
    for law in LAWS:
        assert law.share_beyond(np.array([math.inf]))[0] == 0.0


def test_expected_shortfall_of_the_normal_law():
    law = StudentTail(0.975)
    assert law.quantile == pytest.approx(1.959963984540054)
    assert law.expected_shortfall == pytest.approx(2.337802792200)  # Basel's 2.34


@pytest.mark.parametrize("shape", [-0.1, 0.5, math.nan])
def test_shapes_without_variance_are_refused(shape):
    with pytest.raises(InputError, match=r"\[0, 0\.5\)"):
        ParetoTail(shape)


def test_few_degrees_of_freedom_are_refused():
    with pytest.raises(InputError, match="above 2"):
        StudentTail(0.99, 2.0)
    with pytest.raises(InputError, match="level"):
        StudentTail(99.0)
