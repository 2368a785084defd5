"""Spells between exceedances against a loop over decisions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from margincast.backtest.var_tests.sequences import spells
from margincast.core.errors import InputError

MATRICES = arrays.arrays(np.bool_, st.tuples(st.integers(1, 3), st.integers(1, 15)))


@given(MATRICES)
def test_spells_equal_a_loop_over_decisions(hits):
    found = spells(hits)
    for row, sequence in enumerate(hits):
        lengths, since = [], 0
        for hit in sequence:
            since += 1
            if hit:
                lengths.append(since)
                since = 0
        assert found.lengths[found.rows == row].tolist() == lengths
        assert found.is_first[found.rows == row].tolist() == [i == 0 for i in range(len(lengths))]
        assert found.counts[row] == len(lengths)
        assert hits.shape[1] - found.last_hits[row] == since
        assert found.firsts()[row] == pytest.approx(lengths[0] if lengths else np.nan, nan_ok=True)


@given(MATRICES)
def test_spells_closed_after_the_sample_cover_it(hits):
    found = spells(hits)
    closed = found.sums(found.lengths) + hits.shape[1] + 1 - found.last_hits
    assert np.all(closed == hits.shape[1] + 1)


@pytest.mark.parametrize(
    "hits", [np.array([True]), np.zeros((0, 5), bool), np.zeros((2, 3)), np.zeros((2, 0), bool)]
)
def test_what_is_no_matrix_of_exceedances_is_refused(hits):
    with pytest.raises(InputError, match="boolean array of shape"):
        spells(hits)
