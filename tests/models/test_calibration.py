"""Conformal factors cover exactly what theory says they cover, pooled and apart."""

import math
from datetime import timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.models.calibration import ConformalFactors, conformal_factor, fit_factors

LEVELS = st.sampled_from([0.9, 0.95, 0.975, 0.99, 0.995, 0.999])


@pytest.mark.parametrize(("count", "level"), [(19, 0.9), (50, 0.9), (99, 0.95), (200, 0.99)])
def test_a_fresh_outcome_is_covered_with_exactly_the_finite_sample_probability(count, level):
    # With uniform scores the factor is its own coverage: the k-th smallest of n uniforms has mean
    # k / (n + 1), k = ceil((n + 1) level) (Vovk et al. 2005; Lei et al. 2018, arXiv:1604.04173).
    rng = np.random.default_rng(count)
    draws = 4000
    factors = [conformal_factor(rng.random(count), level) for _ in range(draws)]
    rank = math.ceil(Fraction(str(level)) * (count + 1))
    expected = rank / (count + 1)
    assert expected >= level
    deviation = math.sqrt(expected * (1 - expected) / (count + 2))
    assert np.mean(factors) == pytest.approx(expected, abs=4 * deviation / math.sqrt(draws))


@given(st.integers(0, 2**32), st.integers(1, 3000), LEVELS)
def test_the_factor_is_the_smallest_score_of_sufficient_rank(seed, count, level):
    rng = np.random.default_rng(seed)
    scores = rng.exponential(1, count)
    factor = conformal_factor(scores, level)
    rank = min(math.ceil(Fraction(str(level)) * (count + 1)), count)
    assert (scores <= factor).sum() == rank
    assert factor in scores


@given(st.integers(0, 2**32), LEVELS, st.floats(1e-3, 1e3))
def test_calibrated_forecasts_do_not_hang_on_the_scale_of_the_uncalibrated(seed, level, multiple):
    rng = np.random.default_rng(seed)
    forecast, outcome = rng.lognormal(0, 1, 300), rng.exponential(1, 300)
    factor = conformal_factor(outcome / forecast, level)
    other = conformal_factor(outcome / (forecast * multiple), level)
    assert other * multiple == pytest.approx(factor, rel=1e-9)


def test_with_too_few_scores_the_largest_is_taken():
    assert conformal_factor(np.array([1.0, 3.0, 2.0]), 0.99) == 3.0


YEAR = timedelta(days=365)
LEVEL = 0.95


def two_contracts(seed: int = 0, count: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a contract that is forecast well, and of a small one twice as wide; two sides."""
    rng = np.random.default_rng(seed)
    contract = np.array(["CALM"] * count + ["WILD"] * (count // 4), dtype=object)
    scores = rng.exponential(1, (len(contract), 2, 1))
    return scores * np.where(contract == "WILD", 2.0, 1.0)[:, None, None], contract


def factors(
    prior: float = 0.0, overlap: float = 1.0, prior_span: timedelta = timedelta(0)
) -> ConformalFactors:
    scores, contract = two_contracts()
    return fit_factors(
        scores,
        contract,
        (LEVEL,),
        span=YEAR,
        prior_span=prior_span,
        overlap=overlap,
        prior_exceedances=prior,
    )


def test_without_a_prior_span_everybody_has_the_conformal_factor_of_all():
    scores, _ = two_contracts()
    for side in (0, 1):
        expected = conformal_factor(scores[:, side, 0], LEVEL)
        assert np.exp(factors().everybody[side, 0]) == pytest.approx(expected)


def test_with_as_much_prior_as_evidence_everybodys_factor_is_its_own_root():
    half = factors(prior_span=YEAR).everybody
    np.testing.assert_allclose(half, factors().everybody / 2)
    assert (np.abs(factors(prior_span=1e6 * YEAR).everybody) < 1e-5).all()


def test_without_a_prior_each_contract_is_covered_as_stated_both_sides_together():
    scores, contract = two_contracts()
    logs = factors().logs(contract)
    for name in ("CALM", "WILD"):
        rows = contract == name
        exceeded = (scores[rows] > np.exp(logs[rows])).mean()
        assert exceeded == pytest.approx(1 - LEVEL, abs=1 / rows.sum())


def test_the_prior_pulls_a_contract_to_everybody_the_more_the_less_it_has_shown():
    free, pulled, held = factors(0.0), factors(100.0), factors(1e9)
    for name, shown in (("CALM", 2000 * 0.05), ("WILD", 500 * 0.05)):
        expected = shown / (shown + 100) * free.contracts[name]
        np.testing.assert_allclose(pulled.contracts[name], expected)
        np.testing.assert_allclose(held.contracts[name], 0, atol=1e-6)


def test_overlapping_outcomes_are_less_evidence():
    np.testing.assert_allclose(
        factors(100.0, overlap=8.0).contracts["WILD"], factors(800.0).contracts["WILD"]
    )


def test_a_contract_never_seen_has_everybodys_factor():
    found = factors(5.0)
    np.testing.assert_array_equal(found.logs(np.array(["NEW"], dtype=object))[0], found.everybody)


def test_a_pinned_price_gives_a_finite_factor():
    scores = np.zeros((100, 2, 1))
    found = fit_factors(
        scores,
        np.array(["A"] * 100, dtype=object),
        (LEVEL,),
        span=YEAR,
        prior_span=timedelta(0),
        overlap=1.0,
        prior_exceedances=5.0,
    )
    assert np.isfinite(found.logs(np.array(["A"], dtype=object))).all()
