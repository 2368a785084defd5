"""Blocks of time: intervals that keep their promise where days are storms, and honest refusals."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.block_bootstrap import BlockBootstrap, percentile_interval
from margincast.backtest.dependence import clustered_sample_size
from margincast.backtest.time_blocks import (
    FEWEST_BLOCKS,
    REPLICATIONS,
    TimeBlocks,
    block_labels,
    spread_of,
)
from margincast.core.errors import InputError

START = np.datetime64("2024-01-01", "us")


def hours(count):
    return START + np.arange(count) * np.timedelta64(1, "h")


def test_a_calibrated_models_interval_contains_one_in_nineteen_of_twenty_histories():
    """Contracts fall together: on one day in twelve all are exceeded thrice as often or more."""
    generator = np.random.default_rng(11)
    days, contracts, nominal, trials = 300, 10, 0.05, 300
    blocks = TimeBlocks(np.repeat(np.arange(days), contracts))
    naive = TimeBlocks(np.arange(days * contracts))
    expected = nominal * blocks.decisions
    covered = 0
    for _ in range(trials):
        storm = generator.uniform(size=days) < 1 / 12
        probability = np.where(storm, 0.38, 0.02)  # 0.05 on average
        hits = generator.uniform(size=(days, contracts)) < probability[:, None]
        ratios = blocks.resampled_ratios(blocks.sums(hits.ravel()), expected)
        spread = spread_of(ratios)
        covered += spread.lower <= 1.0 <= spread.upper
    # two standard errors of 300 trials are 2.5 %, and a percentile interval is a little short
    assert 0.91 <= covered / trials <= 0.985
    # contract after contract: neighbours are days apart, so nothing of what they share is kept
    apart = hits.T.ravel().astype(float)
    alone = spread_of(naive.resampled_ratios(apart, np.full(apart.size, nominal)))
    assert spread.error > 1.3 * alone.error


def test_the_error_is_the_standard_deviation_over_histories():
    generator = np.random.default_rng(12)
    days, trials = 300, 200
    blocks = TimeBlocks(np.arange(days))
    ratios, errors = [], []
    for _ in range(trials):
        reference = generator.gamma(2.0, size=days)
        ours = 0.9 * reference + 0.1 * generator.gamma(2.0, size=days)
        ratios.append(ours.sum() / reference.sum())
        errors.append(spread_of(blocks.resampled_ratios(ours, reference)).error)
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.12)


def test_paired_resamples_know_that_both_models_saw_the_same_days():
    """Losses that differ much from day to day, but little between the models."""
    generator = np.random.default_rng(13)
    reference = generator.lognormal(0.0, 1.5, 400)
    ours = 0.9 * reference * generator.uniform(0.95, 1.05, 400)
    blocks = TimeBlocks(np.arange(400))
    paired = spread_of(blocks.resampled_ratios(ours, reference))
    alone = spread_of(blocks.resampled_ratios(ours, np.full(400, reference.mean())))
    assert paired.error < alone.error / 10
    assert paired.lower < ours.sum() / reference.sum() < paired.upper


@given(st.integers(0, 10_000), st.integers(2, 40))
def test_sums_by_block_and_effective_decisions_equal_the_slow_way(seed, days):
    generator = np.random.default_rng(seed)
    labels = np.sort(generator.integers(0, days, 200)) * 3 - 7
    values = generator.normal(size=(2, 3, 200))
    blocks = TimeBlocks(labels)
    slow = np.stack([values[:, :, labels == label].sum(axis=2) for label in np.unique(labels)], 2)
    np.testing.assert_allclose(blocks.sums(values), slow, atol=1e-12)
    hits = generator.random(200) < 0.2
    effective = blocks.effective_decisions(blocks.sums(hits), 1)
    assert effective == pytest.approx(clustered_sample_size(hits.astype(float), labels))


def test_few_blocks_give_no_spread():
    blocks = TimeBlocks(np.arange(FEWEST_BLOCKS - 1))
    ones = np.ones(FEWEST_BLOCKS - 1)
    assert not blocks.enough
    spread = spread_of(blocks.resampled_ratios(ones, ones))
    assert np.isnan([spread.lower, spread.upper, spread.error]).all()
    enough = TimeBlocks(np.arange(FEWEST_BLOCKS))
    assert enough.resampled_ratios(np.ones((2, 20)), np.ones((2, 20))).shape == (2, REPLICATIONS)
    assert np.isnan(TimeBlocks(np.zeros(9, int)).effective_decisions(np.array([3.0]), 1))


def test_a_resample_without_denominator_makes_the_spread_unknown():
    hits = np.zeros(30)
    hits[4] = 1.0
    spread = spread_of(TimeBlocks(np.arange(30)).resampled_ratios(hits, hits))
    assert np.isnan([spread.lower, spread.upper, spread.error]).all()


@pytest.mark.parametrize(
    ("count", "horizon", "length_hours"),
    [
        (24 * 400, timedelta(hours=8), 24),  # a day
        (24 * 30, timedelta(hours=1), 14.38),  # a fiftieth of the test period
        (24 * 10, timedelta(hours=8), 16),  # two horizons
    ],
)
def test_a_block_is_a_day_or_less_where_there_are_few(count, horizon, length_hours):
    decided = hours(count)
    labels = block_labels(decided, horizon)
    assert (np.diff(labels) >= 0).all()
    sizes = np.unique(labels, return_counts=True)[1]
    assert np.median(sizes) == pytest.approx(length_hours, abs=1)
    if length_hours == 24:
        days = decided.astype("datetime64[D]")
        np.testing.assert_array_equal(np.diff(labels) > 0, np.diff(days) > np.timedelta64(0, "D"))


def test_totals_of_all_quantities_belong_to_the_same_resamples():
    bootstrap = BlockBootstrap(
        50, generator=np.random.default_rng(3), run_length=5, replications=200
    )
    sums = np.random.default_rng(4).normal(size=(3, 2, 50))
    totals = bootstrap.totals(sums)
    assert totals.shape == (3, 2, 200)
    np.testing.assert_allclose(bootstrap.totals(2 * sums[1, 1]), 2 * totals[1, 1])
    np.testing.assert_array_equal(bootstrap.totals(np.ones(50)), 50.0)
    with pytest.raises(InputError, match="confidence must lie"):
        percentile_interval(totals[0, 0], 95.0)
