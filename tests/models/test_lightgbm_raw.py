"""Raw LightGBM, default and tuned: its leaves know a tail only if they hold one."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from margincast.core.errors import InputError, InsufficientHistoryError
from margincast.models.lightgbm_raw import DEFAULTS, TUNED, LightGbmRaw
from margincast.models.protocol import Panel
from margincast.models.raw_features import rearranged
from margincast.scoring.pinball import pinball_loss

SIDES = ("long", "short")
LEVELS = (0.95, 0.99)


def market(seed: int = 0, hours: int = 3000) -> Panel:
    """Two contracts; the outcome is exponential with a mean that one feature knows."""
    rng = np.random.default_rng(seed)
    rows = 2 * hours
    mean = 0.01 * np.exp(rng.normal(0, 0.5, rows))
    frame = pd.DataFrame(
        {
            "symbol": np.tile(["BTC", "ETH"], hours),
            "ts": np.repeat(pd.date_range("2020-01-01", periods=hours, freq="h", tz="UTC"), 2),
            "volatility": mean,
            "noise": rng.normal(size=rows),
        }
    )
    return Panel(
        frame=frame,
        units={"volatility": "fraction", "noise": "number"},
        outcomes={side: mean * rng.exponential(size=rows) for side in SIDES},
        log_range=mean,
        label_end=frame["ts"].dt.tz_localize(None).to_numpy("datetime64[us]"),
    )


def model(settings=TUNED, levels=LEVELS, stride=1, threads=1) -> LightGbmRaw:
    return LightGbmRaw(
        name="lightgbm_raw_tuned",
        sides=SIDES,
        levels=levels,
        stride=stride,
        minimum_rows=1,
        seed=1,
        threads=threads,
        settings=settings,
    )


def test_a_tuned_leaf_expects_ten_exceedances():
    fitted = model().fit(market())
    for (_, level), booster in fitted._boosters.items():
        trees = booster.trees_to_dataframe()
        leaves = trees[trees["left_child"].isna()]
        assert leaves["count"].min() >= 10 / (1 - level)
        assert leaves.groupby("tree_index").size().max() > 1


def test_the_default_variant_is_the_library_s_own():
    fitted = model(DEFAULTS).fit(market())
    for booster in fitted._boosters.values():
        assert booster.num_trees() == 100
        text = booster.model_to_string()
        assert "[num_leaves: 31]" in text
        assert "[learning_rate: 0.1]" in text
        assert "[min_data_in_leaf: 20]" in text
        assert "[feature_fraction: 1]" in text


def test_the_tuned_variant_is_sharper_than_the_default_one_and_than_a_constant():
    panel, later = market(), market(1)
    tuned = model().fit(panel).predict(later)
    default = model(DEFAULTS).fit(panel).predict(later)
    for i, side in enumerate(SIDES):
        outcome = later.outcomes[side]
        for j, level in enumerate(LEVELS):
            constant = np.full(len(later), np.quantile(panel.outcomes[side], level))

            def loss(forecast, outcome=outcome, level=level):
                return pinball_loss(outcome, forecast, level).mean()

            ours = loss(tuned.quantiles[:, i, j])
            assert ours < loss(default.quantiles[:, i, j])
            assert ours < 0.95 * loss(constant)
            truth = -np.log(1 - level) * later.frame["volatility"].to_numpy()
            assert ours < 1.1 * loss(truth)


def test_a_volatility_never_seen_is_forecast_like_the_largest_one_seen():
    fitted = model().fit(market())
    later = market(1)
    wild = later.frame.assign(volatility=10 * later.frame["volatility"].max())
    wilder = later.frame.assign(volatility=100 * later.frame["volatility"].max())
    np.testing.assert_array_equal(
        fitted.predict(replace(later, frame=wild)).quantiles,
        fitted.predict(replace(later, frame=wilder)).quantiles,
    )


@pytest.mark.parametrize("settings", [DEFAULTS, TUNED])
def test_a_saved_model_keeps_name_settings_and_forecasts(settings, tmp_path):
    panel = market(hours=500)
    fitted = model(settings, stride=2).fit(panel)
    fitted.save(tmp_path)
    loaded = LightGbmRaw.load(tmp_path)
    assert loaded.parameters() == fitted.parameters()
    np.testing.assert_array_equal(loaded.predict(panel).quantiles, fitted.predict(panel).quantiles)


def test_a_level_no_outcome_is_expected_to_exceed_is_refused():
    panel = market(hours=499)
    message = r"level 0\.999 needs at least 1,000 training decisions, found 998"
    with pytest.raises(InsufficientHistoryError, match=message):
        model(levels=(0.99, 0.999)).fit(panel)
    model(levels=(0.99, 0.999)).fit(market(hours=500))


def test_rows_left_by_thinning_are_the_ones_counted():
    with pytest.raises(InsufficientHistoryError, match="found 334"):
        model(levels=(0.999,), stride=3).fit(market(hours=500))


def test_an_infinite_feature_is_named_with_its_place():
    panel = market(hours=500)
    frame = panel.frame.copy()
    frame.loc[[7, 12], "noise"] = np.inf
    message = "feature noise is infinite in 2 of 1,000 rows, first at row 7"
    with pytest.raises(InputError, match=message):
        model().fit(replace(panel, frame=frame))
    with pytest.raises(InputError, match=message):
        model().fit(panel).predict(replace(panel, frame=frame))


@given(arrays(np.float64, (4, 3), elements=st.floats(-1, 1)))
def test_rearranged_quantiles_are_the_same_numbers_in_order_and_not_negative(values):
    result = rearranged(values)
    assert (result >= 0).all()
    assert (np.diff(result, axis=-1) >= 0).all()
    np.testing.assert_array_equal(result, np.sort(np.where(values > 0, values, 0.0), axis=-1))
