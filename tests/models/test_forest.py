"""Quantile random forest: against its definition, with features missing, kept as plain text."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble._forest import _generate_sample_indices

from margincast.core.errors import InputError
from margincast.models.forest import QuantileRandomForest
from margincast.models.protocol import Panel
from margincast.scoring.pinball import pinball_loss

SIDES = ("long", "short")
LEVELS = (0.95, 0.99)


def market(seed: int = 0, hours: int = 600) -> Panel:
    """Two contracts; the outcome is exponential with a mean that one feature knows."""
    rng = np.random.default_rng(seed)
    rows = 2 * hours
    mean = 0.01 * np.exp(rng.normal(0, 0.5, rows))
    noise = rng.normal(size=rows)
    noise[::10] = np.nan
    frame = pd.DataFrame(
        {
            "symbol": np.tile(["BTC", "ETH"], hours),
            "ts": np.repeat(pd.date_range("2020-01-01", periods=hours, freq="h", tz="UTC"), 2),
            "volatility": mean,
            "noise": noise,
            "not_yet_listed": np.nan,
        }
    )
    return Panel(
        frame=frame,
        units={"volatility": "fraction", "not_yet_listed": "number", "noise": "number"},
        outcomes={side: mean * rng.exponential(size=rows) for side in SIDES},
        log_range=mean,
        label_end=frame["ts"].dt.tz_localize(None).to_numpy("datetime64[us]"),
    )


def model(threads: int = 1, levels: tuple[float, ...] = LEVELS) -> QuantileRandomForest:
    return QuantileRandomForest(
        name="quantile_forest",
        sides=SIDES,
        levels=levels,
        stride=1,
        minimum_rows=1,
        seed=1,
        threads=threads,
    )


@pytest.fixture(scope="module")
def panel() -> Panel:
    return market()


@pytest.fixture(scope="module")
def fitted(panel) -> QuantileRandomForest:
    return model().fit(panel)


def test_quantile_and_shortfall_are_those_of_the_outcomes_that_share_leaves_with_a_decision(
    fitted, panel
):
    # Meinshausen's definition, slowly: every tree adds the outcomes it drew into the same leaf
    matrix = fitted._matrix(panel.frame)
    forecast = fitted.predict(panel)
    for side, forest in fitted._forests.items():
        outcome = panel.outcomes[side]
        leaves = forest.apply(matrix)
        drawn = [
            _generate_sample_indices(
                tree.random_state, len(panel), forest._n_samples_bootstrap, None
            )
            for tree in forest.estimators_
        ]
        for row in (0, 17, 1034):
            neighbours = np.concatenate(
                [
                    outcome[sample[leaves[sample, number] == leaves[row, number]]]
                    for number, sample in enumerate(drawn)
                ]
            )
            for level in LEVELS:
                quantile = np.quantile(neighbours, level)
                rank = math.ceil((len(neighbours) - 1) * level)
                beyond = np.sort(neighbours)[rank:].mean()
                i, j = SIDES.index(side), LEVELS.index(level)
                assert forecast.quantiles[row, i, j] == pytest.approx(quantile, rel=1e-9)
                assert forecast.expected_shortfall[row, i, j] == pytest.approx(beyond, rel=1e-9)


def test_quantiles_are_the_library_s_own(fitted, panel):
    later = market(1, hours=300)
    for levels in ((0.5, 0.9), (0.95, 0.99), (0.999,)):
        fitted_there = replace(fitted, levels=levels)
        forecast = fitted_there.predict(later)
        for i, side in enumerate(SIDES):
            slow = fitted._forests[side].predict(fitted._matrix(later.frame), list(levels))
            np.testing.assert_allclose(
                forecast.quantiles[:, i], slow.reshape(len(later), -1), rtol=1e-9
            )


def test_forecasts_are_sharper_than_a_constant(fitted, panel):
    later = market(1)
    forecast = fitted.predict(later)
    for side in SIDES:
        for level in LEVELS:
            ours = pinball_loss(later.outcomes[side], forecast.at(side, level), level).mean()
            pooled = np.full(len(later), np.quantile(panel.outcomes[side], level))
            assert ours < 0.95 * pinball_loss(later.outcomes[side], pooled, level).mean()


def test_no_outcome_beyond_the_largest_seen_is_ever_forecast(fitted, panel):
    wild = replace(panel, frame=panel.frame.assign(volatility=1e6))
    forecast = fitted.predict(wild)
    for i, side in enumerate(SIDES):
        assert forecast.expected_shortfall[:, i].max() <= panel.outcomes[side].max()


def test_a_feature_not_known_is_its_training_median_and_counted(fitted, panel):
    assert fitted.parameters()["rows_filled"] == {"noise": len(panel) // 10}
    median = np.float32(panel.frame["noise"].astype("float32").median())
    assert dict(fitted.parameters()["medians"])["noise"] == pytest.approx(median, abs=1e-7)
    by_hand = replace(panel, frame=panel.frame.fillna({"noise": float(median)}))
    np.testing.assert_array_equal(
        fitted.predict(by_hand).quantiles, fitted.predict(panel).quantiles
    )


def test_a_feature_no_training_row_knows_is_left_out_and_reported(fitted, panel):
    assert fitted.parameters()["never_known"] == ["not_yet_listed"]
    since = replace(panel, frame=panel.frame.assign(not_yet_listed=3.0))
    np.testing.assert_array_equal(fitted.predict(since).quantiles, fitted.predict(panel).quantiles)
    with pytest.raises(InputError, match=r"quantile_forest needs the feature.*not_yet_listed"):
        fitted.predict(replace(panel, frame=panel.frame.drop(columns="not_yet_listed")))


def test_a_file_that_asks_for_another_type_is_refused(fitted, tmp_path):
    fitted.save(tmp_path)
    path = tmp_path / "short.json"
    other = json.loads(path.read_text(encoding="utf-8"))
    other["schema"]["content"]["content"]["criterion"] = {
        "__class__": "Popen",
        "__module__": "subprocess",
        "__loader__": "ObjectNode",
        "content": None,
    }
    path.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(InputError, match=r"not trusted.*subprocess\.Popen"):
        QuantileRandomForest.load(tmp_path)
