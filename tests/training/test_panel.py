"""The grid of decisions is the clock's: it does not move with where the data happens to start."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.data.bars import BarTable, regular_bars
from margincast.features.pipeline import FeatureTable, build_features
from margincast.features.sources import Sources
from margincast.models.protocol import Panel
from margincast.specs.features import FeatureSet
from margincast.specs.loading import validate_spec
from margincast.training.panel import assemble_panel
from margincast.training.targets import outcome_table

HOUR = timedelta(hours=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
FEATURES = validate_spec(
    {
        "name": "test",
        "description": "test",
        "grid": {"interval": "1h", "warm_up": "2h", "minimum_present": 1.0, "leader": "A"},
        "bars": [{"function": "parkinson_volatility", "windows": ["2h"]}],
    },
    FeatureSet,
    "test",
)


def contract(seed: int, first: int, count: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, count)))
    return pl.DataFrame(
        {
            "ts": [START + (first + i) * HOUR for i in range(count)],
            "open": close,
            "high": close * 1.01,
            "low": close * 0.99,
            "close": close,
            "volume": np.ones(count),
        },
        schema_overrides={"ts": pl.Datetime("us", "UTC")},
    )


def market(first: int) -> BarTable:
    frames = {
        symbol: regular_bars(contract(seed, offset, 40), symbol, HOUR)[0]
        for seed, (symbol, offset) in enumerate([("A", first), ("B", first + 5)])
    }
    return BarTable(frames, HOUR, ())


def panel_of(first: int, stride: int) -> tuple[FeatureTable, pl.DataFrame, Panel, int]:
    bars = market(first)
    table = build_features(FEATURES, Sources(bars))
    outcomes, _ = outcome_table(bars, 3 * HOUR, HOUR, "path")
    panel, findings = assemble_panel(
        table, outcomes, ("long", "short"), stride=stride, interval=HOUR
    )
    return table, outcomes, panel, sum(finding.count for finding in findings)


@settings(max_examples=20)
@given(st.integers(0, 50), st.sampled_from([1, 2, 3, 4, 8]))
def test_decisions_are_whole_strides_since_1970_wherever_the_data_starts(first, stride):
    table, _, panel, _ = panel_of(first, stride)
    hours = panel.decided.astype("datetime64[h]").astype(int)
    assert (hours % stride == 0).all()
    every = table.frame["ts"].dt.tz_localize(None).to_numpy("datetime64[h]").astype(int)
    assert len(panel) == (every % stride == 0).sum()


@settings(max_examples=20)
@given(st.integers(0, 50), st.sampled_from([1, 3]))
def test_every_decision_has_its_own_outcome_and_label_end(first, stride):
    table, outcomes, panel, _ = panel_of(first, stride)
    by_key = {(row["symbol"], row["ts"]): row for row in outcomes.iter_rows(named=True)}
    for i, (symbol, ts) in enumerate(zip(panel.frame["symbol"], panel.frame["ts"], strict=True)):
        row = by_key[symbol, ts.to_pydatetime()]
        for side in ("long", "short"):
            np.testing.assert_equal(panel.outcomes[side][i], row[f"outcome_{side}"])
        np.testing.assert_equal(panel.log_range[i], row["log_range"])
    assert (panel.label_end - panel.decided == np.timedelta64(3, "h")).all()
    assert panel.units == table.units


def test_decisions_are_sorted_and_those_without_an_outcome_are_counted():
    _, _, panel, unlabelled = panel_of(0, 1)
    keys = list(zip(panel.frame["ts"], panel.frame["symbol"], strict=True))
    assert keys == sorted(keys)
    # the last three closes of each contract have no whole window after them
    assert unlabelled == 6 == (~panel.labelled).sum()


@pytest.mark.parametrize("as_numbers", [False, True])
def test_rows_of_a_panel_stay_together(as_numbers):
    _, _, panel, _ = panel_of(0, 1)
    keep = panel.frame["symbol"].to_numpy() == "B"
    part = panel.rows(np.flatnonzero(keep) if as_numbers else keep)
    assert part.frame.index.tolist() == list(range(keep.sum()))
    assert set(part.frame["symbol"]) == {"B"}
    np.testing.assert_array_equal(part.decided, panel.decided[keep])
    np.testing.assert_array_equal(part.log_range, panel.log_range[keep])
    np.testing.assert_array_equal(part.outcomes["short"], panel.outcomes["short"][keep])
    np.testing.assert_array_equal(part.label_end, panel.label_end[keep])
