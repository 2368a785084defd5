"""Gradient boosting of scikit-learn: leaves that hold a tail, NaN as it is, kept as plain text."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from margincast.core.errors import InputError
from margincast.models.protocol import Panel
from margincast.models.sklearn_boosting import ROUNDS, SklearnBoosting
from margincast.scoring.pinball import pinball_loss

SIDES = ("long", "short")
LEVELS = (0.95, 0.99)


def market(seed: int = 0, hours: int = 3000) -> Panel:
    """Two contracts; the outcome is exponential with a mean that one feature knows."""
    rng = np.random.default_rng(seed)
    rows = 2 * hours
    mean = 0.01 * np.exp(rng.normal(0, 0.5, rows))
    volatility = mean.copy()
    volatility[rng.random(rows) < 0.1] = np.nan
    frame = pd.DataFrame(
        {
            "symbol": np.tile(["BTC", "ETH"], hours),
            "ts": np.repeat(pd.date_range("2020-01-01", periods=hours, freq="h", tz="UTC"), 2),
            "volatility": volatility,
            "noise": rng.normal(size=rows),
            "not_yet_listed": np.nan,
            "constant": 1.0,
        }
    )
    return Panel(
        frame=frame,
        units={
            "volatility": "fraction",
            "not_yet_listed": "number",
            "noise": "number",
            "constant": "number",
        },
        outcomes={side: mean * rng.exponential(size=rows) for side in SIDES},
        log_range=mean,
        label_end=frame["ts"].dt.tz_localize(None).to_numpy("datetime64[us]"),
    )


def model(threads: int = 1, levels: tuple[float, ...] = LEVELS) -> SklearnBoosting:
    return SklearnBoosting(
        name="sklearn_gbq",
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
def fitted(panel) -> SklearnBoosting:
    return model().fit(panel)


def test_every_leaf_expects_ten_exceedances_and_every_round_is_boosted(fitted):
    for (_, level), booster in fitted._boosters.items():
        assert booster.n_iter_ == ROUNDS
        for (tree,) in booster._predictors:
            leaves = tree.nodes[tree.nodes["is_leaf"] == 1]
            assert leaves["count"].min() >= 10 / (1 - level)


def test_forecasts_are_near_the_true_quantile_and_sharper_than_a_constant(fitted, panel):
    later = market(1)
    forecast = fitted.predict(later)
    known = later.frame["volatility"].notna().to_numpy()
    for side in SIDES:
        outcome = later.outcomes[side][known]
        for level in LEVELS:
            ours = pinball_loss(outcome, forecast.at(side, level)[known], level).mean()
            pooled = np.full(len(outcome), np.quantile(panel.outcomes[side], level))
            truth = -np.log(1 - level) * later.frame["volatility"].to_numpy()[known]
            assert ours < 0.95 * pinball_loss(outcome, pooled, level).mean()
            assert ours < 1.2 * pinball_loss(outcome, truth, level).mean()


def test_a_feature_no_training_row_knows_is_left_out_and_reported(fitted, panel):
    assert fitted.parameters()["never_known"] == ["not_yet_listed"]
    since = replace(panel, frame=panel.frame.assign(not_yet_listed=3.0))
    np.testing.assert_array_equal(fitted.predict(since).quantiles, fitted.predict(panel).quantiles)


def test_a_missing_column_is_named_even_if_it_was_never_known(fitted, panel):
    with pytest.raises(InputError, match=r"sklearn_gbq needs the feature.*not_yet_listed"):
        fitted.predict(replace(panel, frame=panel.frame.drop(columns="not_yet_listed")))


def test_an_unknown_volatility_still_has_a_forecast(fitted, panel):
    unknown = replace(panel, frame=panel.frame.assign(volatility=np.nan))
    quantiles = fitted.predict(unknown).quantiles
    assert np.isfinite(quantiles).all()
    assert (quantiles > 0).all()


def test_a_file_that_asks_for_another_type_is_refused_and_nothing_of_it_is_built(fitted, tmp_path):
    fitted.save(tmp_path)
    path = tmp_path / "long-0.99.json"
    whole = path.read_text(encoding="utf-8")
    other = json.loads(whole)
    other["schema"]["__class__"] = "RandomForestRegressor"
    other["schema"]["__module__"] = "sklearn.ensemble._forest"
    path.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(InputError, match=r"holds a .*\.RandomForestRegressor"):
        SklearnBoosting.load(tmp_path)
    spawned = tmp_path / "spawned"
    hostile = json.loads(whole)
    hostile["schema"]["content"]["content"]["loss"] = {
        "__class__": "partial",
        "__module__": "functools",
        "__loader__": "PartialNode",
        "content": {
            "func": {
                "__class__": "mkdir",
                "__module__": "os",
                "__loader__": "FunctionNode",
                "content": {"module_path": "os", "function": "mkdir"},
            },
            "args": {
                "__class__": "str",
                "__module__": "builtins",
                "__loader__": "JsonNode",
                "content": json.dumps(str(spawned)),
                "is_json": True,
            },
            "kwds": {
                "__class__": "dict",
                "__module__": "builtins",
                "__loader__": "JsonNode",
                "content": "{}",
                "is_json": True,
            },
            "namespace": {
                "__class__": "dict",
                "__module__": "builtins",
                "__loader__": "JsonNode",
                "content": "{}",
                "is_json": True,
            },
        },
    }
    path.write_text(json.dumps(hostile), encoding="utf-8")
    with pytest.raises(InputError, match="not trusted"):
        SklearnBoosting.load(tmp_path)
    assert not spawned.exists()
