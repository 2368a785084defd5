from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.margin.initial_margin import initial_margin_rates, whole_leverage
from margincast.margin.rounding import exact, round_up
from margincast.specs.loading import load_spec
from margincast.specs.serving import MarginPolicy

SPEC = Path(__file__).resolve().parents[2] / "serving" / "perp-8h.toml"
RATIO = load_spec(SPEC, MarginPolicy)
POLICY = load_spec(SPEC, MarginPolicy, ['initial.forecast={level=0.999, horizon="24h"}'])
RATES = st.integers(1, 999).map(lambda number: number / 1000)


def test_the_three_needs_by_hand():
    # 1.5 x 4 % = 6 %; 8.31 % rounded up to 8.35 %; base IMR 20 %; not known; more than all of it
    imr, reason = initial_margin_rates(
        np.full(5, 0.04),
        np.array([0.05, 0.05, 0.2, 0.05, 0.05]),
        POLICY,
        np.array([0.05, 0.0831, 0.1, np.nan, 1.7]),
    )
    assert imr.tolist() == [0.06, 0.0835, 0.2, 0.06, 1.0]
    assert reason.tolist() == [
        "1.5 x MMR 4 %",
        "0.999 quantile of the adverse excursion over 1d, plus cost: 8.31 %",
        "base IMR 20 %",
        ("1.5 x MMR 4 %; the 0.999 quantile of the adverse excursion over 1d is not known"),
        "0.999 quantile of the adverse excursion over 1d, plus cost: 170 %",
    ]


def slow_rate(mmr, base_imr, need):
    wanted = max(exact(1.5) * exact(mmr), exact(base_imr))
    if not np.isnan(need):
        wanted = max(wanted, exact(need))
    return round_up(min(wanted, Fraction(1)), POLICY.rounding.imr_step)


@settings(max_examples=40)
@given(st.lists(st.tuples(RATES, RATES, st.floats(0, 2) | st.just(np.nan)), min_size=1, max_size=9))
def test_all_at_once_is_one_after_another_and_above_the_mmr(rows):
    mmr, base, need = (np.array(column) for column in zip(*rows, strict=True))
    imr, _ = initial_margin_rates(mmr, base, POLICY, need)
    assert imr.tolist() == [slow_rate(*row) for row in rows]
    assert np.all(imr > mmr)
    plain, _ = initial_margin_rates(mmr, base, RATIO)
    assert np.all(imr >= plain)


@given(RATES, RATES, st.floats(0, 2), st.floats(0, 2))
def test_a_larger_need_never_lowers_the_rate(mmr, base, first, second):
    low, high = (
        initial_margin_rates(np.array([mmr]), np.array([base]), POLICY, np.array([need]))[0][0]
        for need in sorted((first, second))
    )
    assert low <= high


@pytest.mark.parametrize(
    ("imr", "leverage"), [(0.1, 10), (0.05, 20), (0.008, 125), (0.069, 14), (1.0, 1), (0.3, 3)]
)
def test_whole_leverage_is_exact_in_decimals(imr, leverage):
    # 1 / 0.1 in binary could as well be 9.999...
    assert whole_leverage(np.array([imr])).tolist() == [leverage]
