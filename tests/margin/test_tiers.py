"""Brackets over a margin curve: never below it, close to it, and steady."""

from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from margincast.core.errors import InputError
from margincast.margin import tiers
from margincast.margin.maintenance import maintenance_amounts, maintenance_margin_usd
from margincast.margin.rounding import exact, round_up
from margincast.margin.tiers import (
    MarginCurve,
    best_tiers,
    choose_tiers,
    notionals_usd,
    tiers_on,
)
from margincast.specs.tiers import TierShape

STEP = 0.0005
SEEDS = st.integers(0, 2**32 - 1)
WIDE = TierShape(
    max_brackets=8,
    smallest_usd=1_000.0,
    largest_usd=1e7,
    mantissas=(1.0, 2.0, 5.0),
    mean_excess=0.02,
    hysteresis=0.01,
)
SMALL = WIDE.model_copy(update={"smallest_usd": 1e5, "largest_usd": 1e7})


def drawn(seed, shape=WIDE):
    """A margin curve of a rate and a walk through a book of random depth, convex or not."""
    generator = np.random.default_rng(seed)
    notional = notionals_usd(shape)
    depth = generator.lognormal(13.0, 1.5)
    exponent = generator.uniform(0.2, 1.2)
    cost = np.minimum(0.3, 0.001 * (notional / depth) ** exponent)
    bumps = np.cumsum(generator.exponential(0.0002, len(notional)))
    rate = generator.uniform(0.002, 0.04) + cost + bumps * generator.integers(0, 2)
    return MarginCurve(notional, notional * rate)


def slow_fit(edges_usd, curve, step):
    """One bracket after another, notional by notional; rate and margin exact in decimals."""
    rates, floor, charged, excess = [], 0.0, Fraction(0), []
    for edge in edges_usd:
        rate = rates[-1] if rates else step
        own = [
            (n, m)
            for n, m in zip(curve.notional_usd.tolist(), curve.margin_usd.tolist(), strict=True)
            if floor < n <= edge
        ]
        for n, m in own:
            needed = float((exact(m) - charged) / (exact(n) - exact(floor)))
            rate = max(rate, round_up(max(needed, step) * (1.0 - 1e-12), step))
        excess += [
            float((charged + exact(rate) * (exact(n) - exact(floor))) / exact(m) - 1)
            for n, m in own
        ]
        charged += exact(rate) * (exact(edge) - exact(floor))
        rates.append(rate)
        floor = edge
    return tuple(rates), float(np.mean(excess))


def every_list(shape):
    *inner, last = shape.edges_usd()
    for count in range(shape.max_brackets):
        for chosen in combinations(inner, count):
            yield (*chosen, last)


@settings(max_examples=15)
@given(SEEDS)
def test_rates_on_given_edges_are_those_of_the_slow_twin(seed):
    curve = drawn(seed)
    fit = tiers_on((20_000.0, 1e5, 2e6, 1e7), curve, STEP)
    rates, excess = slow_fit(fit.edges_usd, curve, STEP)
    assert fit.rates == rates
    assert fit.mean_excess == pytest.approx(excess, rel=1e-9, abs=1e-12)


@settings(max_examples=10)
@given(SEEDS, st.integers(1, 5), st.sampled_from([0.0, 0.01, 0.05]))
def test_the_best_of_all_lists_of_edges_is_found(seed, max_brackets, mean_excess):
    shape = SMALL.model_copy(update={"max_brackets": max_brackets, "mean_excess": mean_excess})
    curve = drawn(seed, shape)
    found = best_tiers(curve, shape, STEP)
    fits = [tiers_on(edges, curve, STEP) for edges in every_list(shape)]
    within = [fit for fit in fits if fit.mean_excess <= mean_excess]
    if within:
        fewest = min(len(fit.edges_usd) for fit in within)
        fits = [fit for fit in within if len(fit.edges_usd) == fewest]
    assert found.mean_excess == pytest.approx(min(fit.mean_excess for fit in fits), abs=1e-12)
    if within:
        assert len(found.edges_usd) == fewest


@settings(max_examples=4)
@given(SEEDS)
def test_a_narrow_search_finds_what_the_wide_one_finds(seed):
    curve, shape = drawn(seed), WIDE.model_copy(update={"mean_excess": 0.0})
    wide = best_tiers(curve, shape, STEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiers, "KEPT", 100_000)
        assert best_tiers(curve, shape, STEP).mean_excess == pytest.approx(wide.mean_excess)


@settings(max_examples=12)
@given(SEEDS)
def test_margins_are_continuous_and_monotone_and_never_below_the_curve(seed):
    curve = drawn(seed)
    fit = best_tiers(curve, WIDE, STEP)
    assert len(fit.edges_usd) <= WIDE.max_brackets
    assert set(fit.edges_usd) <= set(WIDE.edges_usd())
    assert fit.edges_usd[-1] == WIDE.largest_usd
    assert all(lower <= upper for lower, upper in pairwise(fit.rates))
    assert all(exact(rate) % exact(STEP) == 0 for rate in fit.rates)
    amounts = maintenance_amounts([0.0, *fit.edges_usd[:-1]], fit.rates)
    margins = [
        maintenance_margin_usd(n, fit.edges_usd, fit.rates, amounts)
        for n in curve.notional_usd.tolist()
    ]
    over = np.array(margins) / curve.margin_usd - 1.0
    assert over.min() >= -1e-11
    assert over.mean() == pytest.approx(fit.mean_excess, abs=1e-9)
    for edge, (lower, upper) in zip(fit.edges_usd, pairwise(range(len(fit.rates))), strict=False):
        below = exact(edge) * exact(fit.rates[lower]) - exact(amounts[lower])
        above = exact(edge) * exact(fit.rates[upper]) - exact(amounts[upper])
        assert float(below) == pytest.approx(float(above), rel=1e-15)


def test_tiers_by_hand():
    # 1 % up to 10,000 USD and 3 % of what is beyond: two brackets, on the grid, nothing above
    shape = WIDE.model_copy(update={"largest_usd": 1e5, "smallest_usd": 1_000.0})
    notional = notionals_usd(shape)
    curve = MarginCurve(notional, 0.01 * notional + 0.02 * np.maximum(notional - 10_000.0, 0.0))
    fit = best_tiers(curve, shape.model_copy(update={"mean_excess": 1e-9}), STEP)
    assert (fit.edges_usd, fit.rates) == ((10_000.0, 1e5), (0.01, 0.03))
    assert fit.mean_excess == pytest.approx(0.0, abs=1e-12)
    # one bracket must pay 2,800 of 100,000 USD: 2.8 %
    single = best_tiers(curve, shape.model_copy(update={"max_brackets": 1}), STEP)
    assert (single.edges_usd, single.rates) == ((1e5,), (0.028,))


def test_a_flat_curve_is_one_bracket():
    notional = notionals_usd(WIDE)
    assert best_tiers(MarginCurve(notional, 0.01 * notional), WIDE, STEP).rates == (0.01,)


@settings(max_examples=10)
@given(SEEDS, SEEDS)
def test_earlier_edges_stand_exactly_while_they_are_good(seed, other):
    generator = np.random.default_rng(other)
    curve = drawn(seed)
    inner = np.array(WIDE.edges_usd()[:-1])
    count = int(generator.integers(0, WIDE.max_brackets + 2))
    chosen = np.sort(generator.choice(inner, min(count, len(inner)), replace=False))
    previous = (*chosen.tolist(), 1e7)
    choice = choose_tiers(curve, WIDE, STEP, previous)
    assert choice.best == best_tiers(curve, WIDE, STEP)
    earlier = tiers_on(previous, curve, STEP)
    dearer = (1.0 + earlier.mean_excess) / (1.0 + choice.best.mean_excess) - 1.0
    good = (
        len(previous) <= WIDE.max_brackets
        and dearer <= WIDE.hysteresis
        and (earlier.mean_excess <= WIDE.mean_excess or not choice.within)
    )
    assert choice.kept == good
    assert choice.fit == (earlier if good else choice.best)


@settings(max_examples=6)
@given(SEEDS)
def test_what_was_chosen_yesterday_is_chosen_today_and_small_changes_move_no_edge(seed):
    curve = drawn(seed)
    first = choose_tiers(curve, WIDE, STEP)
    again = choose_tiers(curve, WIDE, STEP, first.fit.edges_usd)
    assert again.fit == first.fit
    assert again.kept
    generous = WIDE.model_copy(update={"mean_excess": 0.1, "hysteresis": 0.1})
    first = choose_tiers(curve, generous.model_copy(update={"mean_excess": 0.05}), STEP)
    noise = 1.0 + 0.01 * np.random.default_rng(seed).uniform(-1.0, 1.0, len(curve.notional_usd))
    moved = MarginCurve(curve.notional_usd, curve.margin_usd * noise)
    if first.within:
        assert choose_tiers(moved, generous, STEP, first.fit.edges_usd).kept


def test_too_few_brackets_are_said_to_be_too_few():
    curve = drawn(1)
    shape = WIDE.model_copy(update={"max_brackets": 1, "mean_excess": 0.0})
    choice = choose_tiers(curve, shape, STEP)
    assert not choice.within
    assert choice.fit.mean_excess > 0.0
    # edges that reach elsewhere are no earlier edges of this range
    assert not choose_tiers(curve, shape, STEP, (5e6,)).kept


def test_a_rate_of_one_is_refused():
    notional = notionals_usd(WIDE)
    with pytest.raises(InputError, match="a maintenance margin rate lies below 1; end the tiers"):
        best_tiers(MarginCurve(notional, 0.9999 * notional), WIDE, STEP)


@pytest.mark.parametrize(
    ("notional", "margin", "said"),
    [
        ([1.0, 2.0], [1.0], "two lists of one length"),
        ([2.0, 1.0], [1.0, 1.0], "notionals must rise"),
        ([1.0, 2.0], [1.0, np.nan], "margin_usd must be finite and above 0"),
        ([0.0, 2.0], [1.0, 1.0], "notional_usd must be finite and above 0"),
    ],
)
def test_a_curve_that_is_none_is_refused(notional, margin, said):
    with pytest.raises(InputError, match=said):
        MarginCurve(np.array(notional), np.array(margin))


def test_a_curve_must_end_with_the_tiers():
    with pytest.raises(InputError, match="ends at 5 USD, the tiers at 10,000,000 USD"):
        best_tiers(MarginCurve(np.array([1.0, 5.0]), np.array([1.0, 5.0])), WIDE, STEP)


def test_candidate_edges_are_round():
    shape = TierShape(
        max_brackets=3,
        smallest_usd=30_000.0,
        largest_usd=250_000.0,
        mantissas=(1.0, 2.5, 5.0),
        mean_excess=0.02,
        hysteresis=0.0,
    )
    assert shape.edges_usd() == (50_000.0, 100_000.0, 250_000.0)
    assert {50_000.0, 100_000.0, 250_000.0, 30_000.0} <= set(notionals_usd(shape).tolist())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("mantissas", (2.0, 1.0), "mantissas must rise within 1 up to below 10"),
        ("mantissas", (1.0, 12.0), "mantissas must rise within 1 up to below 10"),
        ("largest_usd", 3e7, "largest_usd must be one of the mantissas times a power of ten"),
        ("smallest_usd", 1e8, "smallest_usd must lie below largest_usd"),
    ],
)
def test_a_shape_that_contradicts_itself_is_refused(key, value, said):
    with pytest.raises(ValidationError, match=said):
        TierShape(**(WIDE.model_dump() | {key: value}))
