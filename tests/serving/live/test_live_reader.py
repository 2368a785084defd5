"""A worker sees what the engine showed, and a fallback once nobody watches."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from tests.serving.levels_case import AT, levels_of

from margincast.margin.maintenance import maintenance_amounts
from margincast.serving.live.folder import LiveFolder
from margincast.serving.live.keeping import kept
from margincast.serving.live.reader import LiveReader
from margincast.serving.snapshot import Header, Snapshot

SECOND = timedelta(seconds=1)
HEADER = Header(3, AT, "test", "live", 2)

CALM = Snapshot.of(levels_of(), HEADER)


class Watch:
    """A reader, and the two clocks that it looks by; they run together unless a test says not."""

    def __init__(self, folder):
        self.reader, self.at, self.seconds = LiveReader(LiveFolder(folder), SECOND), AT, 50.0

    def look(self, after=0.0, jump=0.0):
        self.at += timedelta(seconds=after + jump)
        self.seconds += after
        return self.reader.look(self.at, self.seconds)


@pytest.fixture
def watched(tmp_path):
    folder, watch = LiveFolder(tmp_path), Watch(tmp_path)

    def beat(snapshot=CALM):
        folder.write(snapshot, {}, watch.at)

    return watch, beat


def test_what_the_engine_wrote_is_read_back_to_the_last_bit_once(tmp_path):
    folder = LiveFolder(tmp_path)
    watch = Watch(tmp_path)
    assert watch.look() is None  # no engine yet
    levels = levels_of()
    folder.write(Snapshot.of(levels, HEADER), {"decisions": 1}, AT)
    shown = watch.look()
    assert shown.header == HEADER
    assert shown.changed_since(Snapshot.of(levels, HEADER)) == ()
    assert watch.look() is None
    read = folder.read()
    assert read.counts == {"decisions": 1}
    # no text is None in the file and NaN in the table
    numbers = levels.select_dtypes(["number", "datetimetz"]).columns.tolist()
    pd.testing.assert_frame_equal(read.levels[numbers], levels[numbers], check_dtype=False)
    assert read.levels["reason"].tolist() == levels["reason"].tolist()
    # another margin, and the same snapshot number
    folder.write(Snapshot.of(levels_of((0.02, 0.02, 0.02)), replace(HEADER, revision=3)), {}, AT)
    assert len(watch.look().changed_since(shown)) == 3


def test_an_engine_that_is_gone_is_a_fallback_until_it_is_back(watched):
    watch, beat = watched
    beat()
    assert watch.look(after=1.0).fallbacks == ()
    gone = watch.look(after=0.001)
    assert gone.fallbacks == CALM.symbols
    assert "engine stopped: no heartbeat since 2026-01-10 00:00:00 UTC" in gone.header.problem
    for symbol, sides in gone.contracts.items():
        for side, one in sides.items():
            assert one.values("mmr") == CALM.contracts[symbol][side].values("mmr")
            assert all(gone.header.problem in reason for reason in one.values("reason"))
    assert watch.look(after=5.0) is None
    beat()
    assert watch.look().fallbacks == ()


def hide_everything(folder):
    for path in folder.iterdir():
        path.unlink()


def damage_the_heartbeat(folder):
    (folder / "status.json").write_text("{")


def empty_the_heartbeat(folder):
    (folder / "status.json").write_text("[]")


def put_margins_that_cannot_be_read(folder):
    other = Snapshot.of(levels_of(), replace(HEADER, revision=9))
    LiveFolder(folder).write(other, {}, AT + timedelta(seconds=0.9))
    (folder / "levels.arrow").write_bytes(b"torn")


@pytest.mark.parametrize(
    "damage",
    [
        hide_everything, damage_the_heartbeat, empty_the_heartbeat, put_margins_that_cannot_be_read,
    ],
)  # fmt: skip
def test_a_folder_that_is_gone_or_damaged_is_silence(watched, tmp_path, damage):
    watch, beat = watched
    beat()
    assert watch.look().fallbacks == ()
    damage(tmp_path)
    assert watch.look(after=0.9) is None
    assert watch.look(after=0.2).fallbacks == CALM.symbols
    beat(Snapshot.of(levels_of(), replace(HEADER, revision=10)))
    assert watch.look().fallbacks == ()
    assert watch.reader.problem == ""


def test_a_clock_that_is_set_neither_keeps_an_engine_alive_nor_kills_it(watched):
    watch, beat = watched
    beat()
    assert watch.look().fallbacks == ()
    assert watch.look(jump=-3600.0) is None
    assert watch.look(after=1.1).fallbacks == CALM.symbols
    beat()
    assert watch.look().fallbacks == ()
    assert watch.look(jump=+3600.0) is None


def test_a_first_heartbeat_from_the_future_counts_once_another_follows(watched):
    watch, beat = watched
    watch.at += timedelta(hours=1)
    beat()
    assert watch.look(jump=-3600.0).fallbacks == CALM.symbols
    watch.at += timedelta(hours=1)
    beat(replace(CALM, header=HEADER))
    watch.at += timedelta(seconds=1)
    beat()
    assert watch.look(jump=-3600.0).fallbacks == ()


def test_margins_are_never_read_beside_the_header_of_others(tmp_path):
    folder = LiveFolder(tmp_path)
    folder.write(CALM, {}, AT)
    old = (tmp_path / "status.json").read_bytes()
    folder.write(Snapshot.of(levels_of((0.02, 0.02, 0.02)), replace(HEADER, revision=3)), {}, AT)
    (tmp_path / "status.json").write_bytes(old)
    assert folder.read().header.revision == 3


def test_a_kept_margin_is_no_less_than_the_base_schedules_and_its_tiers_join():
    levels = levels_of()
    low = levels.assign(mmr=levels["base_mmr"] * 0.5, imr=levels["imr"] * 0.5)
    made = kept(low, "so it is")
    np.testing.assert_array_equal(made["mmr"], levels["base_mmr"])
    assert (made["imr"] > made["mmr"]).all()
    for _, side in made.groupby(["symbol", "side"]):
        amounts = maintenance_amounts(side["tier_floor_usd"].tolist(), side["mmr"].tolist())
        np.testing.assert_array_equal(side["maintenance_amount"], amounts)
    same = kept(levels, "so it is")
    np.testing.assert_array_equal(same["maintenance_amount"], levels["maintenance_amount"])
    np.testing.assert_array_equal(same["mmr"], np.maximum(levels["mmr"], levels["base_mmr"]))
