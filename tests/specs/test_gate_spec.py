"""A gate's limits make sense before anything is measured against them."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from margincast.backtest.battery import Series, run_battery
from margincast.core.errors import SpecError
from margincast.specs.gate import BatteryTest
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob

WORKSPACE = Path(__file__).resolve().parents[2]
JOB = WORKSPACE / "training" / "perp-8h.toml"
BAND = (
    "{level=0.99, exceedance_ratio_min=0.7, exceedance_ratio_max=1.3, expected_exceedances_min=9}"
)


def test_every_test_a_gate_may_ask_for_is_one_the_battery_runs():
    outcome = np.random.default_rng(1).exponential(0.01, 400)
    forecasts = np.column_stack([np.full(400, 0.03), np.full(400, 0.046)])
    series = Series("A", "long", (0.95, 0.99), outcome, forecasts, forecasts + 0.01)
    assert set(get_args(BatteryTest)) <= set(run_battery([series])["test"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("gate.coverage=[]", "at least 1 item"),
        (f"gate.coverage=[{BAND}, {BAND}]", "must be strictly increasing"),
        (f"gate.coverage=[{BAND.replace('min=0.7', 'min=1.4')}]", "lies above"),
        ("gate.battery.tests=[kupic]", "Input should be"),
        ("gate.battery.not_failed_min=1.5", "less than or equal to 1"),
        ("gate.champion.significance=0.6", "less than 0.5"),
        ("gate.champion.without_comparison=maybe", "'refuse' or 'accept'"),
        ("gate.longest_override=never", "is not a duration"),
        ("gate.stress.shortfall_ratio=1", "unknown key (did you mean 'shortfall_ratio_max'?)"),
    ],
)
def test_a_limit_that_means_nothing_is_refused(override, message):
    with pytest.raises(SpecError) as refused:
        load_spec(JOB, TrainingJob, [override])
    assert len(refused.value.problems) == 1
    assert message in refused.value.problems[0]


@pytest.mark.parametrize("name", ["perp-1h", "perp-8h", "perp-24h", "book-10m", "demo"])
def test_a_band_is_no_narrower_than_what_the_shortest_test_period_can_tell(name):
    gate = load_spec(WORKSPACE / "training" / f"{name}.toml", TrainingJob).gate
    for band in gate.coverage:
        # of n independent exceedances expected, the ratio's standard error is 1 / sqrt(n)
        half_width = min(1.0 - band.exceedance_ratio_min, band.exceedance_ratio_max - 1.0)
        assert half_width >= 2.0 / np.sqrt(band.expected_exceedances_min) - 1e-9


def test_no_override_at_all_can_be_asked_for():
    assert not load_spec(JOB, TrainingJob, ["gate.longest_override=0s"]).gate.longest_override
