"""What the gate is shown is what was found: decisions counted, a worse champion seen as such."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.daily_losses import DailyLosses
from margincast.backtest.replay import Replay
from margincast.jobs.gate_evidence import (
    ChampionLosses,
    against_champion,
    champion_losses,
    missing_decisions,
)
from margincast.models.catalogue import OURS
from margincast.models.protocol import Panel, TailForecast
from margincast.serving.evidence import Evidence
from margincast.serving.gate import evaluate_gate
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob

WORKSPACE = Path(__file__).resolve().parents[2]
START = pd.Timestamp("2026-01-01", tz="UTC")
HOURS = 24 * 200


def panel_of(symbols: list[str], ts: list[pd.Timestamp], outcome: np.ndarray) -> Panel:
    frame = pd.DataFrame({"symbol": symbols, "ts": ts, "close": 1.0})
    ends = frame["ts"].dt.tz_localize(None).to_numpy("datetime64[us]") + np.timedelta64(1, "h")
    return Panel(
        frame=frame,
        units={},
        outcomes={"long": outcome, "short": outcome},
        log_range=outcome,
        label_end=ends,
    )


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=30), min_size=1, max_size=4))
def test_missing_decisions_are_counted_between_first_and_last_of_each_contract(present):
    rows = [
        (f"C{number}", START + timedelta(minutes=5 * step))
        for number, kept in enumerate(present)
        for step, there in enumerate(kept)
        if there
    ]
    if not rows:
        return
    possible = 0
    for kept in present:
        steps = [step for step, there in enumerate(kept) if there]
        possible += steps[-1] - steps[0] + 1 if steps else 0
    panel = panel_of([row[0] for row in rows], [row[1] for row in rows], np.zeros(len(rows)))
    share = missing_decisions(panel, timedelta(minutes=5))
    assert share == pytest.approx(1.0 - len(rows) / possible)


def replay_of(factor: float) -> Replay:
    """Two hundred days of one contract; forecasts are the true quantiles times a factor."""
    random = np.random.default_rng(3)
    scale = 0.01 * np.exp(np.repeat(random.normal(0.0, 0.4, HOURS // 24), 24))
    outcome = scale * random.exponential(1.0, HOURS)
    ts = [START + timedelta(hours=hour) for hour in range(HOURS)]
    quantiles = factor * scale[:, None, None] * -np.log([0.1, 0.05])[None, None]
    forecast = TailForecast(("long", "short"), (0.9, 0.95), np.repeat(quantiles, 2, axis=1))
    panel = panel_of(["A"] * HOURS, ts, outcome)
    return Replay(panel, (), np.zeros(HOURS, dtype=np.intp), {OURS: forecast})


@pytest.mark.parametrize(
    ("candidate", "champion", "passed"),
    [(1.0, 1.0, True), (1.0, 1.6, True), (1.6, 1.0, False), (0.6, 1.0, False)],
)
def test_a_model_that_loses_more_than_the_champion_is_seen_and_refused(candidate, champion, passed):
    gate = load_spec(WORKSPACE / "training" / "demo.toml", TrainingJob).gate
    losses = DailyLosses({60: replay_of(champion)}).of(OURS)
    known = ChampionLosses("demo/3", losses, "")
    found = against_champion(known, {60: replay_of(candidate)}, gate.champion.significance)[60]
    from_gate = [
        check
        for check in evaluate_gate(gate, Evidence(champion=found)).checks
        if check.section == "champion"
    ]
    assert found.days == 200
    assert all(check.passed for check in from_gate) == passed, from_gate
    assert (found.difference > 0.0) == (not passed)


def test_a_champion_of_other_days_cannot_be_compared():
    losses = DailyLosses({60: replay_of(1.0)}).of(OURS)
    losses["day"] += pd.Timedelta(days=1000)
    found = against_champion(ChampionLosses("demo/3", losses, ""), {60: replay_of(1.0)}, 0.05)[60]
    assert found.reason
    assert not evaluate_gate(
        load_spec(WORKSPACE / "training" / "demo.toml", TrainingJob).gate,
        Evidence(champion=found),
    ).passed


def test_a_workspace_without_store_has_no_champion_and_gets_no_store(tmp_path):
    job = load_spec(WORKSPACE / "training" / "demo.toml", TrainingJob)
    found = champion_losses(job, tmp_path)
    assert (found.champion, found.losses) == ("", None)
    assert "no champion of demo yet" in found.reason
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_down_leaves_the_champion_unknown_not_absent(tmp_path):
    override = "tracking.uri=http://127.0.0.1:9"
    job = load_spec(WORKSPACE / "training" / "demo.toml", TrainingJob, [override])
    found = champion_losses(job, tmp_path)
    assert found.champion == "demo"
    assert found.reason.startswith("its losses cannot be read")
