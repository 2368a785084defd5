"""The oracle studies' markets do what they say: their stated quantiles are the true ones."""

import math
from datetime import UTC, datetime, timedelta
from itertools import product

import numpy as np
import pandas as pd
import pytest
from benchmarks.oracle.bars import SYMBOLS, Decisions, decisions_of, feature_set_of
from benchmarks.oracle.dynamics import CONTRACTS
from benchmarks.oracle.laws import (
    GRID,
    SUBSTEPS,
    Truth,
    UnitLaw,
    brownian_sample,
    gaussian_law,
    student_law,
    to_fraction,
    to_log,
)
from benchmarks.oracle.processes import (
    INTO_STRESS,
    LISTED_LATE,
    OUT_OF_STRESS,
    PROCESSES,
    SPREAD_BINS,
    STRESS_TIMES,
    USUAL_VOLATILITY,
    Market,
    Setting,
    jump_chances,
    stress_chances,
)
from benchmarks.oracle.recovery import ROLLING, recovery_of
from benchmarks.oracle.study import QUICK, WORKSPACE, job_of, scores_of
from scipy.stats import norm

from margincast.core.types import SIDES
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec

START = datetime(2020, 1, 1, tzinfo=UTC)
HOURS = 120 * 24
LEVELS = (0.99, 0.995, 0.999)
FAR = 4.5
"""Standard errors; with some 150 comparisons on fixed seeds none should lie beyond."""


def setting(hours: int = HOURS, test_hour: int = 60 * 24, factor: float = 1.0) -> Setting:
    multiplier = np.ones(hours)
    multiplier[hours // 2 :] = factor
    return Setting(START, test_hour, multiplier)


@pytest.fixture(scope="module")
def markets() -> dict[str, Market]:
    return {name: made(setting(), np.random.default_rng(11)) for name, made in PROCESSES.items()}


def moved(market: Market, side: str) -> np.ndarray:
    """Log excursion of every hour and contract, in the order of the truth's rows."""
    return -market.moves.low.ravel() if side == "long" else market.moves.high.ravel()


def standard_errors_off(hits: np.ndarray, chance: float, hours: np.ndarray) -> float:
    """How far hits are from their chance; those of one hour count together (they are related)."""
    surplus = np.bincount(hours, hits - chance)
    return float(surplus.sum() / math.sqrt((surplus**2).sum()))


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("side", SIDES)
def test_outcomes_exceed_the_stated_quantiles_as_often_as_they_should(markets, process, side):
    market = markets[process]
    hours = np.repeat(np.arange(HOURS), CONTRACTS)
    for level in LEVELS:
        hits = moved(market, side) > market.truth.quantile(side, level)
        assert abs(standard_errors_off(hits, 1 - level, hours)) < FAR


@pytest.mark.parametrize("process", PROCESSES)
def test_they_do_so_in_every_state_the_oracle_tells_apart(markets, process):
    """A quantile right on average and wrong by state would pass the test above."""
    market = markets[process]
    truth, hours = market.truth, np.repeat(np.arange(HOURS), CONTRACTS)
    weekday = np.repeat(setting().weekday, CONTRACTS)
    wide = (truth.weights * truth.scales).sum(axis=1) / np.tile(USUAL_VOLATILITY, HOURS)
    thirds = np.searchsorted(np.quantile(wide, [1 / 3, 2 / 3, 0.95]), wide)
    likely = np.digitize(truth.weights[:, -1], [0.002, 0.01, 0.02, 0.5, 0.9])
    hits = {side: moved(market, side) > truth.quantile(side, 0.99) for side in SIDES}
    for state in (weekday, thirds, likely):
        for value in np.unique(state):
            rows = state == value
            for side in SIDES:
                if rows.sum() > 2000:
                    assert abs(standard_errors_off(hits[side][rows], 0.01, hours[rows])) < FAR


@pytest.mark.parametrize("process", PROCESSES)
def test_the_check_would_notice_a_quantile_a_fifth_too_low(markets, process):
    market = markets[process]
    hours = np.repeat(np.arange(HOURS), CONTRACTS)
    for side in SIDES:
        hits = moved(market, side) > 0.8 * market.truth.quantile(side, 0.99)
        assert standard_errors_off(hits, 0.01, hours) > FAR


@pytest.mark.parametrize("process", PROCESSES)
def test_the_truth_of_an_hour_hangs_on_nothing_that_comes_later(process):
    make, half = PROCESSES[process], HOURS // 2
    calm, broken = (make(setting(factor=factor), np.random.default_rng(5)) for factor in (1.0, 3.0))
    for name in ("weights", "scales"):
        before, after = (
            getattr(m.truth, name).reshape(HOURS, CONTRACTS, -1) for m in (calm, broken)
        )
        assert np.array_equal(before[:half], after[:half])
        # and a volatility tripled from outside triples the scale and changes no chance
        factor = 3.0 if name == "scales" else 1.0
        assert np.allclose(factor * before[half:], after[half:])
    assert np.allclose(3.0 * calm.moves.high[half:], broken.moves.high[half:])


def test_gaussian_quantiles_are_those_of_a_discretely_watched_brownian_motion():
    """Broadie, Glasserman and Kou (1997), doi:10.1111/1467-9965.00035: watching m steps moves a
    barrier by 0.5826 / sqrt(m); the continuous maximum follows the reflection principle."""
    truth = Truth((gaussian_law(),), np.ones((1, 1)), np.ones((1, 1)))
    for level in LEVELS:
        expected = norm.ppf(1 - (1 - level) / 2) - 0.5826 / math.sqrt(SUBSTEPS)
        for side in SIDES:
            assert truth.quantile(side, level)[0] == pytest.approx(expected, rel=0.01)


def test_a_student_law_with_many_degrees_is_gaussian_and_with_few_has_its_tail_index():
    gaussian, nearly = gaussian_law().survival["long"], student_law(1e6).survival["long"]
    assert np.allclose(gaussian, nearly, atol=1e-4)
    tail = student_law(3.2).survival["long"]
    far = (GRID > 40) & (GRID < 300)
    slope = np.polyfit(np.log(GRID[far]), np.log(tail[far]), 1)[0]
    assert slope == pytest.approx(-3.2, abs=0.05)


def test_a_student_law_is_that_of_a_direct_sample():
    generator, sample = np.random.default_rng(3), brownian_sample()
    drawn = sample.high * np.sqrt(3.0 / generator.chisquare(5.0, len(sample.high)))
    truth = Truth((student_law(5.0),), np.ones((1, 1)), np.ones((1, 1)))
    for level in LEVELS:
        share = (drawn > truth.quantile("short", level)).mean()
        assert abs(share - (1 - level)) < FAR * math.sqrt((1 - level) / len(drawn))


def two_laws() -> Truth:
    count = 5
    weights = np.linspace(0.05, 0.95, count)
    return Truth(
        (gaussian_law(), student_law(3.2)),
        np.stack([weights, 1 - weights], axis=1),
        np.stack([np.full(count, 0.01), np.linspace(0.005, 0.03, count)], axis=1),
    )


@pytest.mark.parametrize("level", LEVELS)
def test_quantile_and_survival_are_inverse_and_the_expected_loss_is_least_there(level):
    truth = two_laws()
    quantile = truth.quantile("long", level)
    assert np.allclose(truth.survival("long", quantile), 1 - level, rtol=1e-3)
    least = truth.expected_pinball("long", level, quantile)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert (truth.expected_pinball("long", level, factor * quantile) > least).all()


def test_expected_loss_is_the_mean_loss_of_outcomes():
    sample = np.concatenate([brownian_sample().high, -brownian_sample().low])
    truth = Truth((gaussian_law(),), np.ones((1, 1)), np.full((1, 1), 0.02))
    for forecast in (0.03, 0.05, 0.06):
        difference = 0.02 * sample - forecast
        mean = np.maximum(0.99 * difference, -0.01 * difference).mean()
        expected = truth.expected_pinball("short", 0.99, np.array([forecast]))[0]
        assert expected == pytest.approx(mean, rel=1e-3)


@pytest.mark.parametrize("side", SIDES)
def test_log_excursions_and_fractions_are_two_names_of_one_thing(side):
    fraction = np.array([0.0, 0.001, 0.05, 0.6])
    assert np.allclose(to_fraction(side, to_log(side, fraction)), fraction)
    price = 100.0 * np.exp([1, -1][side == "long"] * to_log(side, fraction))
    assert np.allclose(abs(price / 100.0 - 1.0), fraction)


def test_the_regime_filter_is_the_sum_over_all_regime_histories():
    shown = np.log(brownian_sample().spread[:6]) + np.log(STRESS_TIMES) * np.array(
        [0, 0, 1, 1, 0, 1]
    )
    sample = np.log(brownian_sample().spread)
    edges = np.linspace(sample.min(), sample.max() + np.log(STRESS_TIMES), SPREAD_BINS + 1)[1:-1]
    bins = np.searchsorted(edges, shown)
    chance_of = [
        np.array([(np.searchsorted(edges, sample + shift) == b).sum() + 0.01 for b in bins])
        for shift in (0.0, np.log(STRESS_TIMES))
    ]
    found = stress_chances(shown[:, None])[:, 0]
    for hour in range(1, 6):
        joint = {0: 0.0, 1: 0.0}
        for path in product((0, 1), repeat=hour + 1):
            if path[0]:
                continue  # all start calm
            weight = 1.0
            for at in range(hour):
                weight *= chance_of[path[at]][at]
                leave = OUT_OF_STRESS if path[at] else INTO_STRESS
                weight *= leave if path[at + 1] != path[at] else 1 - leave
            joint[path[-1]] += weight
        assert found[hour] == pytest.approx(joint[1] / (joint[0] + joint[1]), rel=1e-9)


def test_jumps_come_with_the_stated_chances_and_more_often_in_stress():
    chances = jump_chances(np.array([0.2, 1.0, 5.0]))
    assert np.allclose(chances.sum(axis=1), 1.0)
    assert (np.diff(chances[:, 1]) > 0).all()
    assert -np.log(chances[[0, -1], 0]) == pytest.approx([0.004, 0.03], rel=0.01)


def test_new_listings_and_nothing_else_are_judged_in_their_first_days(markets):
    market = markets["new_listing"]
    judged = market.judged.any(axis=0)
    assert np.flatnonzero(judged).tolist() == list(LISTED_LATE)
    for contract in LISTED_LATE:
        first = market.listed[contract]
        assert not market.judged[:first, contract].any()
        assert market.judged[first : first + 24 * 7, contract].all()
    assert (market.listed[: min(LISTED_LATE)] == 0).all()


@pytest.fixture(scope="module")
def small() -> tuple[Market, Setting, Decisions]:
    job = job_of(QUICK)
    feature_set = feature_set_of(load_spec(WORKSPACE / job.features.set, FeatureSet))
    chosen = setting(hours=30 * 24, test_hour=20 * 24)
    market = PROCESSES["new_listing"](chosen, np.random.default_rng(2))
    return market, chosen, decisions_of(market, chosen, job, feature_set)


def test_the_truth_beside_a_decision_is_that_of_the_hour_that_follows_it(small):
    market, chosen, decisions = small
    panel = decisions.panel
    known = panel.labelled
    assert known.mean() > 0.95
    hour = (panel.frame["ts"] - START).dt.total_seconds().to_numpy().astype(int) // 3600
    contract = np.array([SYMBOLS.index(symbol) for symbol in panel.frame["symbol"]])
    for side, moves in (("long", -market.moves.low), ("short", market.moves.high)):
        after = to_log(side, panel.outcomes[side])
        assert np.allclose(after[known], moves[hour, contract][known], rtol=1e-9, atol=1e-12)
    scales = market.truth.scales.reshape(chosen.hours, CONTRACTS, -1)
    assert np.array_equal(decisions.truth.scales, scales[hour, contract])


def test_features_show_nothing_of_the_truth_but_what_bars_show(small):
    _, _, decisions = small
    assert not {"true_volatility", "weights", "scales"} & set(decisions.panel.units)
    assert "leader_parkinson_volatility_1h" in decisions.panel.units
    assert not any("implied" in name for name in decisions.panel.units)


def forecast_of(decisions: Decisions, factor: float = 1.0) -> TailForecast:
    quantiles = np.empty((len(decisions.panel), len(SIDES), len(LEVELS)))
    for i, side in enumerate(SIDES):
        for j, level in enumerate(LEVELS):
            true = to_fraction(side, decisions.truth.quantile(side, level))
            quantiles[:, i, j] = factor * true
    return TailForecast(SIDES, LEVELS, quantiles)


def test_the_oracle_scores_one_and_a_wrong_forecast_more(small):
    _, _, decisions = small
    forecasts = {"oracle": [forecast_of(decisions)], "low": [forecast_of(decisions, 0.8)]}
    scores = scores_of("new_listing", 1, [decisions], forecasts)
    for score in scores:
        if score.model == "oracle":
            assert score.pinball_ratio == pytest.approx(1.0, abs=1e-9)
            assert score.exceedance_ratio == pytest.approx(1.0, rel=1e-2)
            assert score.log_error == pytest.approx(0.0, abs=1e-6)
        else:
            assert score.pinball_ratio > 1.005
            assert score.exceedance_ratio > 1.5
            assert score.log_bias == pytest.approx(math.log(0.8))
    assert scores[0].decisions == 2 * int((decisions.judged & decisions.panel.labelled).sum())


def broken_decisions(hours: int = 200) -> Decisions:
    ts = [START + timedelta(hours=hour) for hour in range(hours) for _ in SYMBOLS]
    rows = len(ts)
    frame = {"symbol": list(SYMBOLS) * hours, "ts": ts, "close": np.ones(rows)}
    law: UnitLaw = gaussian_law()
    truth = Truth((law,), np.ones((rows, 1)), np.full((rows, 1), 0.01))
    panel = Panel.of_decisions(pd.DataFrame(frame), {}, SIDES)
    return Decisions(panel, truth, np.ones(rows, dtype=bool))


@pytest.mark.parametrize(("late", "expected"), [(0, 24), (40, 52), (1000, math.nan)])
def test_recovery_counts_the_decisions_until_the_rolling_median_is_near(late, expected):
    """The median of 24 is near once 12 of them are: 12 decisions after the forecast is."""
    decisions, broken_hour = broken_decisions(), 50
    forecast = forecast_of(decisions)
    since = np.repeat(np.arange(200), CONTRACTS) - broken_hour
    wrong = (since >= 0) & (since < late)
    forecast.quantiles[wrong] /= 3.0
    found = recovery_of(
        "made up",
        1,
        "made up",
        decisions=decisions,
        forecast=forecast,
        broken_at=START + timedelta(hours=broken_hour),
    )
    assert found.before == pytest.approx(1.0)
    assert found.decisions_to_quantile == pytest.approx(expected, abs=1, nan_ok=True)
    # exceedances of a wrong day stay in the rolling mean until the day is over
    covered = {0: ROLLING, 40: 40 + ROLLING, 1000: math.nan}[late]
    assert found.decisions_to_coverage == pytest.approx(covered, abs=1, nan_ok=True)
