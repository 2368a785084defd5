"""E-values: their mean is 1 where the promise is kept, and they grow where it is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.serving.monitoring.betting import (
    DIRECTIONS,
    MOST_WEALTH,
    STAKES,
    Evidence,
    confidence_sequence,
    e_benjamini_hochberg,
    growth,
)

RATE = 0.05
RATES = np.array([RATE])


def settled(direction, shares, rate=RATE):
    evidence = Evidence.none(direction, 1)
    values = [1.0]
    for share in shares:
        evidence = evidence.settle(np.array([share]), np.array([rate]))
        values.append(float(evidence.e_values[0]))
    return evidence, values


def paths(shares, direction, rate=RATE):
    """Return e-values over time of many streams of shares, shape (bets, streams)."""
    evidence = Evidence.none(direction, shares.shape[1])
    rates = np.full(shares.shape[1], rate)
    found = []
    for one in shares:
        evidence = evidence.settle(one, rates)
        found.append(evidence.e_values)
    return np.array(found), evidence


def by_hand(direction, shares, rate):
    """The definition, start by start and stake by stake."""
    total = 0.0
    for stake in STAKES[direction]:
        for start in range(1, len(shares) + 1):
            wealth = 1.0
            for share in shares[start - 1 :]:
                if direction == "too many":
                    wealth *= 1.0 - stake + stake * share / rate
                else:
                    wealth *= 1.0 + stake * (rate - share) / (1.0 - rate)
            total += wealth / (start * (start + 1)) / len(STAKES[direction])
    return total + 1.0 / (len(shares) + 1)


@settings(max_examples=30)
@given(st.lists(st.floats(0.0, 1.0), max_size=12), st.sampled_from(DIRECTIONS))
def test_the_recursion_is_the_sum_over_all_starts_and_stakes(shares, direction):
    evidence, values = settled(direction, shares)
    assert values[-1] == pytest.approx(by_hand(direction, shares, RATE), rel=1e-12)
    assert evidence.largest[0] == max(values)
    assert evidence.bets[0] == len(shares)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_mean_stays_one_when_the_promise_is_kept_exactly(direction):
    # all 2^8 paths of eight coin flips with their probabilities: an expectation, not a simulation
    rate, bets = 0.3, 8
    paths_of = np.array(np.meshgrid(*[[0.0, 1.0]] * bets)).reshape(bets, -1)
    chance = np.prod(np.where(paths_of == 1.0, rate, 1.0 - rate), axis=0)
    values, _ = paths(paths_of, direction, rate)
    assert values @ chance == pytest.approx(np.ones(bets), rel=1e-12)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_kept_promise_rarely_ever_reaches_the_limit(direction):
    # 0.05 of false alarms are promised over the whole time; shares of five contracts that
    # fall together half of the time
    generator = np.random.default_rng(1)
    together = generator.random((600, 800)) < RATE
    apart = generator.random((600, 800, 5)) < RATE
    jointly = generator.random((600, 800)) < 0.5
    shares = np.where(jointly, together, apart.mean(axis=2))
    _, evidence = paths(shares.astype(float), direction)
    assert (evidence.largest >= 20.0).mean() <= 0.05


def test_a_doubled_rate_is_found_and_a_later_change_is_too():
    generator = np.random.default_rng(2)
    calm = generator.random((500, 200, 10)) < RATE
    doubled = generator.random((400, 200, 10)) < 2 * RATE
    at_once, _ = paths(doubled.mean(axis=2), "too many")
    later, _ = paths(np.concatenate([calm, doubled]).mean(axis=2), "too many")
    assert (at_once.max(axis=0) >= 100.0).mean() > 0.95
    assert (later.max(axis=0) >= 100.0).mean() > 0.9
    # calm is a burden that does not grow with its length: 500 bets of it cost a few times the delay
    first = (at_once >= 100.0).argmax(axis=0)
    after = (later[500:] >= 100.0).argmax(axis=0)
    assert np.median(after) < 4 * np.median(first)


def test_a_rate_of_nothing_is_found_to_be_too_low():
    _, values = settled("too few", np.zeros(250))
    assert values[-1] > 100.0
    _, values = settled("too many", np.zeros(250))
    assert max(values) == 1.0


def test_a_stream_without_a_bet_stays_as_it_is():
    before, _ = settled("too many", [1.0, 0.0])
    after = before.settle(np.array([np.nan]), RATES)
    assert after.e_values == before.e_values
    assert after.bets == before.bets


def test_wealth_stays_a_number():
    evidence, values = settled("too many", np.ones(3000), rate=0.001)
    assert np.isfinite(values).all()
    assert evidence.wealth.max() == MOST_WEALTH


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_lies_between_none_and_all(share):
    with pytest.raises(InputError, match="share of exceedances"):
        settled("too many", [share])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_nobody_goes_into_debt(direction):
    shares, rates = np.array([0.0, 1.0, 0.5]), np.array([0.001, 0.001, 0.5])
    assert (growth(direction, shares, rates) > 0.0).all()


def test_the_bounds_of_a_rate_hold_at_all_times_together():
    generator = np.random.default_rng(3)
    missed = 0
    for _ in range(60):
        shares = (generator.random((300, 4)) < RATE).mean(axis=1)
        bounds = [confidence_sequence(shares[:end], 0.9) for end in (20, 60, 150, 300)]
        missed += any(not low <= RATE <= high for low, high in bounds)
    assert missed <= 6
    low, high = confidence_sequence(np.tile([0.0, 0.0, 0.0, 0.2], 500), 0.95)
    assert 0.035 < low < 0.05 < high < 0.07


def test_without_an_outcome_nothing_is_known_of_a_rate():
    assert confidence_sequence(np.empty(0), 0.95) == (0.0, 1.0)
    low, high = confidence_sequence(np.zeros(100), 0.95)
    assert low == 0.0
    assert 0.0 < high < 0.1


def test_e_benjamini_hochberg_is_its_definition():
    # of four with a rate of 0.1 one must reach 40, two 20 each, three 13.3, all 10
    values = np.array([21.0, 3.0, 25.0, 1.0])
    assert e_benjamini_hochberg(values, 0.1).tolist() == [True, False, True, False]
    assert not e_benjamini_hochberg(np.array([39.0, 1.0, 1.0, 1.0]), 0.1).any()
    assert e_benjamini_hochberg(np.full(4, 10.0), 0.1).all()
    assert e_benjamini_hochberg(np.empty(0), 0.1).tolist() == []
