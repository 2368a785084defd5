"""Diebold-Mariano: size under overlapping horizons, symmetry, and the panel version."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.comparison import diebold_mariano, overlap_lag, panel_diebold_mariano
from margincast.core.errors import InputError

LOSSES = st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)), min_size=3, max_size=40).map(
    lambda pairs: np.array(pairs).T
)


@given(LOSSES, st.integers(0, 2))
def test_exchanging_the_models_changes_the_sign_only(losses, lag):
    one, other = diebold_mariano(*losses, lag=lag), diebold_mariano(*losses[::-1], lag=lag)
    assert one.mean_difference == -other.mean_difference
    assert one.statistic == -other.statistic
    assert (one.p_value, one.standard_error) == (other.p_value, other.standard_error)
    assert 0.0 <= one.p_value <= 1.0


def test_equal_losses_show_no_difference():
    losses = np.random.default_rng(1).uniform(size=50)
    result = diebold_mariano(losses, losses, lag=3)
    assert (result.mean_difference, result.statistic, result.p_value) == (0.0, 0.0, 1.0)


def test_a_constant_difference_is_certain():
    result = diebold_mariano(np.full(8, 0.75), np.full(8, 0.5), lag=0)
    assert (result.statistic, result.p_value) == (np.inf, 0.0)


def test_the_sign_says_who_loses_more_and_the_unit_does_not_matter():
    generator = np.random.default_rng(2)
    better = generator.uniform(size=2000)
    worse = better + generator.normal(0.05, 0.3, 2000)
    result = diebold_mariano(worse, better, lag=5)
    assert result.statistic > 3.0
    assert result.p_value < 0.003
    scaled = diebold_mariano(1e4 * worse, 1e4 * better, lag=5)
    assert scaled.statistic == pytest.approx(result.statistic)
    assert scaled.standard_error == pytest.approx(1e4 * result.standard_error)


@pytest.mark.parametrize("overlap", [4, 8])
def test_size_under_overlap_is_near_nominal_with_the_chosen_lag_only(overlap):
    generator = np.random.default_rng(3)
    size, trials = 2000, 300
    lag = overlap_lag(60.0 * overlap, 60.0, size)
    rejected = {0: 0, lag: 0}
    for shocks in generator.normal(size=(trials, size + overlap - 1)):
        differences = np.convolve(shocks, np.ones(overlap), mode="valid")
        for used in rejected:
            rejected[used] += diebold_mariano(differences, np.zeros(size), lag=used).p_value < 0.05
    assert rejected[lag] / trials < 0.11
    assert rejected[0] / trials > 0.25


@pytest.mark.parametrize("overlap", [2, 3, 8, 48, 480])
def test_share_of_variance_missed_by_the_chosen_lag(overlap):
    # Autocorrelations of overlapping sums fall linearly; their long-run variance is `overlap`.
    shifts = np.arange(1, overlap)
    correlations = 1.0 - shifts / overlap

    def missed(lag):
        weights = np.maximum(0.0, 1.0 - shifts / (lag + 1.0))
        return 1.0 - (1.0 + 2.0 * weights @ correlations) / overlap

    for lag in (overlap - 1, overlap_lag(overlap, 1, 10**6)):
        if lag >= overlap - 1:
            documented = (overlap - 1.0 / overlap) / (3.0 * (lag + 1.0))
            assert missed(lag) == pytest.approx(documented)
    assert missed(overlap_lag(overlap, 1, 5_000)) <= 0.1 + 1e-12


def test_lag_follows_overlap_then_sample_size_and_stays_inside_the_sample():
    assert overlap_lag(480, 60, 17_520) == 4 * 7
    assert overlap_lag(60, 60, 17_520) == 25
    assert overlap_lag(10, 1, 17_520) == 4 * 9
    assert overlap_lag(90, 60, 100) == 4
    assert overlap_lag(480, 60, 5) == 4
    assert overlap_lag(480, 60, 1) == 0


@given(LOSSES)
def test_panel_of_one_contract_is_the_series(losses):
    times = np.datetime64("2024-01-01T00", "us") + np.arange(losses.shape[1])
    assert panel_diebold_mariano(*losses, times, lag=1) == diebold_mariano(*losses, lag=1)


@given(st.integers(2, 6), st.integers(0, 1000))
def test_copies_of_a_contract_add_no_evidence_in_any_row_order(copies, seed):
    generator = np.random.default_rng(seed)
    first, second = generator.uniform(size=(2, 40))
    alone = diebold_mariano(first, second, lag=3)
    rows = generator.permutation(np.repeat(np.arange(40), copies))
    panel = panel_diebold_mariano(first[rows], second[rows], rows, lag=3)
    assert panel.sample_size == 40
    assert panel.statistic == pytest.approx(alone.statistic, rel=1e-9)
    assert panel.p_value == pytest.approx(alone.p_value, rel=1e-9)


def test_each_decision_time_weighs_the_same_however_many_contracts_it_has():
    differences = np.array([1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0])
    times = np.array([0, 0, 0, 0, 1, 2, 3])
    result = panel_diebold_mariano(differences, np.zeros(7), times, lag=0)
    assert (result.mean_difference, result.sample_size) == (0.0, 4)


def test_panel_size_under_a_common_factor():
    generator = np.random.default_rng(4)
    contracts, size, trials = 10, 300, 200
    times = np.tile(np.arange(size), contracts)
    rejected = {"panel": 0, "pooled": 0}
    for _ in range(trials):
        common = generator.normal(size=size)[times]
        differences = common + generator.normal(size=times.size)
        zeros = np.zeros(times.size)
        panel = panel_diebold_mariano(differences, zeros, times, lag=6)
        rejected["panel"] += panel.p_value < 0.05
        rejected["pooled"] += diebold_mariano(differences, zeros, lag=6).p_value < 0.05
    assert rejected["panel"] / trials < 0.11
    assert rejected["pooled"] / trials > 0.3


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda: diebold_mariano(np.ones(3), np.ones(4), lag=0), "one length"),
        (lambda: diebold_mariano(np.ones(3), np.ones(3), lag=3), "lag must lie"),
        (lambda: diebold_mariano(np.array([np.nan, 1.0]), np.ones(2), lag=0), "1 NaN"),
        (lambda: diebold_mariano(np.array([]), np.array([]), lag=0), "empty"),
        (lambda: panel_diebold_mariano(np.ones(3), np.ones(3), np.arange(2), lag=0), "one time"),
        (
            lambda: panel_diebold_mariano(
                np.ones(2), np.ones(2), np.array(["NaT", "2024-01-01"], "datetime64[us]"), lag=0
            ),
            "1 missing",
        ),
        (lambda: overlap_lag(0, 60, 100), "positive"),
        (lambda: overlap_lag(480, 60, 0), "at least 1"),
    ],
)
def test_unusable_input_is_refused(call, found):
    with pytest.raises(InputError, match=found):
        call()
