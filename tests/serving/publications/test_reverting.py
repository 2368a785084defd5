"""Going back is refused where the margins of then break what holds today, and remembered."""

import shutil
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from tests.serving.publications.publication_case import (
    AT,
    POLICY,
    SCHEDULE,
    chain_of_publications,
    publish,
    scored,
)

from margincast.core.errors import CheckFailedError, InputError
from margincast.margin.override import Override
from margincast.serving.publications.replaying import differences, replayed
from margincast.serving.publications.reverting import revert


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "p"
    chain_of_publications(folder, 2)
    return folder


@pytest.fixture
def store(two, tmp_path):
    folder = shutil.copytree(two, tmp_path / "p")
    return chain_of_publications(folder, 0)


def back(store, number=1, overrides=(), at=None):
    return revert(store, number, at=at, overrides=overrides, by="bo", reason="a bad feed")


def test_the_old_margins_are_in_force_again_without_notice_and_on_the_record(store):
    old = store.read(1)
    made = back(store, at=AT + timedelta(hours=5))
    assert (made.number, made.record.kind, made.record.reverts_to) == (3, "revert", 1)
    assert (made.by, made.reason, made.at) == ("bo", "a bad feed", AT + timedelta(hours=5))
    for column in ("mmr", "imr", "maintenance_amount", "reason", "model_version"):
        assert made.levels[column].tolist() == old.levels[column].tolist()
    assert made.levels["mmr_in_force"].tolist() == old.levels["mmr"].tolist()
    assert (made.levels["effective_from"] == AT + timedelta(hours=5)).all()
    assert made.origin == old.origin
    assert replayed(store, 3).same_bytes


def test_the_policy_goes_on_from_the_rates_that_are_in_force_again(store):
    made = back(store)
    after = scored(9, past=made.remembered)
    assert after.levels["mmr_before"].tolist() == made.levels["mmr"].tolist()
    memory, ok = made.after.memory, (made.levels["status"] == "ok").to_numpy()
    assert memory.limited[ok].tolist() == made.levels["mmr"][ok].tolist()
    # a day's rise still counts from what was charged before
    assert [at for at, _ in memory.recent] == sorted({at for at, _ in memory.recent})
    assert memory.recent[0][0] == np.datetime64(AT.replace(tzinfo=None), "us")


def test_the_one_in_force_and_one_that_is_not_there_are_refused(store):
    with pytest.raises(InputError, match="000002 is the one in force"):
        back(store, 2)
    with pytest.raises(InputError, match="no publication 7"):
        back(store, 7)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"mmr_floor": 0.3}, r"BTCUSDT long tier 1 at .* lies below its floor of 30 % today"),
        (
            {"multiplier_floor": 1.5, "mmr_cap": 0.8},
            r"tier 6 at 12.5 % lies below its floor of 18.75 % today",
        ),
        ({"mmr_cap": 0.05, "multiplier_floor": 0.0}, r"lies above the cap of 5 % today"),
    ],
)
def test_margins_outside_the_limits_of_today_are_refused(store, limits, message):
    policy = POLICY.model_copy(update={"limits": POLICY.limits.model_copy(update=limits)})
    publish(store, scored(2, policy=policy), policy=policy)
    with pytest.raises(CheckFailedError, match=message) as refused:
        back(store)
    assert "Nothing was published" in str(refused.value)
    assert store.last_number == 3


def test_margins_below_a_higher_base_schedule_are_refused(store):
    def dearer(tiers):
        return tuple(
            tier.model_copy(update={"mmr": min(2 * tier.mmr, 0.45), "imr": 1.0}) for tier in tiers
        )

    brackets = tuple(
        one.model_copy(update={"tiers": dearer(one.tiers)}) for one in SCHEDULE.brackets
    )
    default = SCHEDULE.default.model_copy(update={"tiers": dearer(SCHEDULE.default.tiers)})
    schedule = SCHEDULE.model_copy(update={"brackets": brackets, "default": default})
    publish(store, scored(2, schedule=schedule), schedule=schedule)
    with pytest.raises(CheckFailedError, match=r"tier 6 at 12.5 % lies below its floor of 25 % to"):
        back(store)


def test_a_contract_that_had_no_margins_then_is_not_left_without(store):
    publish(store, scored(2, symbols=("BTCUSDT", "DOGEUSDT", "NEWUSDT", "XRPUSDT")))
    with pytest.raises(CheckFailedError, match="NEWUSDT has margins now and had none then"):
        back(store)


def test_tiers_that_changed_since_are_refused(store):
    plain = SCHEDULE.model_copy(update={"brackets": ()})
    publish(store, scored(2, schedule=plain), schedule=plain)
    with pytest.raises(CheckFailedError, match="the tiers of BTCUSDT have changed since"):
        back(store)


def test_a_margin_set_by_hand_is_not_gone_below(store):
    override = Override(
        7, "raise", 0.2, "BTCUSDT", "long", None, "withdrawals", "risk", AT, AT + timedelta(days=1)
    )
    message = r"BTCUSDT long tier 1 at .* lies below 20 %, set by hand \(line 7 of the ledger\)"
    with pytest.raises(CheckFailedError, match=message):
        back(store, overrides=(override,))
    lower = replace(override, mmr=0.001)
    assert back(store, overrides=(lower,)).number == 3
    lifted = replace(override, action="lift", mmr=np.nan)
    assert back(store, 2, overrides=(lifted,)).number == 4


def test_a_replay_that_differs_names_level_column_and_both_values(store, monkeypatch):
    publication = store.read(1)
    other = publication.levels.copy()
    other.loc[3, "mmr"] = np.nextafter(other.loc[3, "mmr"], 1.0)
    found = differences(publication.levels, other)
    row = publication.levels.iloc[3]
    assert found[["symbol", "side", "tier", "column"]].to_numpy().tolist() == [
        [row["symbol"], row["side"], row["tier"], "mmr"]
    ]
    assert found["published"][0] != found["replayed"][0]
    assert differences(publication.levels, publication.levels.iloc[1:])["column"].tolist() == [
        "levels"
    ]
    assert differences(publication.levels, other.drop(columns="imr"))["column"].tolist() == [
        "mmr", "imr",
    ]  # fmt: skip
    # a version that computes something else
    monkeypatch.setattr("margincast.margin.chain._NO_LIMIT", 1e-9)
    again = replayed(store, 2)
    assert not again.equal
    assert not again.same_bytes
    assert {"mmr", "step_speed_limit"} <= set(again.differing["column"])
