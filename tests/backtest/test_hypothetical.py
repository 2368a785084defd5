"""Hypothetical stress from a backtest: what it takes from it, and that worse is worse."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from margincast.backtest.hypothetical import hypothetical_stress
from margincast.backtest.replay import Replay
from margincast.backtest.scored import Decisions, choose, score
from margincast.backtest.stress.windows import StressWindow
from margincast.models.protocol import Panel, TailForecast

HOURS = 24 * 60
SIDES = ("long", "short")
CRASH = StressWindow("crash", datetime(2024, 2, 9, tzinfo=UTC), datetime(2024, 2, 11, tzinfo=UTC))
ABSENT = StressWindow(
    "absent", datetime(2020, 3, 12, tzinfo=UTC), datetime(2020, 3, 14, tzinfo=UTC)
)


@pytest.fixture(scope="module")
def found():
    """Two months of hours; CALM, WILD and GONE (ended early); a crash on 10 February."""
    rng = np.random.default_rng(1)
    ts = pd.date_range("2024-01-01", periods=HOURS, freq="h", tz="UTC", unit="us")
    shock = rng.normal(0.0, 1.0, HOURS)
    shock[24 * 40 + 3] = -12.0
    frames = []
    for name, width, hours in (("CALM", 0.005, HOURS), ("GONE", 0.02, 900), ("WILD", 0.02, HOURS)):
        moves = width * (0.8 * shock + 0.6 * rng.normal(0.0, 1.0, HOURS))
        close = 100.0 * np.exp(np.cumsum(moves))
        ahead = np.append(close[1:] / close[:-1] - 1.0, np.nan)
        frames.append(
            pd.DataFrame({"symbol": name, "ts": ts, "close": close, "ahead": ahead}).head(hours)
        )
    frame = pd.concat(frames).sort_values(["ts", "symbol"], ignore_index=True)
    ahead = frame["ahead"].to_numpy()
    outcomes = {"long": np.maximum(-ahead, 0.0), "short": np.maximum(ahead, 0.0)}
    panel = Panel(
        frame[["symbol", "ts", "close"]],
        {},
        outcomes,
        np.abs(ahead),
        frame["ts"].dt.tz_localize(None).to_numpy() + np.timedelta64(1, "h"),
    )
    base = np.where(frame["symbol"] == "CALM", 0.02, 0.08)[:, None, None]
    low = TailForecast(SIDES, (0.99,), np.broadcast_to(base, (len(frame), 2, 1)).copy())
    high = TailForecast(SIDES, (0.99,), 2.0 * low.quantiles)
    replay = Replay(panel, (), np.zeros(len(frame), dtype=np.intp), {"low": low, "high": high})
    scored = choose(replay).scored
    decisions = Decisions(replay, scored, timedelta(hours=1))
    of_model = {n: score(decisions, n, f.rows(scored)) for n, f in replay.forecasts.items()}
    close = frame["close"].to_numpy()[scored]
    return hypothetical_stress(decisions, of_model, close, (ABSENT, CRASH))


def by_model(table, name, **where):
    own = table[table["model"] == name]
    for column, value in where.items():
        own = own[own[column] == value]
    return own


def test_a_higher_margin_never_loses_more(found):
    for table, figures in (
        ("shocks", ("loss", "worst_loss")),
        ("scaled_history", ("loss",)),
    ):
        low, high = (by_model(found[table], name) for name in ("low", "high"))
        for figure in figures:
            assert (high[figure].to_numpy() <= low[figure].to_numpy() + 1e-12).all()
    low, high = (by_model(found["reverse_stress"], name) for name in ("low", "high"))
    column = "move_exhausting_margin"
    assert (high[column].to_numpy() >= low[column].to_numpy()).all()


def test_worse_conditions_lose_more(found):
    table = by_model(found["shocks"], "low")
    assert (table["worst_loss"] >= table["loss"]).all()
    falls = table[table["price_move"] < 0].sort_values("price_move")
    assert falls["worst_loss"].is_monotonic_decreasing
    history = by_model(found["scaled_history"], "low", window="crash")
    assert history.sort_values("factor")["loss"].is_monotonic_increasing


def test_contracts_that_ended_have_no_margin_today(found):
    first = set(found["reverse_stress"]["first_to_fail"])
    assert not any(name.startswith("GONE") for name in first)


def test_the_cascade_goes_down_the_calmest_contracts_worst_path(found):
    run = found["cascade"]
    assert set(run["contract"]) == {"CALM"}
    assert set(run["window"]) == {"crash"}
    assert set(run["schedule"]) == {"low", "high", "a constant margin"}
    # brought to one mean, constant forecasts are the constant schedule
    figures = run.set_index("schedule").drop(columns=["contract", "window"])
    pd.testing.assert_series_equal(
        figures.loc["low"], figures.loc["a constant margin"], check_names=False, rtol=1e-9
    )


def test_a_window_the_data_does_not_reach_is_not_made_up(found):
    assert "absent" not in set(found["scaled_history"]["window"])
