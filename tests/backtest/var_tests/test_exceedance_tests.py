"""What all tests of exceedances promise alike: Monte-Carlo size, degenerate samples, bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.monte_carlo import SimulatedExceedances, rank_p_value
from margincast.backtest.var_tests import (
    duration,
    gmm_duration,
    independence,
    proportion,
    time_between,
    ziggel,
)
from margincast.core.errors import InputError

NAMES = {
    proportion: ("kupiec", "exact_binomial", "mid_p_binomial", "normal_binomial"),
    independence: ("christoffersen_independence", "christoffersen_conditional_coverage"),
    time_between: ("tuff", "tbfi", "tbf"),
    duration: ("weibull_duration",),
    gmm_duration: (
        "gmm_unconditional_coverage",
        "gmm_independence",
        "gmm_conditional_coverage",
    ),
    ziggel: (
        "ziggel_unconditional_coverage",
        "ziggel_independence",
        "ziggel_conditional_coverage",
    ),
}
TESTS = [
    pytest.param(getattr(room, name), getattr(room, f"{name}_statistics"), id=name)
    for room, names in NAMES.items()
    for name in names
]
HITS = st.lists(st.booleans(), min_size=1, max_size=60).map(lambda hits: np.array(hits, bool))


@pytest.mark.parametrize(("test", "statistics"), TESTS)
@pytest.mark.parametrize(("size", "level"), [(250, 0.95), (250, 0.99), (1000, 0.99)])
def test_monte_carlo_p_values_have_their_size(test, statistics, size, level):
    generator = np.random.default_rng((size, round(1000 * level)))
    simulated, observed = np.split(
        statistics(generator.random((1999 + 1000, size)) < 1.0 - level, level), [1999]
    )
    p_values = np.array([rank_p_value(value, simulated, generator) for value in observed])
    # a sample without a statistic rejects nothing, the others make up for it
    assert np.mean(p_values < 0.05) == pytest.approx(0.05, abs=0.025)


@given(HITS)
@pytest.mark.parametrize(("test", "statistics"), TESTS)
def test_every_sequence_has_a_result_or_a_reason(test, statistics, hits):
    result = test(hits, 0.95)
    assert (result.sample_size, result.exceedances) == (hits.size, hits.sum())
    assert np.isnan(result.statistic) == np.isnan(result.p_value)
    if np.isnan(result.statistic):
        assert result.verdict == "no power"
        assert np.isnan(statistics(hits[np.newaxis, :], 0.95)[0]) or hits.sum() < 2
    else:
        assert 0.0 <= result.p_value <= 1.0
    assert bool(result.reason) == (result.verdict == "no power")


@pytest.mark.parametrize(("test", "statistics"), TESTS)
def test_simulation_decides_where_it_is_asked_for(test, statistics):
    generator = np.random.default_rng(11)
    simulated = SimulatedExceedances(replications=199)
    verdicts = set()
    for busy, calm in ((0.05, 0.05), (0.05, 0.05), (0.15, 0.01)):
        hits = generator.random(1500) < np.repeat([busy, calm], 750)
        result = test(hits, 0.95, monte_carlo=simulated)
        assert 0.0 < result.monte_carlo_p_value <= 1.0
        assert (result.verdict == "fail") == (result.monte_carlo_p_value < 0.05)
        asymptotic = test(hits, 0.95)
        assert np.isnan(asymptotic.monte_carlo_p_value)
        assert (asymptotic.verdict == "fail") == (asymptotic.p_value < 0.05)
        assert (asymptotic.statistic, asymptotic.p_value) == (result.statistic, result.p_value)
        verdicts.add(result.verdict)
    if test is not time_between.tuff:  # one spell may well be an ordinary one
        assert "fail" in verdicts


@pytest.mark.parametrize(("test", "statistics"), TESTS)
def test_rows_do_not_know_of_each_other(test, statistics):
    hits = np.random.default_rng(12).random((30, 400)) < 0.02
    together = statistics(hits, 0.98)
    alone = [statistics(row[np.newaxis, :], 0.98)[0] for row in hits]
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("test", "statistics"), TESTS)
def test_bad_input_is_refused_by_name(test, statistics):
    hits = np.arange(200) < 4
    for level in (0.01, 0.5, 1.0, 99.0, float("nan")):
        with pytest.raises(InputError, match="level must lie"):
            test(hits, level)
        with pytest.raises(InputError, match="level must lie"):
            statistics(hits[np.newaxis, :], level)
    for wrong in (hits[:0], hits.astype(float), hits[np.newaxis, :], [np.nan, 1.0]):
        with pytest.raises(InputError, match="boolean array"):
            test(wrong, 0.99)
    with pytest.raises(InputError, match="boolean array of shape"):
        statistics(hits, 0.99)
