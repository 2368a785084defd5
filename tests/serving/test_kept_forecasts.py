"""A later score asks the model about new decisions only, and every forecast keeps its bits."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.attribution_case import LEVELS, MODEL, SIDES, simulated

from margincast.features.cache import FeatureCache
from margincast.models.catalogue import make_forecaster
from margincast.models.horizons import HorizonForecaster
from margincast.serving.kept_forecasts import KeptForecasts, pieces_of

HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(1, "D")
START = np.datetime64("2026-01-01T00:00", "us")


def test_days_that_are_over_are_one_piece_and_the_last_day_is_hours():
    decided = START + np.arange(1, 24 * 4 * 2 + 5) * np.timedelta64(15, "m")
    pieces = pieces_of(decided)
    # midnight ends its day; the third day has an hour and no more
    assert [(one.start, one.stop) for one in pieces] == [(0, 96), (96, 192), (192, 196)]
    until_noon = pieces_of(decided[: 96 + 48])
    assert [one.stop - one.start for one in until_noon] == [96, *[4] * 12]


def test_no_decision_is_no_piece():
    assert pieces_of(np.array([], dtype="datetime64[us]")) == []


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 5 * 24 * 60), min_size=1, max_size=60),
    st.integers(1, 60),
)
def test_pieces_hold_every_decision_once_and_complete_ones_stay(minutes, cut):
    decided = START + np.sort(np.array(minutes)) * np.timedelta64(1, "m")
    pieces = pieces_of(decided)
    assert np.concatenate([np.arange(len(decided))[one] for one in pieces]).tolist() == [
        *range(len(decided))
    ]
    earlier = decided[:cut]
    # a tick before: a decision at midnight ends its day
    ended = [(times - np.timedelta64(1, "us")) for times in (decided, earlier)]
    for piece in pieces_of(earlier):
        first, last = ended[1][piece][[0, -1]]
        length = DAY if first.astype("M8[D]") < ended[1][-1].astype("M8[D]") else HOUR
        over = last.astype(f"M8[{'D' if length == DAY else 'h'}]") + length <= ended[1][-1]
        same_day = ended[0][-1].astype("M8[D]") == ended[1][-1].astype("M8[D]")
        if over and (length == DAY or same_day):
            assert any((one.start, one.stop) == (piece.start, piece.stop) for one in pieces)


@pytest.fixture(scope="module")
def forecaster():
    """Our model at two horizons, fitted on a thousand hours."""
    panel = simulated().rows(np.arange(2_000))
    model = make_forecaster("margincast", MODEL, SIDES, LEVELS, overlap=1.0, threads=1).fit(panel)
    return HorizonForecaster("margincast", {60: model, 480: model}, monotone=True)


def unseen(hours):
    """Decisions after the fit; of the last ones nobody knows yet what followed."""
    panel = simulated().rows(np.arange(2_000, 2_000 + 2 * hours))
    known = panel.label_end <= panel.decided[-1]
    outcomes = {side: np.where(known, values, np.nan) for side, values in panel.outcomes.items()}
    panel = replace(panel, outcomes=outcomes)
    return {60: panel, 480: panel}


def kept_in(folder, forecaster, digest="d" * 64):
    bundle = SimpleNamespace(forecaster=forecaster, manifest=SimpleNamespace(digest=digest))
    return KeptForecasts(bundle, FeatureCache(folder))


def same(one, other):
    return all(
        np.array_equal(one[minutes].quantiles, other[minutes].quantiles, equal_nan=True)
        and np.array_equal(one[minutes].expected_shortfall, other[minutes].expected_shortfall)
        for minutes in one
    )


def test_only_new_decisions_are_forecast_and_no_bit_changes(forecaster, tmp_path):
    first = kept_in(tmp_path, forecaster)
    assert same(first.predict(unseen(380)), forecaster.predict(unseen(380)))
    assert (first.made, first.reused) == (4 * 380, 0)
    again = kept_in(tmp_path, forecaster)
    assert same(again.predict(unseen(380)), forecaster.predict(unseen(380)))
    assert (again.made, again.reused) == (0, 4 * 380)
    later = kept_in(tmp_path, forecaster)
    assert same(later.predict(unseen(383)), forecaster.predict(unseen(383)))
    assert (later.made, later.reused) == (4 * 3, 4 * 380)
    # a day that ended since is one piece now, its hours were another
    next_day = kept_in(tmp_path, forecaster)
    assert same(next_day.predict(unseen(410)), forecaster.predict(unseen(410)))
    assert 4 * 27 <= next_day.made <= 4 * (27 + 24)


def test_another_model_or_another_feature_is_asked_anew(forecaster, tmp_path):
    kept_in(tmp_path, forecaster).predict(unseen(48))
    other = kept_in(tmp_path, forecaster, digest="e" * 64)
    other.predict(unseen(48))
    assert other.reused == 0
    panels = unseen(48)
    frame = panels[60].frame.copy()
    frame.loc[0, "stress"] = np.nextafter(frame.loc[0, "stress"], 1.0)
    changed = dict.fromkeys(panels, replace(panels[60], frame=frame))
    one = kept_in(tmp_path, forecaster)
    assert same(one.predict(changed), forecaster.predict(changed))
    assert 0 < one.made <= 4 * 24


def test_a_damaged_forecast_is_made_again(forecaster, tmp_path):
    kept_in(tmp_path, forecaster).predict(unseen(48))
    for path in tmp_path.rglob("*.parquet"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    again = kept_in(tmp_path, forecaster)
    assert same(again.predict(unseen(48)), forecaster.predict(unseen(48)))
    assert again.reused == 0
    assert kept_in(tmp_path, forecaster).predict(unseen(48))


def test_a_model_with_an_infinite_feature_forecasts_the_others_as_without_keeping(
    forecaster, tmp_path
):
    panels = unseen(48)
    frame = panels[60].frame.copy()
    frame.loc[3, "stress"] = np.inf
    broken = dict.fromkeys(panels, replace(panels[60], frame=frame))
    found = kept_in(tmp_path, forecaster).predict(broken)
    assert np.isnan(found[60].quantiles[3]).all()
    assert same(
        {60: found[60].rows(np.arange(4, 20))},
        {60: forecaster.predict(broken)[60].rows(np.arange(4, 20))},
    )


def test_without_a_folder_the_model_is_asked_about_everything(forecaster):
    bundle = SimpleNamespace(forecaster=forecaster, manifest=SimpleNamespace(digest=""))
    kept = KeptForecasts(bundle, None)
    assert same(kept.predict(unseen(10)), forecaster.predict(unseen(10)))
    assert (kept.made, kept.reused) == (40, 0)
