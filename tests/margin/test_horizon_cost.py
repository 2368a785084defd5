"""What a liquidation pays when the book of its moment is not today's."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.margin.liquidation_cost import (
    Book,
    closing_cost_usd,
    liquidation_costs,
    rising_rates,
)
from margincast.margin.slices import consumed_before
from margincast.margin.snapshots import Snapshots, walk_books
from margincast.specs.loading import load_spec
from margincast.specs.schedule import Tier
from margincast.specs.serving import MarginPolicy

SERVING = Path(__file__).resolve().parents[2] / "serving"
POLICY = load_spec(SERVING / "book-10m.toml", MarginPolicy)
SLICED = load_spec(
    SERVING / "book-10m.toml",
    MarginPolicy,
    ["liquidation.book.recovery={slices=4, refill_per_minute=0.1}"],
)
NOW_ONLY = load_spec(
    SERVING / "demo.toml", MarginPolicy, ["liquidation.half_spread_bps=1.0", "model.horizon=10m"]
)
START = np.datetime64("2026-01-01", "us")
EVERY = np.timedelta64(10, "s")
COUNT = 400
TIERS = (
    Tier(floor_usd=0, cap_usd=10_000, mmr=0.01, imr=0.02),
    Tier(floor_usd=10_000, cap_usd=100_000, mmr=0.02, imr=0.04),
    Tier(floor_usd=100_000, cap_usd=1_000_000, mmr=0.05, imr=0.1),
)
CAPS = np.array([tier.cap_usd for tier in TIERS])
SEEDS = st.integers(0, 2**32 - 1)


def past(seed=1, count=COUNT):
    """Books every ten seconds whose depth comes and goes."""
    generator = np.random.default_rng(seed)
    gaps = np.tile(np.arange(1.0, 6.0) * 0.01, (count, 1))
    depth = generator.lognormal(3.0, 1.5, (count, 1)) * generator.uniform(0.5, 2.0, (count, 5))
    return Snapshots(START + np.arange(count) * EVERY, 100.0 - gaps, depth, 100.0 + gaps, depth)


def walked(books, policy, notional_usd):
    return walk_books(
        books,
        "long",
        notional_usd,
        least_rate=policy.liquidation.half_spread_bps * 1e-4,
        unshown_rate=policy.liquidation.book.unshown_depth_bps * 1e-4,
    )


@settings(max_examples=20)
@given(SEEDS)
def test_the_cost_is_the_larger_of_today_and_the_quantile_of_the_window(seed):
    history = past(seed)
    found, reason = closing_cost_usd(CAPS, "long", POLICY, Book.latest(history))
    for place, cap in enumerate(CAPS):
        costs = sorted(float(cost) for cost in walked(history, POLICY, np.array([cap]))[:, 0])
        # the smallest cost that at least 95 % of the books do not exceed
        covered = costs[math.ceil(0.95 * (COUNT - 1))]
        today = float(walked(history, POLICY, np.array([cap]))[-1, 0])
        assert found[place] == pytest.approx(max(today, covered), rel=1e-12)
    assert "the 0.95 quantile of 400 books of 3h" in reason


@settings(max_examples=15)
@given(SEEDS, st.sampled_from([POLICY, SLICED]), st.sampled_from(["long", "short"]))
def test_rates_never_fall_and_pay_at_every_point_of_a_tier(seed, policy, side):
    book = Book.latest(past(seed))
    rates = [cost.trading_rate for cost in liquidation_costs(TIERS, side, policy, book)]
    assert all(lower <= upper for lower, upper in pairwise(rates))
    points = np.concatenate([np.linspace(tier.floor_usd, tier.cap_usd, 6)[1:] for tier in TIERS])
    cost, _ = closing_cost_usd(points, side, policy, book)
    floors = np.array([tier.floor_usd for tier in TIERS])
    held = np.clip(points[:, None] - floors, 0.0, CAPS - floors)
    assert np.all(held @ np.array(rates) >= cost * (1.0 - 1e-12))


def test_a_book_older_than_the_window_does_not_count():
    policy = load_spec(
        SERVING / "book-10m.toml", MarginPolicy, ["liquidation.book.horizon.window=1h"]
    )
    history = past()
    assert np.timedelta64(COUNT, "s") * 10 > np.timedelta64(1, "h")
    whole, _ = closing_cost_usd(CAPS, "long", policy, Book.latest(history))
    recent = Book.latest(history.since(history.known_at[-1] - np.timedelta64(1, "h")))
    np.testing.assert_array_equal(whole, closing_cost_usd(CAPS, "long", policy, recent)[0])
    longer, _ = closing_cost_usd(CAPS, "long", POLICY, Book.latest(history))
    assert np.any(longer != whole)


def test_a_higher_level_never_costs_less():
    book = Book.latest(past())
    costs = [
        closing_cost_usd(
            CAPS,
            "short",
            load_spec(
                SERVING / "book-10m.toml", MarginPolicy, [f"liquidation.book.horizon.level={level}"]
            ),
            book,
        )[0]
        for level in (0.6, 0.9, 0.99)
    ]
    assert all(np.all(lower <= upper) for lower, upper in pairwise(costs))
    assert np.all(costs[0] >= closing_cost_usd(CAPS, "short", NOW_ONLY, book)[0])


@pytest.mark.parametrize("history", [None, past(count=300)])
def test_too_short_a_history_takes_nothing_for_shown(history):
    deep = np.array([1e9])
    book = Book(np.array([99.9]), deep, np.array([100.1]), deep, history)
    for cost in liquidation_costs(TIERS, "long", POLICY, book):
        assert cost.trading_rate == 0.02
        had = "nothing" if history is None else "50m"
        assert f"{had} of the 1h of books that are needed: 200 bps" in cost.reason


def test_nothing_shown_costs_at_least_the_last_level():
    far = Book(np.array([99.0, 90.0]), np.ones(2), np.array([101.0, 110.0]), np.ones(2))
    assert liquidation_costs(TIERS, "long", POLICY, far)[0].trading_rate == pytest.approx(0.1)


def test_slices_by_hand():
    # a book of one level for 1,000 USD at 1 %, the rest at 2 %: 2,000 USD at once cost 10 + 20;
    # in two slices the second finds 0.9^5 of 1,000 USD gone and pays 2 % on as much
    policy = load_spec(
        SERVING / "demo.toml",
        MarginPolicy,
        ["model.horizon=10m", "liquidation.book.recovery={slices=2, refill_per_minute=0.1}"],
    )
    one = np.array([10.0])
    book = Book(np.array([99.0]), one, np.array([101.0]), one)
    cost, reason = closing_cost_usd(np.array([2_000.0]), "long", policy, book)
    assert cost[0] == pytest.approx(20.0 + 10.0 * 0.9**5)
    assert "in 2 slices over 10m with 0.1 of the consumed depth refilled a minute" in reason
    at_once, _ = closing_cost_usd(np.array([2_000.0]), "long", NOW_ONLY, book)
    assert at_once[0] == pytest.approx(30.0)


@settings(max_examples=20)
@given(SEEDS, st.integers(1, 6), st.floats(0.0, 0.9))
def test_slices_cost_no_more_than_closing_at_once_and_the_same_without_refill(
    seed, slices, refill_per_minute
):
    policy = load_spec(
        SERVING / "demo.toml",
        MarginPolicy,
        [
            "model.horizon=10m",
            f"liquidation.book.recovery={{slices={slices}, refill_per_minute={refill_per_minute}}}",
        ],
    )
    book = Book.latest(past(seed, count=1))
    sliced, _ = closing_cost_usd(CAPS, "long", policy, book)
    at_once, _ = closing_cost_usd(CAPS, "long", NOW_ONLY, book)
    assert np.all(sliced <= at_once * (1.0 + 1e-9))
    if refill_per_minute == 0.0:
        np.testing.assert_allclose(sliced, at_once, rtol=1e-9)
    # slice after slice, each on what is left of the book
    starts = consumed_before(policy.liquidation.book.recovery, policy.model.horizon)
    slow = 0.0
    for start in starts:
        ends = np.array([start, start + 1.0 / slices]) * CAPS[1]
        before, after = walked(book.snapshot, policy, ends)[0]
        slow += after - before
    assert sliced[1] == pytest.approx(slow, rel=1e-9)


@settings(max_examples=30)
@given(SEEDS)
def test_rising_rates_are_the_least(seed):
    generator = np.random.default_rng(seed)
    floors = np.array([0.0, 10.0, 50.0])
    points = floors[:, None] + np.array([[5.0, 10.0], [20.0, 40.0], [30.0, 60.0]])
    cost = np.sort(generator.uniform(0.0, 3.0, 6)).reshape(3, 2)
    rates = rising_rates(floors, points, cost)
    assert rates == sorted(rates)
    for tier in range(3):
        held = np.clip(points[tier][:, None] - floors, 0.0, points[:, -1] - floors)
        paid = held @ np.array(rates)
        assert np.all(paid >= cost[tier] - 1e-9)
        binds = np.any(np.isclose(paid, cost[tier])) or (tier and rates[tier] == rates[tier - 1])
        assert binds
