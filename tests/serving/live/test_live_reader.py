"""A worker sees what the engine showed, and a fallback once nobody watches."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
from tests.serving.levels_case import AT, levels_of

from margincast.margin.maintenance import maintenance_amounts
from margincast.serving.live.folder import LiveFolder
from margincast.serving.live.keeping import kept
from margincast.serving.live.reader import LiveReader
from margincast.serving.snapshot import Header, Snapshot

SECOND = timedelta(seconds=1)
HEADER = Header(3, AT, "test", "live", 2)


def test_what_the_engine_wrote_is_read_back_to_the_last_bit_once(tmp_path):
    folder = LiveFolder(tmp_path)
    reader = LiveReader(LiveFolder(tmp_path), SECOND)
    assert reader.look(AT) is None  # no engine yet
    levels = levels_of()
    folder.write(Snapshot.of(levels, HEADER), {"decisions": 1}, AT)
    shown = reader.look(AT)
    assert shown.header == HEADER
    assert shown.changed_since(Snapshot.of(levels, HEADER)) == ()
    assert reader.look(AT) is None
    read = folder.read()
    assert read.counts == {"decisions": 1}
    # no text is None in the file and NaN in the table
    numbers = levels.select_dtypes(["number", "datetimetz"]).columns.tolist()
    pd.testing.assert_frame_equal(read.levels[numbers], levels[numbers], check_dtype=False)
    assert read.levels["reason"].tolist() == levels["reason"].tolist()
    # another margin, and the same snapshot number
    folder.write(Snapshot.of(levels_of((0.02, 0.02, 0.02)), replace(HEADER, revision=3)), {}, AT)
    assert len(reader.look(AT).changed_since(shown)) == 3


def test_an_engine_that_is_gone_is_a_fallback_until_it_is_back(tmp_path):
    folder, reader = LiveFolder(tmp_path), LiveReader(LiveFolder(tmp_path), SECOND)
    calm = Snapshot.of(levels_of(), HEADER)
    folder.write(calm, {}, AT)
    assert reader.look(AT + SECOND).fallbacks == ()
    gone = reader.look(AT + SECOND + timedelta(milliseconds=1))
    assert gone.fallbacks == calm.symbols
    assert "engine stopped: no heartbeat since 2026-01-10 00:00:00 UTC" in gone.header.problem
    for symbol, sides in gone.contracts.items():
        for side, one in sides.items():
            assert one.values("mmr") == calm.contracts[symbol][side].values("mmr")
            assert all(gone.header.problem in reason for reason in one.values("reason"))
    assert reader.look(AT + 5 * SECOND) is None
    folder.write(calm, {}, AT + 6 * SECOND)
    assert reader.look(AT + 6 * SECOND).fallbacks == ()


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
