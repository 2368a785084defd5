"""Tuning never does worse than the spec on its own folds, and the same seed finds the same head."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from margincast.models.protocol import Panel
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from margincast.training.tuning import tune_head

JOB = Path(__file__).resolve().parents[2] / "training" / "perp-8h.toml"
LEVELS = (0.9, 0.95)


def job(*overrides: str) -> TrainingJob:
    return load_spec(
        JOB,
        TrainingJob,
        [
            'model.scale.columns=["fast"]',
            "model.scale.seasonal_harmonics=[]",
            "model.stride=1",
            "model.minimum_rows=1",
            "model.head.rounds=10",
            "model.head.min_data_factor=10.0",
            "tuning.trials=6",
            "tuning.space={}",
            "tuning.space.rounds={low=2, high=40, log=true, integer=true}",
            "tuning.space.learning_rate={low=0.01, high=0.5, log=true, integer=false}",
            *overrides,
        ],
    )


def simulated_panel(seed: int, count: int = 1200) -> Panel:
    rng = np.random.default_rng(seed)
    ts = pd.date_range("2024-01-01", periods=count, freq="h", tz="UTC", unit="us")
    scale = 0.01 * rng.lognormal(0, 0.6, count)
    activity = rng.normal(0, 1, count)
    width = scale * np.where(activity > 0, 2.0, 1.0)
    frame = pd.DataFrame({"symbol": "BTC", "ts": ts, "fast": scale, "activity": activity})
    return Panel(
        frame=frame,
        units={"fast": "fraction", "activity": "number"},
        outcomes={
            "long": width * np.abs(rng.standard_t(4, count)),
            "short": width * np.abs(rng.standard_t(4, count)),
        },
        log_range=width * np.exp(rng.normal(0, 0.3, count)),
        label_end=ts.tz_localize(None).to_numpy("datetime64[us]") + np.timedelta64(8, "h"),
    )


@pytest.fixture(scope="module")
def panel() -> Panel:
    return simulated_panel(0)


def test_the_spec_is_tried_first_and_nothing_worse_is_chosen(panel):
    seen: list[optuna.trial.FrozenTrial] = []
    spec = job()
    tuned = tune_head(spec, [panel], LEVELS, 1, seen.append)
    first, *others = tuned.study.trials
    assert first.params == {"rounds": 10, "learning_rate": spec.model.head.learning_rate}
    assert first.value == pytest.approx(1.0)
    assert tuned.study.best_value <= 1.0
    assert [trial.number for trial in seen] == list(range(6))
    assert len(others) == 5
    assert all(2 <= trial.params["rounds"] <= 40 for trial in tuned.study.trials)


def test_only_keys_of_the_space_change_and_to_the_best_trial(panel):
    spec = job()
    tuned = tune_head(spec, [panel], LEVELS, 1)
    best = tuned.study.best_params
    expected = spec.model.head.model_copy(update=best)
    assert tuned.model == spec.model.model_copy(update={"head": expected})
    assert isinstance(tuned.model.head.rounds, int)
    assert isinstance(tuned.model.head.learning_rate, float)


def test_the_same_seed_finds_the_same_and_another_looks_elsewhere(panel):
    first = tune_head(job(), [panel], LEVELS, 1)
    again = tune_head(job(), [panel], LEVELS, 2)
    other = tune_head(job("tuning.seed=2"), [panel], LEVELS, 1)
    tried = [[trial.params for trial in t.study.trials] for t in (first, again, other)]
    assert tried[0] == tried[1]
    assert first.model == again.model
    assert [t.value for t in first.study.trials] == [t.value for t in again.study.trials]
    assert tried[0][1:] != tried[2][1:]


def test_a_spec_that_learns_nothing_is_improved_upon(panel):
    tuned = tune_head(
        job("model.head.learning_rate=0.01", "model.head.rounds=2"), [panel], LEVELS, 1
    )
    assert tuned.study.best_value < 0.99
    assert tuned.model.head.rounds > 2


def test_every_horizon_counts_and_none_outweighs_another(panel):
    spec = job("tuning.trials=3")
    wide = replace(
        panel,
        frame=panel.frame.assign(fast=panel.frame["fast"] * 8),
        outcomes={side: 8 * values for side, values in panel.outcomes.items()},
        log_range=8 * panel.log_range,
    )
    alone = tune_head(spec, [panel], LEVELS, 1)
    # of the same market, with losses eight times as large
    both = tune_head(spec, [panel, wide], LEVELS, 1)
    for one, two in zip(alone.study.trials, both.study.trials, strict=True):
        assert one.params == two.params
        assert two.value == pytest.approx(one.value, rel=0.01)
        assert len(two.intermediate_values) == 2 * len(one.intermediate_values)
    other = tune_head(spec, [panel, simulated_panel(1)], LEVELS, 1)
    assert other.study.trials[1].value != pytest.approx(alone.study.trials[1].value, rel=1e-6)


def test_no_trials_keep_the_spec(panel):
    spec = job("tuning.trials=0")
    tuned = tune_head(spec, [panel], LEVELS, 1)
    assert tuned.model == spec.model
    assert tuned.study.trials == []
