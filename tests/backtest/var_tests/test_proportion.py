"""Tests of the count: sizes and powers by exact enumeration, degenerate counts, verdicts."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from margincast.backtest.var_tests.independence import (
    christoffersen_conditional_coverage,
    christoffersen_independence,
)
from margincast.backtest.var_tests.proportion import (
    coverage_power,
    exact_binomial,
    kupiec,
    kupiec_statistic,
)
from margincast.backtest.verdicts import Criterion, TestResult
from margincast.core.errors import InputError

ALL_TESTS = [
    kupiec,
    christoffersen_independence,
    christoffersen_conditional_coverage,
    exact_binomial,
]
HITS = st.lists(st.booleans(), min_size=1, max_size=200).map(lambda hits: np.array(hits, bool))
LEVELS = st.floats(0.51, 0.9995)


def hits_with(count, size):
    """Exceedances spread evenly, starting without one."""
    hits = np.zeros(size, dtype=bool)
    if count:
        hits[np.linspace(size // (2 * count), size - 1, count).astype(int)] = True
    assert hits.sum() == count
    return hits


@given(st.integers(1, 60), st.floats(0.0, 1.0), LEVELS)
def test_kupiec_equals_the_textbook_ratio_of_powers(size, share, level):
    count, p = round(share * size), 1.0 - level
    observed = count / size
    null = level ** (size - count) * p**count
    alternative = (1.0 - observed) ** (size - count) * observed**count
    assume(null > 1e-290)
    expected = -2.0 * np.log(null / alternative)
    assert kupiec_statistic(count, size, level) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(HITS, LEVELS)
def test_parts_add_up_and_probabilities_are_probabilities(hits, level):
    results = [test(hits, level) for test in ALL_TESTS]
    assert all(0.0 <= r.p_value <= 1.0 and r.statistic >= 0.0 for r in results)
    assert all((r.sample_size, r.exceedances) == (hits.size, hits.sum()) for r in results)
    proportion, independence, both, _ = results
    assert both.statistic == pytest.approx(proportion.statistic + independence.statistic)
    assert [r.degrees_of_freedom for r in results] == [1, 1, 2, 0]


@pytest.mark.parametrize("size", [250, 1000, 2_000_000])
@pytest.mark.parametrize("level", [0.95, 0.99, 0.999])
def test_no_and_only_exceedances_are_ordinary_values(size, level):
    # GAS and vartests: -2 T log(1 - p); a raw power underflows at these lengths.
    assert kupiec_statistic(0, size, level) == pytest.approx(-2 * size * np.log(level), rel=1e-9)
    every = -2 * size * np.log(1.0 - level)
    assert kupiec_statistic(size, size, level) == pytest.approx(every, rel=1e-9)
    for hits in (np.zeros(size, bool), np.ones(size, bool)):
        independence = christoffersen_independence(hits, level)
        assert (independence.statistic, independence.p_value) == (0.0, 1.0)
        both = christoffersen_conditional_coverage(hits, level)
        assert both.statistic == kupiec(hits, level).statistic
    assert kupiec(np.ones(size, bool), level).verdict == "fail"


def test_a_single_decision_is_defined():
    for hit in (False, True):
        result = christoffersen_conditional_coverage(np.array([hit]), 0.95)
        assert result.statistic == kupiec(np.array([hit]), 0.95).statistic


@pytest.mark.parametrize("size", [500, 1000, 3000])
@pytest.mark.parametrize("level", [0.95, 0.975, 0.99])
def test_exact_size_of_the_proportion_tests_is_near_nominal(size, level):
    counts = np.arange(size + 1)
    law = stats.binom(size, 1.0 - level)
    likely = counts[law.pmf(counts) > 1e-12]
    for test, largest in ((kupiec, 0.08), (exact_binomial, 0.05)):
        rejected = [test(counts < k, level).p_value < 0.05 for k in likely]
        realised = law.pmf(likely[rejected]).sum()
        assert 0.01 < realised <= largest


@pytest.mark.parametrize("size", [20, 250, 2190])
@pytest.mark.parametrize("level", [0.9, 0.99, 0.999])
def test_power_equals_slow_enumeration(size, level):
    p = 1.0 - level
    rejecting = [
        k
        for k in range(size + 1)
        if stats.binomtest(k, size, p, alternative="greater").pvalue <= 0.05
    ]
    slow = stats.binom.pmf(rejecting, size, 1.5 * p).sum()
    assert coverage_power(size, level) == pytest.approx(slow, rel=1e-9)


def test_what_two_years_of_one_contract_cannot_show():
    decisions = 2 * 365 * 3
    assert coverage_power(decisions, 0.99) < Criterion().minimum_power
    assert coverage_power(decisions, 0.999) < 0.3
    assert kupiec(hits_with(22, decisions), 0.99).verdict == "no power"
    assert kupiec(hits_with(66, decisions), 0.99).verdict == "fail"
    assert kupiec(hits_with(110, decisions), 0.95).verdict == "pass"
    assert kupiec(hits_with(100, 10_000), 0.99).verdict == "pass"


def test_the_criterion_decides():
    hits = hits_with(22, 2190)
    assert kupiec(hits, 0.99, Criterion(minimum_power=0.5)).verdict == "pass"
    assert kupiec(hits, 0.99, Criterion(detectable_ratio=2.0)).verdict == "pass"
    # 30 exceedances for 21.9 expected: p is about 0.1.
    assert kupiec(hits_with(30, 2190), 0.99, Criterion(significance=0.2)).verdict == "fail"


@pytest.mark.parametrize("test", ALL_TESTS)
@pytest.mark.parametrize(
    "hits",
    [np.array([], bool), np.array([0.0, 1.0]), np.array([[True, False]]), np.array([0, np.nan])],
)
def test_what_is_no_sequence_of_exceedances_is_refused(test, hits):
    with pytest.raises(InputError, match="boolean array"):
        test(hits, 0.99)


@pytest.mark.parametrize("test", ALL_TESTS)
@pytest.mark.parametrize("level", [0.01, 99.0, 1.0])
def test_a_level_outside_its_range_is_refused(test, level):
    clustered = np.arange(200) < 100
    with pytest.raises(InputError, match="level must lie"):
        test(clustered, level)


@pytest.mark.parametrize(
    "call",
    [
        lambda: kupiec_statistic(-1, 10, 0.99),
        lambda: kupiec_statistic(11, 10, 0.99),
        lambda: coverage_power(0, 0.99),
        lambda: coverage_power(100, 0.9, Criterion(detectable_ratio=11.0)),
        lambda: Criterion(significance=0.0),
        lambda: Criterion(minimum_power=1.0),
        lambda: Criterion(detectable_ratio=1.0),
    ],
)
def test_impossible_numbers_are_refused(call):
    with pytest.raises(InputError, match=r"found|at most"):
        call()


def test_equal_exceedances_give_equal_results_and_a_result_cannot_be_changed():
    hits = hits_with(3, 300)
    result = kupiec(hits, 0.99)
    assert isinstance(result, TestResult)
    assert result == kupiec(hits[::-1], 0.99)
    assert result != kupiec(hits_with(4, 300), 0.99)
    with pytest.raises(AttributeError):
        result.verdict = "pass"
