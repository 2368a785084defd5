"""Dependence: effective sample sizes and bootstrap intervals against known truth."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.signal import lfilter

from margincast.backtest.dependence import (
    benjamini_hochberg,
    block_bootstrap_interval,
    clustered_sample_size,
    effective_sample_size,
    long_run_variance,
    non_overlapping,
)
from margincast.core.errors import InputError

SERIES = st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=50).map(np.array)


def autoregression(coefficient, size, generator, rows=1):
    shocks = generator.normal(size=(rows, size + 200))
    return lfilter([1.0], [1.0, -coefficient], shocks, axis=1)[:, 200:]


@given(SERIES, st.data())
def test_long_run_variance_equals_the_slow_double_sum(values, data):
    lag = data.draw(st.integers(0, values.size - 1))
    deviation = values - values.mean()
    slow = sum(
        max(0.0, 1.0 - abs(i - j) / (lag + 1.0)) * deviation[i] * deviation[j]
        for i in range(values.size)
        for j in range(values.size)
    )
    expected = slow / values.size
    assert long_run_variance(values, lag) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_long_run_variance_finds_the_truth_of_an_autoregression():
    series = autoregression(0.5, 200_000, np.random.default_rng(1))[0]
    assert long_run_variance(series, 100) == pytest.approx(1.0 / (1.0 - 0.5) ** 2, rel=0.06)


@pytest.mark.parametrize("overlap", [1, 4, 8])
def test_overlapping_sums_are_worth_their_independent_windows(overlap):
    shocks = np.random.default_rng(2).normal(size=40_000)
    sums = np.convolve(shocks, np.ones(overlap), mode="valid")
    worth = effective_sample_size(sums, lag=20 * overlap)
    assert worth == pytest.approx(sums.size / overlap, rel=0.12)


def test_negative_autocorrelation_earns_nothing():
    series = autoregression(-0.5, 5_000, np.random.default_rng(3))[0]
    assert effective_sample_size(series, lag=20) == series.size


@given(st.integers(2, 30), st.integers(1, 10), st.integers(0, 1000))
def test_copies_within_a_block_add_no_information(block_count, copies, seed):
    generator = np.random.default_rng(seed)
    blocks = np.repeat(np.arange(block_count), copies)
    values = generator.normal(size=block_count)[blocks]
    order = generator.permutation(values.size)
    worth = clustered_sample_size(values[order], blocks[order])
    assert worth == pytest.approx(block_count - 1)


def test_independent_values_keep_their_number():
    generator = np.random.default_rng(4)
    values, blocks = generator.normal(size=60_000), np.repeat(np.arange(2_000), 30)
    assert clustered_sample_size(values, blocks) == pytest.approx(60_000, rel=0.1)


def test_constant_values_have_no_known_sample_size():
    blocks = np.arange(10) // 2
    assert np.isnan(effective_sample_size(np.zeros(10), lag=3))
    assert np.isnan(clustered_sample_size(np.zeros(10), blocks))


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 600), st.integers(0, 59)
)
def test_thinning_keeps_windows_apart_and_wastes_none(gaps_minutes, horizon_minutes, first):
    minutes = np.cumsum(gaps_minutes)
    first = min(first, minutes.size - 1)
    times = np.datetime64("2024-01-01", "ns") + minutes.astype("timedelta64[m]")
    kept = non_overlapping(times, horizon_minutes, first=first)
    positions = np.flatnonzero(kept)
    assert positions[0] == first
    assert np.all(np.diff(minutes[positions]) >= horizon_minutes)
    for skipped in np.flatnonzero(~kept[first:]) + first:
        last_kept = positions[positions < skipped][-1]
        assert minutes[skipped] - minutes[last_kept] < horizon_minutes


@pytest.mark.parametrize(
    ("times", "horizon_minutes", "first", "found"),
    [
        (np.arange(3), 60, 0, "datetime64"),
        (np.array([], "datetime64[us]"), 60, 0, "non-empty"),
        (np.array(["2024-01-01", "NaT"], "datetime64[us]"), 60, 0, "1 missing"),
        (np.array(["2024-01-02", "2024-01-01"], "datetime64[us]"), 60, 0, "strictly increasing"),
        (np.array(["2024-01-01", "2024-01-01"], "datetime64[us]"), 60, 0, "strictly increasing"),
        (np.array(["2024-01-01", "2024-01-02"], "datetime64[us]"), 0, 0, "positive"),
        (np.array(["2024-01-01", "2024-01-02"], "datetime64[us]"), 60, 2, "first lie in"),
    ],
)
def test_unusable_times_are_refused(times, horizon_minutes, first, found):
    with pytest.raises(InputError, match=found):
        non_overlapping(times, horizon_minutes, first=first)


@pytest.mark.parametrize("run_length", [1, 5])
@pytest.mark.parametrize("coefficient", [0.0, 0.5])
def test_bootstrap_of_a_mean_has_the_standard_error_of_runs_of_days(run_length, coefficient):
    generator = np.random.default_rng(6)
    day_means = autoregression(coefficient, 1000, generator)[0]
    interval = block_bootstrap_interval(
        np.repeat(day_means, 24),
        blocks=np.repeat(np.arange(1000), 24),
        generator=generator,
        run_length=run_length,
        confidence=0.9,
    )
    assert interval.estimate == pytest.approx(day_means.mean())
    assert (interval.block_count, interval.replications) == (1000, 2000)
    # A circular bootstrap with runs of L days has the Bartlett variance of L - 1 lags.
    variance = long_run_variance(day_means, run_length - 1)
    width = 2 * 1.6449 * np.sqrt(variance / 1000)
    assert interval.upper - interval.lower == pytest.approx(width, rel=0.08)


def test_interval_covers_an_exceedance_ratio_under_dependence_within_days():
    generator = np.random.default_rng(7)
    level, days, hours, trials = 0.95, 150, 12, 100
    labels = np.repeat(np.arange(days), hours)
    nominal = np.full(labels.size, 1.0 - level)
    covered = {"days": 0, "hours": 0}
    for _ in range(trials):
        # One day in ten is a storm, in which half of all decisions are exceeded; design effect 6.
        storm = (generator.uniform(size=days) < 0.1)[labels]
        hits = storm & (generator.uniform(size=labels.size) < 0.5)
        for name, blocks in (("days", labels), ("hours", np.arange(labels.size))):
            interval = block_bootstrap_interval(
                hits.astype(float), nominal, blocks=blocks, generator=generator, replications=200
            )
            covered[name] += interval.lower <= 1.0 <= interval.upper
    assert 0.88 <= covered["days"] / trials <= 0.99
    assert covered["hours"] < covered["days"] - 0.2 * trials


def test_runs_of_days_cover_a_mean_that_single_days_do_not():
    generator = np.random.default_rng(8)
    trials = 120
    covered = {1: 0, 20: 0}
    for series in autoregression(0.7, 500, generator, rows=trials):
        for run_length in covered:
            interval = block_bootstrap_interval(
                series,
                blocks=np.arange(series.size),
                generator=generator,
                run_length=run_length,
                replications=200,
            )
            covered[run_length] += interval.lower <= 0.0 <= interval.upper
    assert covered[20] / trials >= 0.86
    assert covered[1] / trials <= 0.75


@given(st.integers(0, 1000), st.integers(1, 4))
def test_same_seed_same_interval_and_row_order_does_not_matter(seed, run_length):
    draws = np.random.default_rng(seed)
    values, weights = draws.normal(size=60), draws.uniform(0.5, 1.0, 60)
    days = np.datetime64("2024-01-01") + draws.permutation(np.repeat(np.arange(12), 5))
    order = draws.permutation(60)
    first, again = (
        block_bootstrap_interval(
            values[rows],
            weights[rows],
            blocks=days[rows],
            generator=np.random.default_rng(9),
            run_length=run_length,
            replications=50,
        )
        for rows in (np.arange(60), order)
    )
    bounds = (first.estimate, first.lower, first.upper)
    assert bounds == pytest.approx((again.estimate, again.lower, again.upper), rel=1e-9, abs=1e-12)
    assert first.lower <= first.upper


def test_a_ratio_of_proportional_sums_has_no_width():
    weights = np.random.default_rng(10).uniform(1.0, 2.0, 100)
    interval = block_bootstrap_interval(
        0.5 * weights,
        weights,
        blocks=np.arange(100) // 10,
        generator=np.random.default_rng(1),
        run_length=3,
    )
    bounds = (interval.lower, interval.estimate, interval.upper)
    assert bounds == pytest.approx((0.5, 0.5, 0.5), rel=1e-12)


def test_bounds_are_not_known_where_a_resample_has_no_denominator():
    hits = np.zeros(20)
    hits[3] = 1.0
    interval = block_bootstrap_interval(
        0.02 * hits, hits, blocks=np.arange(20), generator=np.random.default_rng(1)
    )
    assert interval.estimate == pytest.approx(0.02)
    assert np.isnan(interval.lower)
    assert np.isnan(interval.upper)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"values_numerator": np.array([1.0, np.nan, 1.0, 1.0])}, "1 NaN"),
        ({"values_numerator": np.ones((2, 2))}, "one dimension"),
        ({"values_denominator": np.ones(3)}, "pair one to one"),
        ({"values_denominator": np.array([1.0, 1.0, 1.0, -1.0])}, "non-negative"),
        ({"values_denominator": np.zeros(4)}, "not all zero"),
        ({"blocks": np.zeros(4, int)}, "single block"),
        ({"blocks": np.arange(3)}, "one label a value"),
        ({"run_length": 4}, "run_length must lie in 1..3"),
        ({"run_length": 0}, "run_length must lie in 1..3"),
        ({"confidence": 95.0}, "confidence must lie"),
        ({"replications": 0}, "at least 1"),
    ],
)
def test_unusable_bootstrap_arguments_are_refused(changes, found):
    arguments = {
        "values_numerator": np.ones(4),
        "blocks": np.arange(4),
        "generator": np.random.default_rng(1),
    }
    with pytest.raises(InputError, match=found):
        block_bootstrap_interval(**(arguments | changes))


@pytest.mark.parametrize("lag", [-1, 5])
def test_a_lag_outside_the_series_is_refused(lag):
    with pytest.raises(InputError, match="lag must lie"):
        long_run_variance(np.arange(5.0), lag)


def test_benjamini_hochberg_repeats_its_authors_example():
    # Benjamini and Hochberg (1995), section 4.1: 15 p-values of a myocardial infarction study;
    # their procedure rejects the first four at 0.05.
    p_values = np.array(
        [
            *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344),
            *(0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
        ]
    )
    assert int(np.sum(benjamini_hochberg(p_values) <= 0.05)) == 4


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30), st.floats(0.001, 0.999))
def test_benjamini_hochberg_equals_the_step_up_rule(p_values, rate):
    p_values = np.array(p_values)
    m = p_values.size
    scaled = np.sort(p_values) * m / np.arange(1, m + 1)
    assume(np.min(np.abs(scaled - rate)) > 1e-9)
    rejected = np.flatnonzero(scaled <= rate)[-1] + 1 if np.any(scaled <= rate) else 0
    adjusted = benjamini_hochberg(p_values)
    assert int(np.sum(adjusted <= rate)) == rejected
    assert np.all(adjusted >= p_values - 1e-15)


@pytest.mark.parametrize("p_values", [[0.1, 1.2], [-0.1], [np.nan], []])
def test_what_is_no_p_value_is_refused(p_values):
    with pytest.raises(InputError):
        benjamini_hochberg(np.array(p_values))
