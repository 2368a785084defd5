"""Forecasts never fall with the horizon or the level, and horizons do not disturb each other."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from margincast.core.types import FloatArray
from margincast.models.filtered_historical import FilteredHistorical
from margincast.models.horizons import HorizonForecaster, horizon_crossings, rearranged
from margincast.models.protocol import Panel, TailForecast
from margincast.models.scale import HarScale

SIDES = ("long", "short")
LEVELS = (0.9, 0.95, 0.99)
HORIZONS = (60, 480, 1440)


def in_order(values: FloatArray, axis: int) -> bool:
    """Whether what is known along an axis does not fall."""
    moved = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    return all((np.diff(column[~np.isnan(column)]) >= 0).all() for column in moved.T)


@st.composite
def forecasts(draw: st.DrawFn, *, unknown: bool = False) -> dict[int, TailForecast]:
    """Forecasts in order by level, in any order by horizon; whole rows of a side unknown."""
    horizons = draw(st.integers(1, 4))
    shape = (horizons, draw(st.integers(1, 6)), len(SIDES), len(LEVELS))
    # few values, so that ties are common
    values = st.sampled_from([0.0, 0.01, 0.02, 0.025, 0.5])
    quantiles = np.sort(draw(arrays.arrays(float, shape, elements=values)), axis=3)
    beyond = quantiles + np.sort(draw(arrays.arrays(float, shape, elements=values)), axis=3)
    if unknown:
        for array in (quantiles, beyond):
            array[draw(arrays.arrays(bool, shape[:3]))] = np.nan
        beyond[np.isnan(quantiles)] = np.nan
    with_shortfall = draw(st.booleans())
    return {
        60 * 2**i: TailForecast(SIDES, LEVELS, quantiles[i], beyond[i] if with_shortfall else None)
        for i in range(horizons)
    }


def stacked(found: dict[int, TailForecast]) -> list[FloatArray]:
    """Quantiles, and expected shortfalls where there are any, by increasing horizon."""
    ordered = [found[minutes] for minutes in sorted(found)]
    quantiles = np.stack([one.quantiles for one in ordered])
    beyond = [one.expected_shortfall for one in ordered if one.expected_shortfall is not None]
    assert len(beyond) in (0, len(ordered))
    return [quantiles, np.stack(beyond)] if beyond else [quantiles]


@given(forecasts(unknown=True))
def test_nothing_crosses_in_horizon_or_level_and_what_is_unknown_stays_so(given_):
    made = rearranged(given_)
    assert list(made) == sorted(given_)
    for before, after in zip(stacked(given_), stacked(made), strict=True):
        assert in_order(after, 0)
        assert in_order(after, 3)
        np.testing.assert_array_equal(np.isnan(after), np.isnan(before))
    if len(stacked(made)) == 2:
        quantiles, beyond = stacked(made)
        known = ~np.isnan(beyond)
        assert (beyond[known] >= quantiles[known]).all()
    assert horizon_crossings(made) == 0


@given(forecasts())
def test_the_values_are_those_that_were_there(given_):
    for before, after in zip(stacked(given_), stacked(rearranged(given_)), strict=True):
        np.testing.assert_array_equal(np.sort(before, axis=0), after)


@given(forecasts(unknown=True), st.randoms())
def test_rows_and_the_order_of_the_horizons_do_not_matter(given_, random):
    made = rearranged(given_)
    keys = list(given_)
    random.shuffle(keys)
    again = rearranged({minutes: given_[minutes] for minutes in keys})
    first = rearranged({minutes: one.rows(np.array([0])) for minutes, one in given_.items()})
    for minutes, one in made.items():
        np.testing.assert_array_equal(again[minutes].quantiles, one.quantiles)
        np.testing.assert_array_equal(first[minutes].quantiles, one.quantiles[:1])


@given(forecasts(unknown=True))
def test_what_is_in_order_and_a_single_horizon_stay_as_they_are(given_):
    made = rearranged(given_)
    for before, after in zip(stacked(made), stacked(rearranged(made)), strict=True):
        np.testing.assert_array_equal(before, after)
    minutes, one = next(iter(given_.items()))
    assert rearranged({minutes: one})[minutes] is one


def test_an_unknown_horizon_leaves_the_others_in_order_among_themselves():
    rows = np.array(
        [[0.3, 0.2, 0.1], [np.nan, 0.2, 0.1], [0.3, np.nan, 0.1], [np.nan, 0.2, np.nan]]
    )
    given_ = {
        minutes: TailForecast(("long",), (0.9,), rows[:, i, None, None])
        for i, minutes in enumerate(HORIZONS)
    }
    assert horizon_crossings(given_) == 2 + 1 + 1
    made = np.column_stack([one.quantiles[:, 0, 0] for one in rearranged(given_).values()])
    np.testing.assert_array_equal(
        made,
        [[0.1, 0.2, 0.3], [np.nan, 0.1, 0.2], [0.1, np.nan, 0.3], [np.nan, 0.2, np.nan]],
    )


def test_a_horizon_with_one_unknown_level_takes_no_part_at_that_side():
    # were its other level sorted too, the longer horizon would get 5 at 0.9 and keep 2 at 0.95
    short = TailForecast(("long",), (0.9, 0.95), np.array([[[5.0, np.nan]]]))
    long = TailForecast(("long",), (0.9, 0.95), np.array([[[1.0, 2.0]]]))
    made = rearranged({60: short, 480: long})
    np.testing.assert_array_equal(made[60].quantiles, short.quantiles)
    np.testing.assert_array_equal(made[480].quantiles, long.quantiles)
    assert horizon_crossings(made) == 0


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_rearrangement_brings_noisy_forecasts_closer_to_the_truth(seed):
    """Chernozhukov et al. (2010), proposition 1: no increasing target gets farther away."""
    rng = np.random.default_rng(seed)
    truth = np.sort(rng.uniform(0.01, 0.1, (3, 20, 2, 3)), axis=0)
    noisy = np.sort(truth * rng.lognormal(0, 0.5, truth.shape), axis=3)
    given_ = {minutes: TailForecast(SIDES, LEVELS, noisy[i]) for i, minutes in enumerate(HORIZONS)}
    (made,) = stacked(rearranged(given_))
    for power in (1, 2):
        before, after = ((np.abs(each - truth) ** power).sum(axis=0) for each in (noisy, made))
        assert (after <= before + 1e-12).all()


# The forecaster of several horizons


def simulated(hours: int = 900) -> dict[int, Panel]:
    """Hourly decisions of three contracts whose excursions are those of one random walk."""
    rng = np.random.default_rng(3)
    ts = pd.date_range("2024-01-01", periods=hours, freq="h", tz="UTC", unit="us")
    frames, excursions = [], {minutes: [] for minutes in HORIZONS}
    for symbol in ("A", "B", "C"):
        volatility = 0.01 * np.exp(0.3 * np.sin(np.arange(hours + 24) / 50))
        steps = volatility * rng.standard_t(4, hours + 24)
        price = np.exp(np.cumsum(steps))
        frames.append(pd.DataFrame({"symbol": symbol, "ts": ts, "fast": volatility[:hours]}))
        for minutes in HORIZONS:
            windows = np.lib.stride_tricks.sliding_window_view(price, minutes // 60 + 1)[:hours]
            fall = 1 - windows.min(axis=1) / windows[:, 0]
            excursions[minutes].append((fall, windows.max(axis=1) / windows[:, 0] - 1))
    whole = pd.concat(frames, ignore_index=True)
    order = np.lexsort((whole["symbol"], whole["ts"]))
    frame = whole.iloc[order].reset_index(drop=True)
    decided = frame["ts"].dt.tz_localize(None).to_numpy("datetime64[us]")
    panels = {}
    for minutes, found in excursions.items():
        long, short = (np.concatenate([one[side] for one in found])[order] for side in (0, 1))
        panels[minutes] = Panel(
            frame, {"fast": "fraction"}, {"long": long, "short": short}, np.log1p(long + short),
            decided + np.timedelta64(minutes, "m"),
        )  # fmt: skip
    return panels


def unfitted(*, monotone: bool = True) -> HorizonForecaster:
    """EWMA filtered historical simulation at every horizon."""
    return HorizonForecaster(
        "ewma_fhs",
        {
            minutes: FilteredHistorical(
                "ewma_fhs", "column", "fast", HarScale((), (), 0.0), None, 6.0, SIDES, LEVELS
            )
            for minutes in HORIZONS
        },
        monotone,
    )


@pytest.fixture(scope="module")
def panels() -> dict[int, Panel]:
    return simulated()


@pytest.fixture(scope="module")
def fitted(panels) -> HorizonForecaster:
    return unfitted().fit(panels)


def test_every_horizon_has_the_forecast_of_its_own_model_in_order(fitted, panels):
    made = fitted.predict(panels)
    alone = {
        minutes: unfitted().forecasters[minutes].fit(panel).predict(panel)
        for minutes, panel in panels.items()
    }
    for minutes, expected in rearranged(alone).items():
        np.testing.assert_array_equal(made[minutes].quantiles, expected.quantiles)
        np.testing.assert_array_equal(made[minutes].expected_shortfall, expected.expected_shortfall)
    assert horizon_crossings(made) == 0


def test_the_promise_is_kept_at_every_horizon(fitted, panels):
    for minutes, forecast in fitted.predict(panels).items():
        for side in SIDES:
            exceeded = np.mean(panels[minutes].outcomes[side] > forecast.at(side, 0.95))
            assert exceeded == pytest.approx(0.05, abs=0.01)


class Fixed:
    """Forecasts a constant times the level."""

    name = "fixed"

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def fit(self, panel: Panel) -> Self:  # noqa: ARG002  # the protocol's
        return self

    def predict(self, panel: Panel) -> TailForecast:
        quantiles = np.tile(self.factor * np.array(LEVELS), (len(panel), len(SIDES), 1))
        return TailForecast(SIDES, LEVELS, quantiles)

    def parameters(self) -> dict[str, Any]:
        return {"factor": self.factor}

    def save(self, directory: Path) -> None:
        (directory / "factor.txt").write_text(repr(self.factor))

    @classmethod
    def load(cls, directory: Path) -> Self:
        return cls(float((directory / "factor.txt").read_text()))


def test_what_is_not_ordered_by_nature_is_left_alone(panels):
    forecasters = {minutes: Fixed(1 / minutes) for minutes in HORIZONS}
    free = HorizonForecaster("fixed", forecasters, monotone=False).predict(panels)
    held = HorizonForecaster("fixed", forecasters, monotone=True).predict(panels)
    rows = len(panels[60])
    assert horizon_crossings(free) == 2 * rows * len(SIDES) * len(LEVELS)
    assert horizon_crossings(held) == 0
    np.testing.assert_array_equal(held[1440].quantiles, free[60].quantiles)


def test_later_rows_and_rows_left_out_change_no_forecast(fitted, panels):
    whole = fitted.predict(panels)
    for keep in (np.arange(7), np.arange(100, 400)):
        part = fitted.predict({minutes: panel.rows(keep) for minutes, panel in panels.items()})
        for minutes in HORIZONS:
            np.testing.assert_array_equal(part[minutes].quantiles, whole[minutes].quantiles[keep])


@pytest.mark.parametrize("monotone", [True, False])
def test_a_saved_model_is_text_by_horizon_and_forecasts_the_same_bits(panels, tmp_path, monotone):
    model = unfitted(monotone=monotone).fit(panels)
    model.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"horizons.json", "60m", "480m", "1440m"}
    for path in tmp_path.rglob("*.*"):
        path.read_text(encoding="utf-8")
    loaded = HorizonForecaster.load(tmp_path, FilteredHistorical)
    assert (loaded.name, loaded.monotone) == ("ewma_fhs", monotone)
    assert loaded.horizons_minutes == HORIZONS
    assert loaded.parameters() == model.parameters()
    assert list(model.parameters()) == ["60m", "480m", "1440m"]
    expected = model.predict(panels)
    for minutes, made in loaded.predict(panels).items():
        np.testing.assert_array_equal(made.quantiles, expected[minutes].quantiles)
        np.testing.assert_array_equal(made.expected_shortfall, expected[minutes].expected_shortfall)


def test_a_horizon_without_a_panel_is_not_forecast_in_silence(fitted, panels):
    with pytest.raises(KeyError):
        fitted.predict({60: panels[60]})
