"""Simulated exceedances: the right number, anywhere, and the same for whoever asks."""

import numpy as np
import pytest
from scipy import stats

from margincast.backtest.es_tests.simulated_tails import SimulatedTails
from margincast.backtest.es_tests.tail_law import ParetoTail


def test_counts_are_binomial_and_positions_uniform():
    draws = SimulatedTails(replications=4000).draws(200, 0.95)
    assert draws.counts.sum() == draws.series.size == draws.position.size
    observed = np.bincount(draws.counts.astype(int), minlength=30)[3:18]
    expected = 4000 * stats.binom.pmf(np.arange(3, 18), 200, 0.05)
    assert stats.chi2.sf(np.sum((observed - expected) ** 2 / expected), 14) > 0.001
    assert stats.kstest((draws.position + 0.5) / 200, "uniform").pvalue > 0.001
    assert stats.kstest(draws.share, "uniform").pvalue > 0.001


def test_no_decision_is_exceeded_twice_and_order_is_that_of_time():
    draws = SimulatedTails(replications=50).draws(100, 0.9)
    index = draws.series * 100 + draws.position
    assert (np.diff(index) > 0).all()
    assert draws.position.min() >= 0
    assert draws.position.max() < 100
    assert draws.share.min() > 0.0


def test_totals_are_sums_within_series():
    draws = SimulatedTails(replications=30).draws(40, 0.95)
    slow = [draws.share[draws.series == number].sum() for number in range(30)]
    assert draws.total(draws.share) == pytest.approx(slow)


def test_draws_are_shared_and_reproducible():
    simulated = SimulatedTails(replications=20, seed=3)
    first = simulated.draws(500, 0.99)
    assert simulated.draws(500, 0.95) is not first
    assert simulated.draws(500, 0.99) is first
    law = ParetoTail(0.1)
    assert simulated.excesses(500, 0.99, law) is simulated.excesses(500, 0.99, law)
    simulated.draws(501, 0.99)  # the large arrays of another sample size are let go
    again = simulated.draws(500, 0.99)
    assert again is not first
    assert again.share.tolist() == first.share.tolist()


def test_a_statistic_is_taken_once():
    simulated = SimulatedTails(replications=99)
    calls = []

    def statistic(draws):
        calls.append(1)
        return draws.counts

    p_values = [simulated.p_value("count", statistic, 40.0, 1000, 0.99) for _ in range(3)]
    assert p_values == [0.01, 0.01, 0.01]
    assert len(calls) == 1


def test_few_decisions_may_hold_no_exceedance_at_all():
    draws = SimulatedTails(replications=3).draws(1, 0.999)
    assert draws.counts.shape == (3,)
    assert draws.total(draws.share).shape == (3,)
