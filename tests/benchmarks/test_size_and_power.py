"""The study of size and power counts rightly, and its margins are what they are called."""

import math

import numpy as np
import pytest
from benchmarks.golden.records import Row
from benchmarks.golden_table import by_family, every_row
from benchmarks.size_and_power.panel import CONTRACTS, DECISIONS_A_DAY, OVERLAP, draw_panel
from benchmarks.size_and_power.report import outside, power_table, size_table
from benchmarks.size_and_power.series import (
    DEPTH,
    FOLLOWED,
    MEAN_SQUARE,
    draw_hits,
    draw_series,
    levels_of,
    shock_quantile,
)
from benchmarks.size_and_power.study import SIZE, Batch, rejected, run, share_of, summarise
from scipy import stats

from margincast.backtest.es_tests.tail_law import USUAL_TAIL
from margincast.backtest.var_tests.berkowitz import scores_of_quantiles


def drawn(truth, level=0.95, count=40, size=2000):
    return draw_series(count, size, level, truth, np.random.default_rng(3))


def test_p_values_are_counted_and_a_missing_one_rejects_nothing():
    p_values = np.array([0.0, 0.049, 0.05, 0.5, math.nan])
    assert rejected(p_values).tolist() == [True, True, False, False, False]


def test_share_and_its_error_are_those_of_the_batches():
    found = share_of([1, 3], [10, 10])
    assert found.share == pytest.approx(0.2)
    assert found.standard_error == pytest.approx(0.1)
    assert math.isnan(share_of([1], [10]).standard_error)


def test_the_study_finds_the_known_size_of_the_exact_binomial():
    batches = [Batch(250, 0.99, 100, seed, ("exact_binomial greater",)) for seed in (1, 2, 3, 4)]
    cells = summarise([one for batch in batches for one in run(batch)])
    (cell,) = [each for each in cells if each.truth == SIZE]
    # it rejects from the first count on that has at most 5 % beyond it
    law = stats.binom(250, 0.01)
    size = law.sf(law.isf(0.05))
    assert cell.series == 400
    assert cell.asymptotic.share == pytest.approx(size, abs=4.0 * math.sqrt(size / 400))
    assert cell.monte_carlo is not None
    assert cell.monte_carlo.share == pytest.approx(0.05, abs=4.0 * math.sqrt(0.05 / 400))


@pytest.mark.parametrize(
    ("truth", "ratio"),
    [
        ("true margin", 1.0),
        ("1.5x exceedances", 1.5),
        ("2x exceedances", 2.0),
        ("clusters", 1.0),
        ("deeper", 1.0),
    ],
)
def test_every_margin_is_exceeded_as_often_as_it_is_called(truth, ratio):
    series = drawn(truth)
    exceeded = np.mean([one.outcome[:, np.newaxis] > one.forecasts for one in series], axis=(0, 1))
    expected = ratio * (1.0 - np.array(levels_of(0.95)))
    first = exceeded[:1] if truth == "deeper" else exceeded  # further levels: too often
    # neighbours in clusters tell each other's story: errors half as large again
    errors = 1.5 * np.sqrt(expected / 80_000)
    np.testing.assert_array_less(np.abs(first - expected[: first.size]), 4.0 * errors[: first.size])
    if truth == "deeper":
        assert np.all(exceeded[1:] > expected[1:] + 4.0 * errors[1:])


def test_exceedances_follow_exceedances_in_clusters_only():
    for truth, chance in (("clusters", FOLLOWED), ("true margin", 0.05)):
        hits = draw_hits((40, 2000), 0.95, truth, np.random.default_rng(5))
        followed = hits[:, 1:][hits[:, :-1]]
        error = math.sqrt(chance * (1.0 - chance) / followed.size)
        assert followed.mean() == pytest.approx(chance, abs=4.0 * error)


def test_excesses_follow_the_law_that_the_tests_assume():
    for truth, depth in (("true margin", 1.0), ("deeper", DEPTH)):
        excess = np.concatenate(
            [
                ((one.outcome - one.forecast) / (one.expected_shortfall - one.forecast))[one.hits]
                for one in drawn(truth)
            ]
        )
        found = stats.kstest(excess / depth, lambda e: 1.0 - USUAL_TAIL.share_beyond(e))
        assert found.pvalue > 0.001


def test_scores_are_standard_normal_and_known_from_the_forecasts_alone():
    series = drawn("true margin")
    assert stats.kstest(np.concatenate([one.scores for one in series]), "norm").pvalue > 0.001
    for truth in ("true margin", "deeper"):
        (one,) = drawn(truth, count=1)
        found = scores_of_quantiles(one.outcome, one.forecasts, one.levels)
        np.testing.assert_allclose(found[one.hits], one.scores[one.hits], rtol=1e-9)


def test_shocks_have_the_square_that_the_volatility_reckons_with():
    beyond = (np.arange(2_000_000) + 0.5) / 2_000_000
    assert np.mean(shock_quantile(beyond) ** 2) == pytest.approx(MEAN_SQUARE, rel=1e-2)


@pytest.mark.parametrize("truth", ["true margin", "2x exceedances", "clusters"])
def test_panels_are_exceeded_as_often_as_they_are_called_and_together(truth):
    panels = [draw_panel(400, 0.95, truth, np.random.default_rng(seed)) for seed in range(30)]
    shares = np.array([panel.hits.mean(axis=0) for panel in panels])
    expected = (2.0 if truth == "2x exceedances" else 1.0) * (1.0 - np.array(levels_of(0.95)))
    errors = shares.std(axis=0, ddof=1) / math.sqrt(len(panels))
    np.testing.assert_array_less(np.abs(shares.mean(axis=0) - expected), 4.0 * errors)
    # contracts crash together: far more spread than independent exceedances have
    assert shares[:, 0].std() > 2.0 * math.sqrt(expected[0] / panels[0].days.size)


def test_panels_know_the_last_finished_exceedance():
    panel = draw_panel(300, 0.95, "clusters", np.random.default_rng(1))
    hits = panel.hits[:, 0].reshape(-1, CONTRACTS)
    before = panel.instruments[:, 0].reshape(-1, CONTRACTS)
    np.testing.assert_array_equal(before[OVERLAP:], hits[:-OVERLAP])
    assert panel.days.max() == (300 - 1) // DECISIONS_A_DAY
    followed = hits[OVERLAP:][hits[:-OVERLAP]].mean()
    assert followed > 2.0 * hits.mean()


def test_tables_show_both_p_values_and_name_what_is_out_of_bounds():
    names = ("kupiec", "costanzino_curran", "bayer_dimitriadis strict")
    cells = summarise(run(Batch(60, 0.95, 20, 1, names)) + run(Batch(60, 0.95, 20, 2, names)))
    lines = size_table(cells).splitlines()
    assert lines[0] == "| test | 0.95, 60 |"
    (kupiec,) = [c for c in cells if (c.test, c.truth) == ("kupiec", SIZE)]
    assert kupiec.monte_carlo is not None
    both = f"{100 * kupiec.asymptotic.share:.1f} / {100 * kupiec.monte_carlo.share:.1f}"
    assert lines[2] == f"| kupiec | {both} |"
    assert lines[3].endswith(" / - |")
    assert lines[4] == "| bayer_dimitriadis strict | - |"  # sixty decisions promise too few
    assert "kupiec" not in power_table(cells, "deeper")
    assert outside(cells, 1.0) == []


def test_the_golden_table_shows_the_number_that_differs_most():
    rows = [
        Row("f, R", "one", "p", 0.5, 0.5),
        Row("f, R", "two", "p", 0.5, 0.4),
        Row("g, R", "three", "p", 0.5, 0.4, simulated=True),
    ]
    assert [row.difference for row in rows] == pytest.approx([0.0, 0.25, 0.1])
    lines = by_family(rows).splitlines()
    assert lines[2] == "| f, R | 2 | 2 | 2.5e-01 | `two` p | 0.5 | 0.4 |"
    assert "0.100 (absolute)" in lines[3]
    assert len(every_row(rows).splitlines()) == 5
