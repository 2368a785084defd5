"""The fit is optimal by the textbook's conditions, exact, and moves with its data as it must."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from margincast.core.errors import InputError
from margincast.models.quantile_regression import quantile_regression

LEVELS = st.sampled_from([0.05, 0.5, 0.9, 0.99, 0.999])
SEEDS = st.integers(0, 2**32 - 1)


def problem(seed: int, rows: int = 400, columns: int = 4):
    """A skewed, heteroskedastic market: spread and quantiles rise with the regressors."""
    rng = np.random.default_rng(seed)
    regressors = np.exp(rng.normal(0, 0.5, (rows, columns - 1)))
    design = np.column_stack([np.ones(rows), regressors])
    response = design.sum(axis=1) * rng.standard_t(3, rows) + regressors[:, 0]
    return design, response, rng.uniform(0.1, 2.0, rows)


def objective(design, response, level, weights, coefficients):
    residuals = response - design @ coefficients
    return np.sum(weights * np.maximum(level * residuals, (level - 1) * residuals))


def plain_programme(design, response, level, weights):
    """The slow, obvious twin: every row, residuals split into positive and negative parts."""
    rows, columns = design.shape
    identity = np.eye(rows)
    solved = linprog(
        np.concatenate([np.zeros(columns), level * weights, (1 - level) * weights]),
        A_eq=np.hstack([design, identity, -identity]),
        b_eq=response,
        bounds=[(None, None)] * columns + [(0, None)] * (2 * rows),
        method="highs",
    )
    assert solved.status == 0
    return solved.fun


@given(SEEDS, LEVELS, st.booleans())
@settings(deadline=None, max_examples=40)
def test_zero_lies_in_the_subgradient(seed, level, weighted):
    design, response, weights = problem(seed)
    weights = weights if weighted else np.ones(len(weights))
    fit = quantile_regression(design, response, [level], weights)[0]
    residuals = response - design @ fit.coefficients
    # a vertex: as many rows on the fit as coefficients, whose multipliers close the balance
    touched = np.abs(residuals) < 1e-9 * np.abs(response).max()
    assert touched.sum() == design.shape[1]
    pull = weights * np.where(residuals > 0, level, level - 1)
    balance = design[~touched].T @ pull[~touched]
    multipliers = np.linalg.solve(design[touched].T, -balance) / weights[touched]
    assert (multipliers >= level - 1 - 1e-7).all()
    assert (multipliers <= level + 1e-7).all()


@given(SEEDS, LEVELS)
@settings(deadline=None, max_examples=15)
def test_it_equals_the_plain_linear_programme(seed, level):
    design, response, weights = problem(seed, rows=150)
    fit = quantile_regression(design, response, [level], weights)[0]
    expected = plain_programme(design, response, level, weights)
    assert fit.objective == pytest.approx(expected, rel=1e-9)
    own = objective(design, response, level, weights, fit.coefficients)
    assert fit.objective == pytest.approx(own, rel=1e-9)


@given(
    st.integers(1, 12).flatmap(
        lambda rows: st.tuples(
            st.lists(st.integers(-2, 2), min_size=rows, max_size=rows),
            st.lists(st.integers(-3, 3), min_size=rows, max_size=rows),
            st.lists(st.integers(0, 2), min_size=rows, max_size=rows),
        )
    ),
    LEVELS,
)
@settings(deadline=None)
def test_ties_and_few_rows_are_fitted_exactly_too(table, level):
    regressor, response, weights = (np.array(column, dtype=float) for column in table)
    assume(weights.any())
    design = np.column_stack([np.ones(len(regressor)), regressor])
    fit = quantile_regression(design, response, [level], weights)[0]
    expected = plain_programme(design, response, level, weights)
    assert fit.objective == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(SEEDS, LEVELS, st.floats(0.001, 1000.0), st.lists(st.floats(-5, 5), min_size=4, max_size=4))
@settings(deadline=None, max_examples=40)
def test_it_is_equivariant_to_scale_and_shift_of_the_response(seed, level, scale, shift):
    design, response, _ = problem(seed)
    plain = quantile_regression(design, response, [level])[0]
    moved = quantile_regression(design, scale * response + design @ np.array(shift), [level])[0]
    expected = scale * plain.coefficients + shift
    np.testing.assert_allclose(moved.coefficients, expected, rtol=1e-7, atol=1e-7 * scale)


@given(SEEDS, LEVELS)
@settings(deadline=None, max_examples=40)
def test_it_is_equivariant_to_reparametrisation(seed, level):
    design, response, _ = problem(seed)
    mixing = np.random.default_rng(seed + 1).normal(0, 1, (4, 4)) + 3 * np.eye(4)
    plain = quantile_regression(design, response, [level])[0]
    mixed = quantile_regression(design @ mixing, response, [level])[0]
    np.testing.assert_allclose(mixing @ mixed.coefficients, plain.coefficients, rtol=1e-6)


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_a_mirrored_response_has_the_mirrored_quantile(seed):
    design, response, weights = problem(seed)
    upper = quantile_regression(design, response, [0.99], weights)[0]
    lower = quantile_regression(design, -response, [1 - 0.99], weights)[0]
    np.testing.assert_allclose(lower.coefficients, -upper.coefficients, rtol=1e-7)


def test_a_weight_counts_as_that_many_rows():
    design, response, _ = problem(5)
    times = np.random.default_rng(5).integers(0, 4, len(response))
    weighted = quantile_regression(design, response, [0.9], times.astype(float))[0]
    repeated = quantile_regression(
        np.repeat(design, times, axis=0), np.repeat(response, times), [0.9]
    )[0]
    np.testing.assert_allclose(weighted.coefficients, repeated.coefficients, rtol=1e-9)
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-12)


def test_only_the_sign_of_far_residuals_counts():
    design, response, _ = problem(6, rows=2000)
    fit = quantile_regression(design, response, [0.99])[0]
    far = response < design @ fit.coefficients - 1.0
    below = np.where(far, design @ fit.coefficients - 1e6, response)
    np.testing.assert_allclose(
        quantile_regression(design, below, [0.99])[0].coefficients, fit.coefficients, rtol=1e-6
    )


def test_thousands_of_rows_far_from_the_first_guess_are_found_exactly():
    # two markets that obey opposite regressions: least squares says nothing about the tail
    rng = np.random.default_rng(7)
    regressor = rng.normal(0, 1, 30_000)
    calm = rng.random(30_000) < 0.97
    design = np.column_stack([np.ones(30_000), regressor])
    response = np.where(calm, -5 * regressor, 50 + 20 * regressor) + rng.normal(0, 1, 30_000)
    for fit in quantile_regression(design, response, [0.9, 0.99, 0.999]):
        residuals = response - design @ fit.coefficients
        touched = np.abs(residuals) < 1e-8
        pull = np.where(residuals > 0, fit.level, fit.level - 1)[~touched]
        multipliers = np.linalg.solve(design[touched].T, -design[~touched].T @ pull)
        assert ((multipliers >= fit.level - 1 - 1e-7) & (multipliers <= fit.level + 1e-7)).all()


def test_several_levels_at_once_equal_each_alone_in_any_order():
    design, response, weights = problem(8, rows=3000)
    levels = [0.999, 0.5, 0.99]
    together = quantile_regression(design, response, levels, weights)
    assert [fit.level for fit in together] == levels
    for fit in together:
        alone = quantile_regression(design, response, [fit.level], weights)[0]
        np.testing.assert_allclose(fit.coefficients, alone.coefficients, rtol=1e-9)


def test_columns_that_say_nothing_new_are_dropped_and_named():
    design, response, _ = problem(9)
    doubled = np.column_stack(
        [design[:, :2], 3 * design[:, 1] - 2, design[:, 2:], np.zeros(len(design))]
    )
    plain = quantile_regression(design, response, [0.95])[0]
    fit = quantile_regression(doubled, response, [0.95])[0]
    assert plain.dropped == ()
    assert fit.dropped == (2, 5)
    assert fit.coefficients[[2, 5]].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(fit.coefficients[[0, 1, 3, 4]], plain.coefficients, rtol=1e-9)


def test_a_column_in_other_units_is_not_taken_for_a_dependent_one():
    design, response, _ = problem(10)
    units = np.array([1.0, 1e-9, 1e9, 1.0])
    plain = quantile_regression(design, response, [0.95])[0]
    fit = quantile_regression(design * units, response, [0.95])[0]
    assert fit.dropped == ()
    np.testing.assert_allclose(fit.coefficients * units, plain.coefficients, rtol=1e-9)


def test_an_intercept_alone_is_the_empirical_quantile():
    response = np.random.default_rng(11).permutation(1001).astype(float)
    fits = quantile_regression(np.ones((1001, 1)), response, [0.5, 0.99])
    assert [fit.coefficients[0] for fit in fits] == pytest.approx([500.0, 990.0])


def test_true_coefficients_are_recovered_from_many_rows():
    rng = np.random.default_rng(12)
    volatility = np.exp(rng.normal(0, 0.7, 40_000))
    design = np.column_stack([np.ones(40_000), volatility])
    response = 1.0 + volatility * rng.exponential(1.0, 40_000)
    fit = quantile_regression(design, response, [0.99], 1 / volatility)[0]
    assert fit.coefficients == pytest.approx([1.0, np.log(100)], abs=0.25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, w: (x[:, 0], y, [0.5], w), r"shape \(n, p\).*found \(400,\)"),
        (lambda x, y, w: (x[1:], y, [0.5], w), r"found \(399, 4\), \(400,\)"),
        (lambda x, y, w: (x, y, [0.5], w[1:]), r"and \(399,\)"),
        (lambda x, y, w: (x[:0], y[:0], [0.5], w[:0]), "n at least 1"),
        (lambda x, y, w: (np.where(x > 3, np.nan, x), y, [0.5], w), "design.*must be finite"),
        (lambda x, y, w: (x, np.where(y == y[7], np.inf, y), [0.5], w), "response.*in row 7"),
        (lambda x, y, w: (x, y, [0.5], -w), "non-negative and not all zero"),
        (lambda x, y, w: (x, y, [0.5], 0 * w), "non-negative and not all zero"),
        (lambda x, y, w: (x, y, [0.5, 1.0], w), "between 0 and 1, found 1"),
        (lambda x, y, w: (0 * x, y, [0.5], w), "every column .* is zero"),
    ],
)
def test_a_problem_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        quantile_regression(*change(*problem(13)))


def test_the_fit_is_the_same_bits_for_any_number_of_threads(tmp_path):
    script = tmp_path / "fit.py"
    script.write_text(
        "import hashlib, numpy as np\n"
        "from margincast.models.quantile_regression import quantile_regression\n"
        "rng = np.random.default_rng(0)\n"
        "x = np.column_stack([np.ones(20000), rng.normal(0, 1, (20000, 20))])\n"
        "y = x @ rng.normal(0, 1, 21) + rng.standard_t(4, 20000)\n"
        "fits = quantile_regression(x, y, [0.99, 0.999])\n"
        "print(hashlib.sha256(b''.join(f.coefficients.tobytes() for f in fits)).hexdigest())\n"
    )
    digests = set()
    for threads in ("1", "2"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads)}
        done = subprocess.run(  # noqa: S603 - our own interpreter and script
            [sys.executable, str(script)], env=environment, capture_output=True, check=True
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert digests.pop() != hashlib.sha256(b"").hexdigest().encode()
