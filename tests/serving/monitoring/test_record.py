"""Records: what was published, and when it may be judged."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from tests.serving.monitoring.monitoring_cases import after, record_case

from margincast.core.errors import InputError
from margincast.models.protocol import Panel, TailForecast
from margincast.serving.monitoring.record import record_of_forecasts, record_of_margins

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HORIZON = timedelta(hours=8)


def outcomes_case(hours=40):
    ts = [START + number * HOUR for number in range(hours)]
    frame = pl.DataFrame({"symbol": ["A"] * hours + ["B"] * hours, "ts": ts * 2})
    number = np.arange(2 * hours) / 1000
    return frame.with_columns(
        pl.col("ts").cast(pl.Datetime("us", "UTC")),
        pl.Series("outcome_long", number),
        pl.Series("outcome_short", 2 * number),
    )


def published(hour, *, symbol="A", side="long", mmr=0.05, cost=0.002, late=timedelta(0), tier=1,
              made_at=None, status="ok"):  # fmt: skip
    at = START + hour * HOUR
    return {
        "symbol": symbol, "side": side, "tier": tier, "mmr_in_force": mmr,
        "liquidation_cost": cost, "status": status,
        "data_as_of": made_at or at, "published_at": at + late,
    }  # fmt: skip


def margins(*rows):
    table = pd.DataFrame(rows)
    for name in ("data_as_of", "published_at"):
        table[name] = pd.to_datetime(table[name], utc=True).astype("datetime64[us, UTC]")
    return record_of_margins("demo", table, outcomes_case(), horizon=HORIZON, level=0.99)


def test_a_margin_covers_the_excursion_and_the_cost_of_closing():
    record, counted = margins(
        published(0, side="short"), published(0), published(0, tier=2, mmr=0.9),
        published(0, symbol="B", mmr=0.07), published(24, mmr=0.06),
    )  # fmt: skip
    assert record.symbols == ("A", "B")
    assert record.decided.astype("datetime64[h]").astype(str).tolist() == [
        "2026-01-01T00", "2026-01-01T00", "2026-01-02T00",
    ]  # fmt: skip
    expected = [[0.048, 0.048], [0.068, np.nan], [0.058, np.nan]]
    np.testing.assert_allclose(record.promised[:, :, 0], expected)
    np.testing.assert_allclose(record.outcomes, [[0.0, 0.0], [0.04, 0.08], [0.024, 0.048]])
    assert set(counted.values()) == {0}


def test_what_was_published_with_hindsight_does_not_count():
    record, counted = margins(
        published(0, late=HORIZON), published(24, late=HORIZON - timedelta(seconds=1))
    )
    assert len(record) == 1
    assert counted["published after its horizon had passed"] == 1


def test_a_decision_counts_as_it_was_first_published():
    again = published(0, mmr=0.5, late=HOUR)
    record, counted = margins(published(0), again)
    assert record.promised[0, 0, 0] == pytest.approx(0.048)
    assert counted["published again"] == 1


def test_contracts_of_a_publication_are_decisions_of_one_moment():
    behind = published(24, symbol="B", made_at=START + 23 * HOUR)
    record, counted = margins(published(24), behind)
    assert record.symbols == ("A",)
    assert counted["of older data than others of the publication"] == 1


def test_a_fallback_without_data_is_counted_and_one_with_data_is_judged():
    without = published(0, symbol="B", made_at=pd.NaT, status="fallback", cost=np.nan)
    record, counted = margins(published(0, status="fallback", cost=np.nan), without)
    assert record.promised[0, 0, 0] == pytest.approx(0.05)
    assert counted["fallback: made of no decision"] == 1
    nothing, _ = margins(without)
    assert len(nothing) == 0


def test_a_table_of_something_else_is_refused():
    with pytest.raises(InputError, match="mmr_in_force"):
        record_of_margins(
            "demo", pd.DataFrame({"tier": [1]}), outcomes_case(), horizon=HORIZON, level=0.99
        )


def test_forecasts_are_put_in_order_of_time():
    ts = pd.to_datetime([START + HOUR, START, START], utc=True)
    frame = pd.DataFrame({"symbol": ["A", "B", "A"], "ts": ts})
    panel = Panel(
        frame, {}, {"long": np.array([1.0, 2.0, 3.0])}, np.zeros(3), np.zeros(3, "datetime64[us]")
    )
    forecast = TailForecast(("long",), (0.9,), np.array([10.0, 20.0, 30.0])[:, None, None])
    record = record_of_forecasts("m", panel, forecast, HORIZON)
    assert record.outcomes.ravel().tolist() == [3.0, 2.0, 1.0]
    assert record.promised.ravel().tolist() == [30.0, 20.0, 10.0]
    assert record.contract.tolist() == [0, 1, 0]


def test_as_of_hides_what_is_not_known():
    record = record_case(hours=24)
    known = record.as_of(after(10))
    assert len(known) == 11 * 3
    assert (
        np.isnan(known.outcomes).any(axis=1).reshape(11, 3)[:, 0].tolist()
        == [False] * 3 + [True] * 8
    )
    assert np.isnan(known.exceeded).sum() == 8 * 3 * 2 * 2
