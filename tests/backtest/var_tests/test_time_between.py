"""Times between failures: the textbook ratios, samples without a failure, wild spells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.proportion import kupiec_statistic
from margincast.backtest.var_tests.time_between import tbf, tbfi, tbfi_statistics, tuff

LEVELS = st.floats(0.6, 0.999)
HITS = st.lists(st.booleans(), min_size=1, max_size=120).filter(any).map(np.array)


def textbook_ratio(spell, level):
    """MATLAB's documentation of ``tuff``."""
    p, n = 1.0 - level, spell
    tail = 0.0 if n == 1 else n * np.log(n) - (n - 1) * np.log(n - 1)
    return -2.0 * (np.log(p) + (n - 1) * np.log(1.0 - p) + tail)


@given(HITS, LEVELS)
def test_ratios_of_all_spells_add_up(hits, level):
    ratios = [textbook_ratio(n, level) for n in np.diff(np.flatnonzero(hits), prepend=-1)]
    kupiec = kupiec_statistic(int(hits.sum()), hits.size, level)
    assert tuff(hits, level).statistic == pytest.approx(ratios[0], abs=1e-9)
    between, both = tbfi(hits, level), tbf(hits, level)
    assert between.statistic == pytest.approx(sum(ratios), abs=1e-9)
    assert both.statistic == pytest.approx(sum(ratios) + kupiec, abs=1e-9)
    assert between.degrees_of_freedom == hits.sum()
    assert both.degrees_of_freedom == hits.sum() + 1


@pytest.mark.parametrize("test", [tuff, tbfi])
def test_no_failure_is_judged_once_waiting_longer_cannot_help(test):
    # a failure after 100 decisions is what 0.99 promises; after 1001 it is ten times as late
    assert np.isnan(test(np.zeros(99, bool), 0.99).statistic)
    result = test(np.zeros(1000, bool), 0.99)
    assert result.statistic == pytest.approx(textbook_ratio(1001, 0.99))
    assert (result.degrees_of_freedom, result.verdict) == (1, "fail")
    assert test(np.zeros(150, bool), 0.99).verdict == "no power"


def test_no_failure_counts_in_both_parts_of_the_mixed_test():
    result = tbf(np.zeros(1000, bool), 0.99)
    expected = textbook_ratio(1001, 0.99) - 2000 * np.log(0.99)
    assert result.statistic == pytest.approx(expected)
    assert tbf(np.zeros(50, bool), 0.99).reason.startswith("no exceedance yet")


@pytest.mark.parametrize("level", [0.9, 0.99])
def test_the_standardised_sum_has_mean_zero_and_variance_one(level):
    # geometric spells drawn one by one: a fixed number of failures, whatever the length
    generator = np.random.default_rng(3)
    lengths = generator.geometric(1.0 - level, size=(4000, 10))
    sequences = np.zeros((4000, lengths.sum(axis=1).max()), bool)
    np.put_along_axis(sequences, lengths.cumsum(axis=1) - 1, values=True, axis=1)
    standardised = tbfi_statistics(sequences, level)
    assert standardised.mean() == pytest.approx(0.0, abs=0.06)
    assert standardised.std() == pytest.approx(1.0, abs=0.06)


def test_wild_spells_fail_where_the_count_is_exact():
    clustered = np.zeros(5000, bool)
    clustered[1000:1025] = clustered[3000:3025] = True
    for test in (tbfi, tbf):
        assert test(clustered, 0.99, monte_carlo=SimulatedExceedances()).verdict == "fail"


def test_the_chi_squared_law_of_many_spells_rejects_true_forecasts_but_monte_carlo_does_not():
    generator = np.random.default_rng(4)
    simulated = SimulatedExceedances()
    results = [tbfi(generator.random(2000) < 0.05, 0.95, monte_carlo=simulated) for _ in range(300)]
    assert np.mean([r.p_value < 0.05 for r in results]) > 0.15
    assert np.mean([r.monte_carlo_p_value < 0.05 for r in results]) < 0.1
