"""Drift: training compared with itself is still, and what moved is named."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import BundleError
from margincast.models.protocol import Panel
from margincast.serving.monitoring.distribution import (
    FEWEST_WINDOWS,
    Distribution,
    bin_counts,
    distribution_of,
    stability_index,
)
from margincast.serving.monitoring.drift import drift_checks, feature_drift
from margincast.specs.monitor import Drift

THRESHOLDS = Drift(
    stability_index_max=0.25, drifted_max=0.4, missing_rise_max=0.1, out_of_range_max=0.01
)
FAMILIES = {"volatility": "bars", "imbalance": "book", "constant": "calendar"}
END = datetime(2026, 1, 1, tzinfo=UTC)


def frame_case(days=240, seed=1, end=END):
    generator = np.random.default_rng(seed)
    ts = pd.date_range(end=end, periods=days * 6, freq="4h", tz="UTC").as_unit("us")
    parts = [
        pd.DataFrame(
            {
                "symbol": symbol,
                "ts": ts,
                "volatility": np.exp(0.3 * generator.standard_normal(len(ts))),
                "imbalance": generator.uniform(-1, 1, len(ts)),
                "constant": 1.0,
            }
        )
        for symbol in ("A", "B")
    ]
    return pd.concat(parts).sort_values(["ts", "symbol"], ignore_index=True)


def distribution_case(frame=None):
    units = dict.fromkeys(FAMILIES, "number")
    panel = Panel.of_decisions(frame_case() if frame is None else frame, units, ("long", "short"))
    return distribution_of(panel, FAMILIES)


def drifted(frame, distribution=None, at=END):
    table = feature_drift(distribution or distribution_case(), frame, at, THRESHOLDS)
    checks = {check.alarm: check for check in drift_checks(table, "model/1", THRESHOLDS)}
    return table.set_index("feature"), checks


def test_the_same_kind_of_market_is_still():
    table, checks = drifted(frame_case(seed=2))
    assert not table["drifted"].any()
    assert table["stability_index"].max() < 0.1
    assert checks["features drifted"].value == 0.0
    assert checks["features missing"].value == 0.0
    assert checks["features out of range"].reading(1.0) == "good"


def test_what_moved_is_named():
    frame = frame_case(seed=2)
    frame["volatility"] *= 3.0
    table, checks = drifted(frame)
    assert table["drifted"].tolist() == [True, False, False]
    assert table.loc["volatility", "out_of_range"] > 0.3
    assert "volatility" in checks["features drifted"].reason
    assert checks["features drifted"].value == pytest.approx(1 / 3)
    assert checks["features out of range"].reading(1.0) == "high"
    assert "volatility" in checks["features out of range"].reason


def test_a_family_that_is_gone_is_named_at_once():
    frame = frame_case(seed=2)
    frame.loc[frame["ts"] == frame["ts"].max(), "imbalance"] = np.nan
    table, checks = drifted(frame)
    assert table.loc["imbalance", "missing_now"] == 1.0
    assert checks["features missing"].reading(1.0) == "high"
    assert "family book" in checks["features missing"].reason
    # and one that is not built at all
    _, checks = drifted(frame_case(seed=2).drop(columns="imbalance"))
    assert checks["features missing"].value == 1.0


def test_only_the_window_counts():
    frame = frame_case(seed=2)
    frame.loc[frame["ts"] <= END - pd.Timedelta(days=30), "volatility"] = 1e9
    later = frame_case(seed=3, end=datetime(2026, 6, 1, tzinfo=UTC)).assign(volatility=1e9)
    table, _ = drifted(pd.concat([frame, later[later["ts"] > END]]))
    assert not table["drifted"].any()


def test_without_decisions_nothing_can_be_told():
    _, checks = drifted(frame_case(), at=datetime(2027, 1, 1, tzinfo=UTC))
    assert [check.value for check in checks.values()] == [None, None, None]


def test_what_was_usual_in_training_is_no_drift():
    # a feature that wanders from month to month: its windows differ from the whole as a rule
    frame = frame_case()
    month = (frame["ts"] - frame["ts"].min()).dt.days // 30
    frame["volatility"] *= np.where(month % 2 == 0, 1.0, 2.5)
    distribution = distribution_case(frame)
    usual = distribution.features["volatility"].usual
    assert usual > THRESHOLDS.stability_index_max
    assert distribution.features["imbalance"].usual < 0.1
    table, _ = drifted(frame[frame["ts"] > END - pd.Timedelta(days=30)], distribution)
    assert table.loc["volatility", "stability_index"] > THRESHOLDS.stability_index_max
    assert not table.loc["volatility", "drifted"]


def test_a_short_training_cannot_say_what_is_usual():
    short = distribution_case(frame_case(days=30 * FEWEST_WINDOWS - 1))
    assert short.features["volatility"].usual is None
    assert distribution_case(frame_case(days=30 * FEWEST_WINDOWS + 1)).features["volatility"].usual


def test_a_distribution_survives_its_json():
    distribution = distribution_case()
    assert Distribution.from_json(distribution.to_json()) == distribution
    with pytest.raises(BundleError, match="damaged"):
        Distribution.from_json({"features": {"volatility": {}}})


@settings(max_examples=40)
@given(
    st.lists(st.one_of(st.none(), st.floats(-5, 5)), max_size=30),
    st.lists(st.floats(-5, 5), max_size=8, unique=True).map(sorted),
)
def test_bins_hold_every_value_once(values, edges):
    array = np.array([np.nan if value is None else value for value in values], dtype=float)
    counts = bin_counts(array, edges)
    expected = [0] * (len(edges) + 2)
    for value in values:
        place = len(edges) + 1 if value is None else sum(edge <= value for edge in edges)
        expected[place] += 1
    assert counts.tolist() == expected


def test_the_index_is_its_definition():
    # half of ten values in each of two bins, 8 and 2 found: (p - q) ln(p / q), half a value added
    p, q = np.array([8.5, 2.5]) / 11, np.array([5.5, 5.5]) / 11
    expected = float(((p - q) * np.log(p / q)).sum())
    assert stability_index(np.array([8.0, 2.0]), (0.5, 0.5)) == pytest.approx(expected)
    assert stability_index(np.array([5.0, 5.0]), (0.5, 0.5)) == 0.0
    assert np.isnan(stability_index(np.zeros(2), (0.5, 0.5)))
