"""Conformal factors cover exactly what theory says they cover, pooled and apart."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.models.calibration import conformal_factor, pooled_factors

LEVELS = st.sampled_from([0.9, 0.95, 0.975, 0.99, 0.995, 0.999])


@pytest.mark.parametrize(("count", "level"), [(19, 0.9), (50, 0.9), (99, 0.95), (200, 0.99)])
def test_a_fresh_outcome_is_covered_with_exactly_the_finite_sample_probability(count, level):
    # With uniform scores the factor is its own coverage: the k-th smallest of n uniforms has mean
    # k / (n + 1), k = ceil((n + 1) level) (Vovk et al. 2005; Lei et al. 2018, arXiv:1604.04173).
    rng = np.random.default_rng(count)
    forecast = rng.lognormal(0, 1, count)
    draws = 4000
    factors = [
        conformal_factor(forecast * rng.random(count), forecast, level) for _ in range(draws)
    ]
    rank = math.ceil(Fraction(str(level)) * (count + 1))
    expected = rank / (count + 1)
    assert expected >= level
    deviation = math.sqrt(expected * (1 - expected) / (count + 2))
    assert np.mean(factors) == pytest.approx(expected, abs=4 * deviation / math.sqrt(draws))


@given(st.integers(0, 2**32), st.integers(1, 3000), LEVELS)
def test_the_factor_is_the_smallest_score_of_sufficient_rank(seed, count, level):
    rng = np.random.default_rng(seed)
    forecast = rng.lognormal(0, 1, count)
    outcome = forecast * rng.exponential(1, count)
    factor = conformal_factor(outcome, forecast, level)
    scores = outcome / forecast
    rank = min(math.ceil(Fraction(str(level)) * (count + 1)), count)
    assert (scores <= factor).sum() == rank
    assert factor in scores


@given(st.integers(0, 2**32), LEVELS, st.floats(1e-3, 1e3))
def test_calibrated_forecasts_do_not_hang_on_the_scale_of_the_uncalibrated(seed, level, multiple):
    rng = np.random.default_rng(seed)
    forecast, outcome = rng.lognormal(0, 1, 300), rng.exponential(1, 300)
    factor = conformal_factor(outcome, forecast, level)
    other = conformal_factor(outcome, forecast * multiple, level)
    assert other * multiple == pytest.approx(factor, rel=1e-9)


def test_with_too_few_scores_the_largest_is_taken():
    outcome, forecast = np.array([1.0, 3.0, 2.0]), np.ones(3)
    assert conformal_factor(outcome, forecast, 0.99) == 3.0


def two_contracts(seed: int = 0, count: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A contract that is forecast well, and a small one whose outcomes are twice the forecast's."""
    rng = np.random.default_rng(seed)
    contract = np.array(["CALM"] * count + ["WILD"] * (count // 4), dtype=object)
    outcome = rng.exponential(1, len(contract)) * np.where(contract == "WILD", 2.0, 1.0)
    return outcome, np.ones(len(contract)), contract


def pooled(prior: float, overlap: float = 1.0) -> tuple[float, dict[str, float]]:
    return pooled_factors(*two_contracts(), 0.95, overlap=overlap, prior_exceedances=prior)


def own(name: str) -> float:
    outcome, forecast, contract = two_contracts()
    return conformal_factor(outcome[contract == name], forecast[contract == name], 0.95)


def test_without_a_prior_a_contract_has_its_own_factor():
    everybody, factors = pooled(0.0)
    outcome, forecast, _ = two_contracts()
    assert everybody == conformal_factor(outcome, forecast, 0.95)
    assert factors == {"CALM": pytest.approx(own("CALM")), "WILD": pytest.approx(own("WILD"))}


def test_with_an_overwhelming_prior_everybody_has_everybodys_factor():
    everybody, factors = pooled(1e12)
    assert factors == pytest.approx({"CALM": everybody, "WILD": everybody}, rel=1e-9)


def test_a_contract_moves_from_the_pool_to_its_own_by_the_exceedances_it_can_show():
    everybody, factors = pooled(25.0)
    # WILD: 500 rows x 0.05 = 25 expected exceedances, as many as the prior: half way in logarithms
    assert factors["WILD"] == pytest.approx(math.sqrt(own("WILD") * everybody))
    # rows that share horizons show less: 25 / 4 exceedances weigh a fifth
    _, overlapping = pooled(25.0, overlap=4.0)
    expected = own("WILD") ** 0.2 * everybody**0.8
    assert overlapping["WILD"] == pytest.approx(expected)


@given(st.floats(0, 1e4), st.floats(1, 100))
def test_a_pooled_factor_lies_between_its_own_and_everybodys(prior, overlap):
    everybody, factors = pooled(prior, overlap)
    for name, factor in factors.items():
        low, high = sorted([own(name), everybody])
        assert low * (1 - 1e-9) <= factor <= high * (1 + 1e-9)


def test_outcomes_that_are_all_zero_leave_a_factor_that_is_small_and_not_an_error():
    contract = np.array(["STILL"] * 100, dtype=object)
    everybody, factors = pooled_factors(
        np.zeros(100), np.ones(100), contract, 0.95, overlap=1.0, prior_exceedances=20.0
    )
    assert everybody == 0.0
    assert 0 < factors["STILL"] < 1e-5
