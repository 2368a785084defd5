"""Christoffersen's tests: the textbook likelihoods, time reversal, size and power by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.var_tests.independence import (
    christoffersen_independence,
    independence_statistic,
    transitions,
)

HITS = st.lists(st.booleans(), min_size=1, max_size=200).map(lambda hits: np.array(hits, bool))


@given(HITS)
def test_independence_equals_the_textbook_markov_likelihoods(hits):
    n = transitions(hits)

    def log_likelihood(quiet, hit, probability):
        return sum(k * np.log(q) for k, q in ((quiet, 1 - probability), (hit, probability)) if k)

    pairs = hits.size - 1
    after_quiet, after_hit = n.quiet_quiet + n.quiet_hit, n.hit_quiet + n.hit_hit
    null = (n.quiet_hit + n.hit_hit) / pairs if pairs else 0.0
    chain = log_likelihood(n.quiet_quiet, n.quiet_hit, n.quiet_hit / max(after_quiet, 1))
    chain += log_likelihood(n.hit_quiet, n.hit_hit, n.hit_hit / max(after_hit, 1))
    memoryless = log_likelihood(n.quiet_quiet + n.hit_quiet, n.quiet_hit + n.hit_hit, null)
    expected = 2.0 * (chain - memoryless)
    assert independence_statistic(n) == pytest.approx(expected, abs=1e-9)


@given(HITS)
def test_transitions_partition_the_pairs_and_time_reversal_keeps_independence(hits):
    n = transitions(hits)
    assert n.quiet_quiet + n.quiet_hit + n.hit_quiet + n.hit_hit == hits.size - 1
    backwards = transitions(hits[::-1])
    assert (backwards.quiet_hit, backwards.hit_quiet) == (n.hit_quiet, n.quiet_hit)
    assert independence_statistic(backwards) == pytest.approx(independence_statistic(n), abs=1e-9)


@pytest.mark.parametrize("count", [0, 1])
def test_clustering_cannot_be_judged_with_fewer_than_two_exceedances(count):
    hits = np.arange(20_000) < count
    assert christoffersen_independence(hits, 0.9).verdict == "no power"


def test_independence_has_its_size_and_sees_clusters():
    generator = np.random.default_rng(5)
    level, size = 0.95, 1500

    def rejections(after_hit):
        """Markov chain with stationary exceedance probability 1 - level."""
        after_quiet = (1.0 - level) * (1.0 - after_hit) / level
        failed = 0
        for uniforms in generator.uniform(size=(200, size)):
            hits = np.zeros(size, dtype=bool)
            for t in range(1, size):
                hits[t] = uniforms[t] < (after_hit if hits[t - 1] else after_quiet)
            failed += christoffersen_independence(hits, level).verdict == "fail"
        return failed / 200

    assert rejections(after_hit=1.0 - level) < 0.12
    assert rejections(after_hit=0.25) > 0.9
