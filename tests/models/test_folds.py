"""No label a calibration fold was trained on shares a moment with a label it is tested on."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from margincast.models.folds import forward_chain, purged_folds


@st.composite
def labels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Sorted decision times, often tied (several contracts), with labels of varying length."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 200))
    minutes = np.sort(rng.integers(0, draw(st.integers(1, 2000)), count))
    lengths = rng.integers(0, draw(st.integers(1, 300)), count)
    decided = np.datetime64("2024-01-01", "us") + minutes.astype("timedelta64[m]")
    return decided, decided + lengths.astype("timedelta64[m]")


@given(labels(), st.integers(2, 6))
def test_no_span_of_a_training_label_meets_a_span_of_its_block(case, count):
    decided, label_end = case
    for training, block in purged_folds(decided, label_end, count):
        for row in np.flatnonzero(training):
            meets = (decided[row] <= label_end[block]) & (label_end[row] >= decided[block])
            assert not meets.any()


@given(labels(), st.integers(2, 6))
def test_blocks_partition_the_rows_in_order_of_time_and_keep_a_moment_whole(case, count):
    decided, label_end = case
    blocks = [block for _, block in purged_folds(decided, label_end, count)]
    assert 1 <= len(blocks) <= count
    np.testing.assert_array_equal(np.sum(blocks, axis=0), np.ones(len(decided)))
    for earlier, later in pairwise(blocks):
        assert decided[earlier].max() < decided[later].min()


@given(labels(), st.integers(2, 6))
def test_only_rows_that_could_meet_the_block_are_purged(case, count):
    decided, label_end = case
    for training, block in purged_folds(decided, label_end, count):
        purged = ~training & ~block
        first, last = decided[block].min(), label_end[block].max()
        assert ((label_end[purged] >= first) & (decided[purged] <= last)).all()


def test_blocks_of_distinct_times_have_about_the_same_size():
    decided = np.datetime64("2024-01-01", "us") + np.arange(1000) * np.timedelta64(1, "h")
    sizes = [block.sum() for _, block in purged_folds(decided, decided, 3)]
    assert max(sizes) - min(sizes) <= 1


@given(labels(), st.integers(2, 6))
def test_a_chained_block_is_forecast_from_all_that_was_known_before_it_and_nothing_else(
    case, count
):
    decided, label_end = case
    blocks = [block for _, block in purged_folds(decided, label_end, count)]
    chained = list(forward_chain(decided, label_end, count))
    assert len(chained) == len(blocks) - 1
    for (training, block), expected in zip(chained, blocks[1:], strict=True):
        np.testing.assert_array_equal(block, expected)
        np.testing.assert_array_equal(training, label_end < decided[block].min())
        assert not (training & block).any()
