"""Raw SVI: known truth recovered, a published case of arbitrage found and mended."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, brentq
from scipy.stats import norm

from margincast.features.implied_vol.svi import (
    RawSVI,
    _Penalised,
    _unbounded,
    above_floor,
    fit_smiles,
    without_arbitrage,
)

NOTHING = np.empty(0)
WIDE = np.linspace(-3, 3, 6001)[None]

# Axel Vogt's example in Gatheral and Jacquier (2014) doi:10.1080/14697688.2013.819986: one year
VOGT = (-0.0410, 0.1331, 0.3060, 0.3586, 0.4153)


def smile_of(a, b, rho, m, sigma):
    return RawSVI(*(np.array([float(value)]) for value in (a, b, rho, m, sigma)))


def vega_weights(k, w):
    """Up to a factor, as the snapshots' fit has them."""
    return norm.pdf(np.sqrt(w) / 2 - k / np.sqrt(w)) / w


def black_call(k, w):
    """Black (1976): a call over its forward, undiscounted."""
    root = np.sqrt(w)
    return norm.cdf(root / 2 - k / root) - np.exp(k) * norm.cdf(-root / 2 - k / root)


def density(smile, k):
    """Density of the log price by second differences of Black's prices: an oracle of g's sign."""
    step = 1e-3
    strikes = np.exp(k)
    calls = [
        black_call(at, smile.total_variance(at[None])[0])
        for at in (np.log(strikes - step), k, np.log(strikes + step))
    ]
    return (calls[0] - 2 * calls[1] + calls[2]) / step**2


@st.composite
def smiles(draw):
    """Smiles free of arbitrage, from days to a year before expiry, with 25 quoted strikes."""
    scale = draw(st.floats(0.05, 0.5))
    b = draw(st.floats(0.2, 1.0)) * scale
    rho = draw(st.floats(-0.8, 0.8))
    sigma = draw(st.floats(0.3, 1.5)) * scale
    smile = smile_of(
        draw(st.floats(0.1, 1.0)) * scale**2, b, rho, draw(st.floats(-0.3, 0.3)) * scale, sigma
    )
    assume(smile.butterfly_free()[0])
    return smile, np.linspace(-2.5, 2.5, 25)[None] * scale


def test_the_vogt_smile_has_a_butterfly_arbitrage():
    vogt = smile_of(*VOGT)
    assert not vogt.butterfly_free()[0]
    # as the paper shows, among calls far from the forward and nowhere else
    negative = WIDE[0][vogt.durrleman(WIDE)[0] < 0]
    assert 0.6 < negative.min() < negative.max() < 1.3
    prices = density(vogt, np.array([0.5, 0.9, 1.5]))
    assert np.sign(prices).tolist() == [1, -1, 1]


def test_durrlemans_condition_is_the_sign_of_the_density_of_black_prices():
    k = np.linspace(-1.2, 1.2, 25)
    for parameters in (VOGT, (0.02, 0.1, -0.3, 0.05, 0.2)):
        smile = smile_of(*parameters)
        w = smile.total_variance(k[None])[0]
        d_minus = -k / np.sqrt(w) - np.sqrt(w) / 2
        # Gatheral and Jacquier (2014): the density of the strike is g over k sqrt(2 pi w)
        expected = smile.durrleman(k[None])[0] * norm.pdf(d_minus) / np.sqrt(w) * np.exp(-k)
        np.testing.assert_allclose(density(smile, k), expected, rtol=2e-3, atol=2e-5)


def test_vogts_prices_are_fitted_free_of_butterflies():
    k = np.linspace(-1.5, 1.5, 31)
    w = np.array(
        [
            brentq(lambda x, k=at, c=price: black_call(k, x) - c, 1e-6, 4.0, xtol=1e-14)
            for at, price in zip(
                k, black_call(k, smile_of(*VOGT).total_variance(k[None])[0]), strict=True
            )
        ]
    )
    weight = vega_weights(k, w)
    free = fit_smiles(k[None], w[None], weight[None])
    # inverted by scipy, the prices give back the smile, arbitrage and all
    np.testing.assert_allclose(free.total_variance(k[None])[0], w, rtol=1e-3)
    assert not free.butterfly_free()[0]
    mended = without_arbitrage(free, k, w, weight, floor_at=NOTHING, floor=NOTHING)
    assert mended.durrleman(WIDE).min() >= 0
    assert density(mended, np.linspace(-1.4, 1.4, 57)).min() > -1e-6
    # the paper's own mended smile is some volatility points away too
    assert np.abs(np.sqrt(mended.total_variance(k[None])[0]) - np.sqrt(w)).max() < 0.035


@given(smiles())
def test_a_smile_without_noise_is_recovered(truth):
    smile, k = truth
    w = smile.total_variance(k)
    fitted = fit_smiles(k, w, vega_weights(k, w))
    np.testing.assert_allclose(np.sqrt(fitted.total_variance(k) / w), 1, atol=2e-3)


def test_parameters_are_recovered():
    truth = smile_of(0.01, 0.1, -0.4, 0.05, 0.15)
    k = np.linspace(-0.8, 0.8, 33)[None]
    w = truth.total_variance(k)
    fitted = fit_smiles(k, w, vega_weights(k, w))
    np.testing.assert_allclose(fitted.as_rows(), truth.as_rows(), rtol=5e-3, atol=1e-4)


def test_noise_averages_out():
    truth = smile_of(0.01, 0.1, -0.4, 0.05, 0.15)
    k = np.linspace(-0.6, 0.6, 41)[None]
    w = truth.total_variance(k)
    generator = np.random.default_rng(5)
    errors = [
        np.sqrt(fit_smiles(k, noisy, vega_weights(k, noisy)).total_variance(np.zeros((1, 1))))
        - np.sqrt(truth.total_variance(np.zeros((1, 1))))
        for noisy in (w * (1 + 0.02 * generator.standard_normal(w.shape)) for _ in range(40))
    ]
    # 2 % of noise in variance is 1 % in volatility, 0.0014 here; five parameters from 41 quotes
    assert abs(np.mean(errors)) < 3e-4
    assert np.std(errors) < 8e-4


@given(smiles(), st.floats(0.2, 3), st.integers(1, 7))
def test_smiles_of_one_table_do_not_touch_each_other(truth, factor, fill):
    smile, k = truth
    w = smile.total_variance(k)
    weight = vega_weights(k, w)
    alone = fit_smiles(k, w, weight).as_rows()[:, 0]
    filled = [
        np.pad(of, ((0, 0), (0, fill)), constant_values=end)
        for of, end in ((k, 0.0), (w, 1.0), (weight, 0.0))
    ]
    other = [filled[0] * factor, filled[1] * 1.1, filled[2]]
    both = fit_smiles(*(np.concatenate(pair) for pair in zip(filled, other, strict=True)))
    np.testing.assert_allclose(both.as_rows()[:, 0], alone, rtol=1e-6, atol=1e-9)


def test_wings_are_never_steeper_than_lees_bound():
    k = np.linspace(-1, 1, 21)[None]
    w = 0.01 + 4 * np.abs(k)
    fitted = fit_smiles(k, w, np.ones_like(k))
    assert fitted.b[0] * (1 + abs(fitted.rho[0])) <= 2 + 1e-12


@given(smiles(), st.floats(0.5, 0.97))
def test_a_smile_below_the_one_before_is_lifted_to_it(truth, share):
    smile, k = truth
    w = smile.total_variance(k)
    lower = share * w
    weight = vega_weights(k, lower)
    fitted = fit_smiles(k, lower, weight)
    assert not above_floor(fitted, k[0], w[0])
    lifted = without_arbitrage(fitted, k[0], lower[0], weight[0], floor_at=k[0], floor=w[0])
    assume(lifted is not None)
    assert np.all(lifted.total_variance(k) >= w * (1 - 1e-9))
    assert lifted.durrleman(WIDE).min() >= -1e-9
    # and no higher than it must
    assert np.average(lifted.total_variance(k) / w, weights=weight) < 1.03


@pytest.mark.parametrize(
    "parameters", [VOGT, (0.02, 0.1, -0.3, 0.05, 0.2), (0.001, 0.9, 0.9, 0, 1)]
)
def test_derivatives_of_the_penalised_fit_are_those_of_its_residuals(parameters):
    smile = smile_of(*parameters)
    k = np.linspace(-1.5, 1.5, 13)
    w = smile.total_variance(k[None])[0]
    task = _Penalised(
        k,
        1.02 * w,
        np.full(13, 13**-0.5),
        density_at=np.linspace(-2, 2, 41),
        floor_at=k,
        floor=1.01 * w,
        penalty=3.0,
    )
    at = _unbounded(smile) + 0.01
    numeric = approx_fprime(at, task.residuals, 1e-7)
    np.testing.assert_allclose(task.jacobian(at), numeric, rtol=1e-3, atol=1e-4)
