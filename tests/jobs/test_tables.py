"""The table of models on a terminal: readable with twenty models, honest about what is unknown."""

import io
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from margincast.backtest.contracts import first_decisions
from margincast.backtest.evaluation import evaluate
from margincast.backtest.replay import Replay
from margincast.jobs.tables import model_table
from margincast.models.protocol import Panel, TailForecast

SIDES = ("long", "short")
LEVELS = (0.99, 0.995, 0.999)
HOUR = timedelta(hours=1)


def replayed(days, models):
    """Forecasts of the true quantile times a factor, by model."""
    generator = np.random.default_rng(5)
    times = pd.date_range("2024-01-01", periods=24 * days, freq="h", tz="UTC").as_unit("us")
    volatility = 0.01 * generator.lognormal(0.0, 0.3, len(times))
    panel = Panel(
        pd.DataFrame({"symbol": "BTCUSDT", "ts": times}),
        {},
        {side: volatility * generator.exponential(size=len(times)) for side in SIDES},
        volatility,
        (times + HOUR).tz_localize(None).to_numpy("datetime64[us]"),
    )
    shape = np.repeat(-np.log1p(-np.array([[LEVELS]])), len(SIDES), axis=1)
    forecasts = {
        name: TailForecast(SIDES, LEVELS, factor * volatility[:, None, None] * shape)
        for name, factor in models.items()
    }
    made = Replay(panel, (), np.zeros(len(panel), dtype=np.intp), forecasts)
    first = first_decisions(panel)
    return evaluate(made, "ewma_fhs", horizon=HOUR, spacing=HOUR, first_decisions=first)


def printed(evaluation, levels=LEVELS, width=120):
    text = io.StringIO()
    Console(file=text, width=width, highlight=False).print(model_table(evaluation, levels))
    return text.getvalue()


@pytest.fixture(scope="module")
def evaluation():
    models = {"margincast": 1.0, "ewma_fhs": 1.1}
    models |= {f"har_quantile_regression_{i}": 0.5 + 0.1 * i for i in range(18)}
    return replayed(60, models)


def test_twenty_models_take_a_row_of_120_columns_each(evaluation):
    text = printed(evaluation)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    assert "…" not in text
    names = [line.split()[0] for line in lines if "x" in line and "%" in line and "±" in line]
    ranked = sorted(evaluation.models, key=lambda summary: summary.pinball_ratio)
    assert names[:20] == [summary.model for summary in ranked]
    row = next(line for line in lines if line.split()[0:1] == ["margincast"]).split()
    summary = next(model for model in evaluation.models if model.model == "margincast")
    assert row[1:3] == [f"{summary.pinball_ratio:.3f}", f"±{summary.pinball_ratio_error:.3f}"]
    cells = [evaluation.cell("margincast", "both", level) for level in LEVELS]
    shown = [(row[3 + 2 * i].rstrip("*"), row[4 + 2 * i]) for i in range(3)]
    assert shown == [(f"{c.pinball_ratio:.3f}", f"{c.exceedance_ratio:.2f}x") for c in cells]
    assert [row[3 + 2 * i].endswith("*") for i in range(3)] == [c.in_confidence_set for c in cells]


def test_a_narrow_screen_folds_and_cuts_no_figure(evaluation):
    assert "…" not in printed(evaluation, width=80)


def test_levels_beyond_the_third_are_said_to_stand_in_the_report():
    found = replayed(1, {"margincast": 1.0, "ewma_fhs": 1.0})
    text = " ".join(printed(found, (*LEVELS, 0.9999)).split())
    assert "All 4 levels stand in the report" in text
    assert "0.9999" not in text
    assert "nan" not in text
    # one day cannot tell an error, nor a one-day rise
    assert "±" not in text.split("pinball: mean")[0]
