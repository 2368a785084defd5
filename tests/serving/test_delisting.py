"""A contract goes off once nothing comes of it, and is forgotten by all but the record."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from tests.serving.publications.publication_case import (
    AT,
    SCHEDULE,
    chain_of_publications,
    publish,
    scored,
)

from margincast.core.errors import SpecError
from margincast.serving.delisting import delisting_at
from margincast.serving.publications.changes import changes_between
from margincast.serving.publications.replaying import replayed
from margincast.serving.publications.reverting import revert
from margincast.specs.loading import validate_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.schedule_file import schedule_toml

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def delisted(*names):
    return SCHEDULE.model_copy(update={"delisted": names})


@pytest.mark.parametrize(
    ("age", "gone"),
    [
        (None, True),
        (timedelta(0), False),
        (2 * HOUR, False),
        (2 * HOUR + timedelta(seconds=1), True),
    ],
)
def test_what_still_has_fresh_data_keeps_its_margins_and_that_is_said(age, gone):
    newest = {"BTCUSDT": NOON} | ({} if age is None else {"FTTUSDT": NOON - age})
    found = delisting_at(delisted("FTTUSDT"), newest, NOON, 2 * HOUR)
    assert found.gone == (("FTTUSDT",) if gone else ())
    (line,) = found.describe()
    assert line.startswith(
        "1 contract delisted: FTTUSDT"
        if gone
        else "FTTUSDT is delisted by the base schedule but has data of "
    )


def test_without_the_key_a_schedule_is_the_one_it_was_and_nobody_is_spoken_of():
    assert "delisted" not in SCHEDULE.model_dump(mode="json", exclude_defaults=True)
    assert delisted().digest() == SCHEDULE.digest() != delisted("XRPUSDT").digest()
    assert "delisted" not in schedule_toml(SCHEDULE, "")
    assert delisting_at(SCHEDULE, {"BTCUSDT": NOON}, NOON, HOUR).describe() == ()


def test_a_name_that_stands_twice_is_refused():
    raw = SCHEDULE.model_dump(mode="json") | {"delisted": ["FTTUSDT", "FTTUSDT"]}
    with pytest.raises(SpecError, match="delisted names a contract twice: FTTUSDT"):
        validate_spec(raw, BaseSchedule, "schedule")


@pytest.fixture
def store(tmp_path):
    """BTCUSDT, DOGEUSDT and XRPUSDT were published twice; DOGEUSDT is gone since."""
    store = chain_of_publications(tmp_path / "p", 2)
    left = scored(2, symbols=("BTCUSDT", "XRPUSDT"), past=store.latest().remembered)
    publish(store, left, schedule=delisted("DOGEUSDT"))
    return store


def test_a_revert_brings_back_all_others_and_is_made_again_to_the_last_bit(store):
    made = revert(store, 1, at=AT + 3 * HOUR, overrides=(), by="bo", reason="a bad feed")
    assert made.symbols == ("BTCUSDT", "XRPUSDT")
    then = store.read(1).levels
    then = then[then["symbol"] != "DOGEUSDT"]
    for column in ("mmr", "imr", "reason", "forecast"):
        assert made.levels[column].tolist() == pytest.approx(then[column].tolist(), nan_ok=True)
    assert made.after.memory.published.tolist() == then["mmr"].tolist()
    assert replayed(store, 4).same_bytes


def test_listed_again_it_starts_as_a_new_contract(store):
    again = scored(3, past=store.latest().remembered).levels
    doge = again["symbol"] == "DOGEUSDT"
    assert again.loc[doge, "mmr_before"].isna().all()
    assert np.isfinite(again.loc[~doge, "mmr_before"]).all()
    # its first margin waits for no speed limit
    assert not (again.loc[doge, "binding_rule"] == "speed limit").any()


def test_who_is_gone_is_named_and_who_lost_a_tier_is_not(store):
    before, after = store.read(2).levels, store.read(3).levels
    assert changes_between(before, after).contracts_gone == ("DOGEUSDT",)
    last = (after["symbol"] == "BTCUSDT") & (after["tier"] == 8)
    assert changes_between(after, after[~last]).contracts_gone == ()
