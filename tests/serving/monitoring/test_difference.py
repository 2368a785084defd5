"""Champion against shadow: bounds that hold at all times, on the same decisions."""

from dataclasses import replace

import numpy as np
import pytest
from tests.serving.monitoring.monitoring_cases import HORIZON, after, record_case

from margincast.core.errors import InputError
from margincast.scoring.pinball import mean_pinball
from margincast.serving.monitoring.difference import difference_of, mean_bounds
from margincast.serving.monitoring.tally import bet_times

AT = after(2000)


def pair(seed=1, hours=480, ratio=1.0, other=1.0):
    champion = record_case(hours=hours, seed=seed, ratio=ratio, levels=(0.9,))
    shadow = record_case(hours=hours, seed=seed, ratio=other, levels=(0.9,), subject="model/2")
    return champion, shadow


def test_the_better_model_is_found():
    # the champion promises the 60 % quantile for the 90 % one
    found = difference_of(*pair(hours=9000, ratio=4.0), 0.9, after(10_000), 0.95)
    assert found.lower > 0.0
    assert found.loss_ratio > 1.0
    found = difference_of(*pair(hours=9000, other=4.0), 0.9, after(10_000), 0.95)
    assert found.upper < 0.0
    assert found.loss_ratio < 1.0


def test_figures_are_those_of_a_loop():
    champion, shadow = pair(ratio=2.0)
    found = difference_of(champion, shadow, 0.9, AT, 0.95)
    bets = bet_times(champion.decided, HORIZON, np.datetime64("NaT", "us"))
    advantages = []
    for bet in bets:
        rows = champion.decided == bet
        gained = apart = 0.0
        for side in range(2):
            outcome = champion.outcomes[rows, side]
            one, other = champion.promised[rows, side, 0], shadow.promised[rows, side, 0]
            gained += len(outcome) * (
                mean_pinball(outcome, one, 0.9) - mean_pinball(outcome, other, 0.9)
            )
            apart += np.abs(one - other).sum()
        advantages.append(gained / apart)
    assert found.moments == len(bets)
    assert found.advantage == pytest.approx(np.mean(advantages))
    assert found.decisions == len(champion)
    everywhere = [
        mean_pinball(champion.outcomes.ravel(), one.promised[:, :, 0].ravel(), 0.9)
        for one in (champion, shadow)
    ]
    assert found.loss_ratio == pytest.approx(everywhere[0] / everywhere[1])
    assert np.abs(advantages).max() <= 1.0


def test_only_decisions_of_both_count_in_any_order():
    champion, shadow = pair(ratio=2.0)
    keep = np.arange(len(shadow)) >= 90
    fewer = difference_of(champion, shadow.rows(keep), 0.9, AT, 0.95)
    assert fewer == difference_of(champion.rows(keep), shadow.rows(keep), 0.9, AT, 0.95)
    assert fewer.decisions == len(champion) - 90


def test_outcomes_whose_horizon_has_not_passed_do_not_count():
    champion, shadow = pair(ratio=2.0)
    at = after(100)
    future = champion.matures > np.datetime64(at.replace(tzinfo=None), "us")
    outcomes = np.where(future[:, None], 1.0, champion.outcomes)
    changed = [replace(one, outcomes=outcomes) for one in (champion, shadow)]
    assert difference_of(*changed, 0.9, at, 0.95) == difference_of(champion, shadow, 0.9, at, 0.95)


def test_equal_models_have_no_difference():
    found = difference_of(*pair(), 0.9, AT, 0.95)
    assert found.moments == 0
    assert (found.lower, found.upper) == (-1.0, 1.0)
    assert found.loss_ratio == 1.0


def test_what_cannot_be_compared_is_refused():
    champion, shadow = pair()
    with pytest.raises(InputError, match=r"level 0\.99"):
        difference_of(champion, shadow, 0.99, AT, 0.95)
    with pytest.raises(InputError, match="same horizon"):
        difference_of(champion, replace(shadow, horizon=2 * HORIZON), 0.9, AT, 0.95)


def test_bounds_of_a_mean_hold_at_all_times_together():
    generator = np.random.default_rng(1)
    missed = 0
    for _ in range(100):
        values = (generator.random(500) < 0.1).astype(float)
        bounds = [mean_bounds(values[:end], 0.9) for end in (10, 50, 150, 300, 500)]
        missed += any(not low <= 0.1 <= high for low, high in bounds)
    assert missed <= 10
    low, high = mean_bounds(np.tile([0.4, 0.6], 2000), 0.95)
    assert 0.48 < low < 0.5 < high < 0.52


def test_bounds_are_those_of_a_loop():
    values = np.random.default_rng(2).random(30)
    # theorem 2 of Waudby-Smith and Ramdas (2024), term by term
    total = weight_sum = spent = 0.0
    mean, variance = 0.5, 0.25
    seen, squares = 0.5, 0.25
    doubt = np.log(2 / 0.05)
    for t, value in enumerate(values, start=1):
        weight = min(np.sqrt(2 * doubt / (variance * t * np.log(1 + t))), 0.5)
        spent += 4 * (value - mean) ** 2 * (-np.log(1 - weight) - weight) / 4
        total += weight * value
        weight_sum += weight
        seen += value
        mean = seen / (t + 1)
        squares += (value - mean) ** 2
        variance = squares / (t + 1)
    low, high = mean_bounds(values, 0.95)
    assert low == pytest.approx(max(0.0, (total - doubt - spent) / weight_sum))
    assert high == pytest.approx(min(1.0, (total + doubt + spent) / weight_sum))
    assert mean_bounds(np.empty(0), 0.95) == (0.0, 1.0)
