"""What a model was asked is kept once, and read back to the last bit."""

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from tests.serving.publications.publication_case import AT, SYMBOLS, publish, scored

from margincast.core.errors import InputError, PublicationError
from margincast.models.protocol import Panel, TailForecast
from margincast.serving.publications.decisions import (
    FOLDER,
    decisions_of,
    forecasts_again,
    keep_decisions,
)
from margincast.serving.publications.store import PublicationStore
from margincast.serving.publications.verifying import damages


def decisions(hours):
    """Hours of the contracts, NaN among the features, outcomes known but for the last ones."""
    rng = np.random.default_rng(5)
    count = len(SYMBOLS)
    ts = pd.date_range(end=AT, periods=60, freq="h", unit="us")[:hours]
    frame = pd.DataFrame(
        {
            "symbol": np.tile(np.array(SYMBOLS, dtype=object), hours),
            "ts": np.repeat(ts, count),
            "volatility": rng.lognormal(-3, 1, count * 60)[: count * hours],
            "imbalance": rng.normal(0, 1, count * 60)[: count * hours],
        }
    )
    frame.loc[::7, "imbalance"] = np.nan
    panel = Panel.of_decisions(
        frame, {"volatility": "fraction", "imbalance": "number"}, ("long", "short")
    )
    end = panel.decided + np.timedelta64(8, "h")
    known = end <= panel.decided[-1]
    values = rng.exponential(0.02, count * 60)[: count * hours]
    outcome = np.where(known, values, np.nan)
    return {
        480: replace(
            panel,
            outcomes={"long": outcome, "short": 2 * outcome},
            log_range=3 * outcome,
            label_end=np.where(known, end, np.datetime64("NaT", "us")),
        )
    }


class Twice:
    """Forecast = twice the volatility; what followed an hour ago raises it a little."""

    def predict(self, panels):
        panel = panels[480]
        learnt = np.nan_to_num(panel.outcomes["long"]).sum()
        quantiles = panel.frame["volatility"].to_numpy()[:, None, None] * (2 + learnt)
        return {480: TailForecast(("long", "short"), (0.99,), np.repeat(quantiles, 2, axis=1))}


@pytest.fixture
def published(tmp_path):
    store = PublicationStore(tmp_path / "p")
    panels = decisions(40)
    made = scored()
    wanted = Twice().predict(panels)[480].at("long", 0.99)[-len(SYMBOLS) :]
    inputs = replace(made.inputs, forecasts=np.stack([wanted, wanted], axis=1))
    kept = keep_decisions(store.folder, panels)
    return store, publish(store, replace(made, inputs=inputs), decisions=kept)


def test_decisions_are_read_back_to_the_last_bit(published):
    _, publication = published
    (found,), (expected,) = decisions_of(publication).values(), decisions(40).values()
    pd.testing.assert_frame_equal(found.frame, expected.frame, check_exact=True)
    assert found.units == expected.units
    for side in ("long", "short"):
        np.testing.assert_array_equal(found.outcomes[side], expected.outcomes[side])
    np.testing.assert_array_equal(found.log_range, expected.log_range)
    np.testing.assert_array_equal(found.label_end, expected.label_end)


def test_forecasts_are_made_again_from_them(published):
    _, publication = published
    made, count = forecasts_again(publication, SimpleNamespace(forecaster=Twice()))
    np.testing.assert_array_equal(made, publication.inputs.forecasts)
    assert count == 40 * len(SYMBOLS)


def test_what_nights_share_is_kept_once(published):
    store, _ = published
    folder = store.folder / FOLDER
    before = set(folder.iterdir())
    assert keep_decisions(store.folder, decisions(40))["pieces"]
    assert set(folder.iterdir()) == before
    told = keep_decisions(store.folder, decisions(41))
    new = set(folder.iterdir()) - before
    # one hour more, and what is known by now of the hour eight hours ago; what followed the new
    # one is as little known as what followed the one before it
    assert len(new) == 2
    assert len(told["pieces"]) == 18


def test_a_piece_that_was_changed_or_lost_is_refused(published):
    store, publication = published
    piece, other, *_ = sorted((store.folder / FOLDER).iterdir())
    content = piece.read_bytes()
    piece.chmod(0o644)
    piece.write_bytes(other.read_bytes())
    message = f"publication 000001 of perp-8h: decisions/{piece.name} is missing or was changed"
    with pytest.raises(PublicationError, match=message):
        decisions_of(publication)
    piece.unlink()
    with pytest.raises(PublicationError, match=message):
        decisions_of(publication)
    # the next publisher that has it brings it back
    keep_decisions(store.folder, decisions(40))
    assert decisions_of(publication) is not None
    assert piece.read_bytes() == content


def test_when_the_disk_is_full_it_is_said_and_nothing_is_left(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"No space left on device\); nothing was published"):
        keep_decisions(tmp_path, decisions(3))
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_what_killed_publishers_left_is_cleared_away_and_no_work_of_another(published):
    store, _ = published
    folder = store.folder / FOLDER
    old, new = folder / ".old.1-a", folder / ".new.2-b"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    keep_decisions(store.folder, decisions(40))
    assert (old.exists(), new.exists()) == (False, True)


def test_a_piece_of_an_old_publication_that_is_gone_is_found(published):
    store, publication = published
    publish(store, scored(1))
    assert damages(PublicationStore(store.folder)) == ()
    next((store.folder / FOLDER).iterdir()).unlink()
    (problem,) = damages(PublicationStore(store.folder))
    assert f"publication {publication.name} of perp-8h: decisions/" in problem


def test_a_publication_without_a_model_has_none(tmp_path):
    store = PublicationStore(tmp_path / "p")
    assert decisions_of(publish(store, scored())) is None
