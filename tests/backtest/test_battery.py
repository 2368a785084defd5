"""The battery: every test on every series, nothing lost, adjusted together."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t

from margincast.backtest.battery import (
    HIT_TESTS,
    PAIR_TESTS,
    SHORTFALL_TESTS,
    Series,
    run_battery,
    verdicts_by_test,
)
from margincast.backtest.dependence import benjamini_hochberg
from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.verdicts import Criterion

LEVELS = (0.95, 0.99)
DEGREES = 4


def series(number, *, size=1500, width=1.0, seed=1):
    """Student-t outcomes; forecasts are the true quantiles times ``width``."""
    rng = np.random.default_rng((seed, number))
    scale = np.exp(rng.normal(-4.0, 0.3, size))
    outcome = np.maximum(0.0, scale * rng.standard_t(DEGREES, size))
    forecasts = width * scale[:, None] * student_t.ppf(LEVELS, DEGREES)
    return Series(f"C{number // 2}", ("long", "short")[number % 2], LEVELS, outcome, forecasts)


@pytest.fixture(scope="module")
def table():
    return run_battery([series(number) for number in range(6)])


def test_every_series_has_every_test_at_every_level(table):
    per_level = len(HIT_TESTS) + len(PAIR_TESTS) + 1
    counts = table.groupby(["symbol", "side"]).size()
    assert (counts == per_level * len(LEVELS) + 2).all()
    assert len(counts) == 6
    assert not table.duplicated(["symbol", "side", "level", "test"]).any()


def test_a_model_with_an_expected_shortfall_is_asked_for_it_too():
    plain = series(0)
    quantile = student_t.ppf(LEVELS, DEGREES)
    density = student_t.pdf(quantile, DEGREES) / (1.0 - np.array(LEVELS))
    mean_beyond = density * (DEGREES + quantile**2) / (DEGREES - 1)
    right = Series(
        plain.symbol,
        plain.side,
        LEVELS,
        plain.outcome,
        plain.forecasts,
        plain.forecasts * (mean_beyond / quantile),
    )
    made = run_battery([right], monte_carlo=SimulatedExceedances(replications=199))
    asked = {"acerbi-szekely unconditional", "mcneil-frey greater", "costanzino-curran greater"}
    assert asked <= set(made["test"])
    without = run_battery([plain])
    assert len(made) == len(without) + (len(SHORTFALL_TESTS) + 3) * len(LEVELS)
    timid = replace(right, expected_shortfalls=right.forecasts * 1.02)
    failed = run_battery([timid]).query("verdict == 'fail' and level == 0.95")["test"]
    assert {"acerbi-szekely unconditional", "mcneil-frey greater"} <= set(failed)


def test_every_answer_has_a_p_value_or_a_reason(table):
    silent = table["p_value"].isna() & (table["reason"] == "")
    assert not silent.any()


def test_p_values_are_adjusted_over_the_series_of_a_test_and_level(table):
    own = table[(table["test"] == "kupiec") & (table["level"] == 0.95)]
    np.testing.assert_allclose(own["adjusted_p"], benjamini_hochberg(own["p_value"].to_numpy()))


def test_a_margin_too_low_by_a_third_fails_where_a_right_one_passes():
    low = run_battery([series(number, width=0.66) for number in range(4)])
    right = run_battery([series(number) for number in range(4)])
    failed = verdicts_by_test(low).set_index(["test", "level"])["failed"]
    assert failed["kupiec", 0.95] == failed["exact binomial", 0.95] == 4
    assert failed["traffic light", 0.95] == 4
    assert (low[low["test"] == "traffic light"]["verdict"] == "fail").all()
    assert verdicts_by_test(right).set_index(["test", "level"])["failed"]["kupiec", 0.95] == 0


def test_monte_carlo_decides_where_it_is_asked_for():
    own = run_battery(
        [series(0, size=300)], Criterion(), monte_carlo=SimulatedExceedances(replications=99)
    )
    known = own["monte_carlo_p_value"].notna()
    assert known.sum() >= 2 * len(HIT_TESTS)
    failing = own[known & (own["verdict"] == "fail")]
    assert (failing["monte_carlo_p_value"] < 0.05).all()


@pytest.mark.parametrize("width", [0.0, 1e-9, 50.0])
def test_margins_always_or_never_exceeded_have_defined_answers(width):
    odd = series(1)
    forecasts = np.full_like(odd.forecasts, width) + np.array([0.0, width / 10])
    made = run_battery(
        [
            Series(
                "ODD",
                "long",
                LEVELS,
                odd.outcome / 1e3 if width > 1 else odd.outcome + 1e-3,
                np.minimum(forecasts, 0.9 + np.array([0.0, 0.05])),
            )
        ]
    )
    assert not (made["p_value"].isna() & (made["reason"] == "")).any()


def test_a_short_series_says_that_it_cannot_tell():
    made = run_battery([series(0, size=60)])
    counts = made[made["test"].isin(["kupiec", "exact binomial"]) & (made["level"] == 0.99)]
    assert (counts["verdict"] == "no power").all()
    assert counts["reason"].str.contains("probability").all()


def test_the_table_of_answers_counts_all_series(table):
    counted = verdicts_by_test(table)
    assert (counted["series"] == 6).all()
    assert isinstance(counted, pd.DataFrame)
    assert (counted["failed"] <= counted["series"]).all()


def test_an_expected_shortfall_below_its_quantile_is_the_reason_for_no_answer():
    plain = series(0)
    low = replace(plain, expected_shortfalls=plain.forecasts * 0.9)
    answers = run_battery([low]).query("test == 'expected shortfall'")
    assert len(answers) == len(LEVELS)
    assert answers["reason"].str.contains("below its quantile").all()
    hair = replace(plain, expected_shortfalls=plain.forecasts * (1.0 - 1e-15))
    assert "mcneil-frey greater" in set(run_battery([hair])["test"])


def test_a_young_contract_that_looks_like_per_cent_does_not_end_the_report():
    odd = Series("NEW", "short", LEVELS, np.full(5, 0.08), np.full((5, 2), 2.2))
    made = run_battery([series(0), odd])
    reasons = made[(made["symbol"] == "NEW") & (made["reason"] != "")]["reason"]
    assert reasons.str.contains("per cent").any()


def test_a_zone_is_not_adjusted_and_stands_as_it_is():
    made = run_battery([series(number, width=0.8) for number in range(6)])
    lights = made[made["test"] == "traffic light"]
    assert lights["adjusted_p"].isna().all()
    counted = verdicts_by_test(made).query("test == 'traffic light' and level == 0.95").iloc[0]
    assert counted["failed"] == counted["failed_alone"]
