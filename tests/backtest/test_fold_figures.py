"""Figures refit by refit are those of the refit's own decisions, weighted together the whole's."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from margincast.backtest.fold_figures import fold_figures, worst_and_latest
from margincast.backtest.replay import Replay
from margincast.models.protocol import Panel, TailForecast
from margincast.training.splits import Fold

SIDES, LEVELS = ("long", "short"), (0.9, 0.99)
START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def replay():
    """Three refits of 400 hours; the model is right in all but the second, where it is halved."""
    count, each = 1_200, 400
    ts = pd.date_range(START, periods=count, freq="h", tz="UTC", unit="us")
    rng = np.random.default_rng(5)
    outcomes = {side: rng.exponential(0.01, count) for side in SIDES}
    outcomes["long"][7] = np.nan
    frame = pd.DataFrame({"symbol": "A", "ts": ts})
    ends = (ts + timedelta(hours=1)).tz_localize(None).to_numpy()
    panel = Panel(frame, {}, outcomes, np.full(count, 0.01), ends)
    fold_of = np.arange(count) // each
    true = np.tile(-0.01 * np.log1p(-np.array(LEVELS)), (count, 2, 1))
    halved = true * np.where(fold_of == 1, 0.5, 1.0)[:, None, None]
    folds = tuple(
        Fold(
            START + timedelta(hours=each * number),
            START + timedelta(hours=each * (number + 1)),
            np.arange(count) < each * number,
            fold_of == number,
        )
        for number in range(3)
    )
    forecasts = {
        "ours": TailForecast(SIDES, LEVELS, halved, None),
        "truth": TailForecast(SIDES, LEVELS, true, None),
    }
    return Replay(panel, folds, fold_of, forecasts)


def test_a_refit_is_judged_by_its_own_decisions(replay):
    table = fold_figures({60: replay}, "ours", "truth")
    assert table["decisions"].tolist() == [399, 400, 400]
    assert table["training_decisions"].tolist() == [0, 400, 800]
    assert table["pinball_ratio"].iloc[[0, 2]].tolist() == [1.0, 1.0]
    assert table["pinball_ratio"].iloc[1] > 1.05
    assert table["mean_forecast_0.9"].tolist() == pytest.approx(
        [-0.01 * np.log(0.1), -0.005 * np.log(0.1), -0.01 * np.log(0.1)]
    )
    # half of an exponential's quantile is exceeded with the root of its probability
    assert table["exceedance_ratio_0.9"].iloc[1] == pytest.approx(np.sqrt(0.1) / 0.1, rel=0.15)


def test_refits_together_are_the_whole(replay):
    table = fold_figures({60: replay}, "ours", "truth")
    scored = np.arange(1_200) != 7
    outcome = np.stack([replay.panel.outcomes[side][scored] for side in SIDES])
    forecast = replay.forecasts["ours"].quantiles[scored, :, 0].T
    whole = (outcome > forecast).mean() / 0.1
    assert np.average(table["exceedance_ratio_0.9"], weights=table["decisions"]) == (
        pytest.approx(whole)
    )


def test_the_worst_and_the_latest_are_looked_at_first():
    starts = pd.date_range("2024-01-01", periods=6, freq="D", tz="UTC")
    ratios = [0.9, 1.3, 0.8, 1.2, 0.7, 0.6]
    folds = pd.DataFrame({"start": starts, "pinball_ratio": ratios})
    assert worst_and_latest(folds, 4).tolist() == [starts[i] for i in (1, 3, 4, 5)]
    assert worst_and_latest(folds, 9).tolist() == list(starts)
    assert worst_and_latest(folds, 1).tolist() == [starts[5]]
    assert worst_and_latest(folds, 0).tolist() == []
