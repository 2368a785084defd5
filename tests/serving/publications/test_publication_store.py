"""Numbers follow one another, what was published never changes, and whoever reads sees it whole."""

import json
import os
import shutil
import tempfile
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.publications.publication_case import (
    AT,
    ORIGIN,
    POLICY,
    SCHEDULE,
    SYMBOLS,
    chain_of_publications,
    processes,
    publish,
    race,
    scored,
)

from margincast.core.digest import digest_of_file
from margincast.core.errors import InputError, PublicationError, PublishedMeanwhileError
from margincast.margin.override import Override
from margincast.serving.publications import tables
from margincast.serving.publications.reverting import revert
from margincast.serving.publications.store import PublicationStore, is_published, store_of
from margincast.serving.publications.verifying import damages


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three hours, published; tests that change it copy it."""
    folder = tmp_path_factory.mktemp("three") / "perp-8h"
    chain_of_publications(folder)
    return folder


@pytest.fixture
def copied(three, tmp_path):
    folder = shutil.copytree(three, tmp_path / "perp-8h")
    for path in folder.rglob("*"):
        path.chmod(0o755)
    return folder


def test_a_publication_says_who_when_why_and_from_what(tmp_path):
    store = PublicationStore(tmp_path / "p")
    assert store.latest() is None
    override = Override(
        7, "raise", 0.08, "BTCUSDT", "long", None, "withdrawals", "risk", AT, AT + timedelta(days=1)
    )
    made = publish(
        store, scored(by_hand=(override,)), overrides=(override,), bundle_digest="b" * 64,
        now=AT + timedelta(minutes=2),
    )  # fmt: skip
    found = PublicationStore(store.folder).latest()
    assert found == made
    assert (found.number, found.by, found.reason, found.at) == (1, "anna", "nightly", AT)
    assert found.published_at == AT + timedelta(minutes=2)
    assert found.origin == ORIGIN
    assert found.record.bundle_digest == "b" * 64
    assert found.record.data_as_of == AT
    assert (found.policy, found.schedule) == (POLICY, SCHEDULE)
    assert found.overrides == (override,)
    assert found.symbols == SYMBOLS
    assert (found.record.contracts, found.record.levels) == (3, len(found.levels))


def test_levels_are_read_back_as_they_were_published(tmp_path):
    made = scored()
    found = publish(PublicationStore(tmp_path / "p"), made).levels
    assert list(found.columns) == list(made.levels.columns)
    for column in found:
        values, expected = found[column], made.levels[column]
        missing = expected.isna().to_numpy()
        assert (values.isna().to_numpy() == missing).all()
        assert values[~missing].tolist() == expected[~missing].tolist()


def test_what_levels_were_made_of_is_read_back_to_the_last_bit(three):
    store = PublicationStore(three)
    past = store.read(2)
    made = scored(2, past=past.remembered)
    found = store.read(3)
    assert found.inputs.symbols == made.inputs.symbols
    for name in ("forecasts", "costs", "data_as_of"):
        np.testing.assert_array_equal(getattr(found.inputs, name), getattr(made.inputs, name))
    for read, written in (
        (found.inputs.background.memory, made.inputs.background.memory),
        (found.after.memory, made.after.memory),
    ):
        assert read.at == written.at
        for name in ("buffer", "limited", "limited_at", "published"):
            np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
        assert [at for at, _ in read.recent] == [at for at, _ in written.recent]
        for (_, rates), (_, expected) in zip(read.recent, written.recent, strict=True):
            np.testing.assert_array_equal(rates, expected)


def test_a_large_table_is_cut_between_contracts_and_read_back_whole(monkeypatch):
    monkeypatch.setattr(tables, "ROWS_A_PART", 20)
    levels = scored(symbols=tuple(f"C{number:02}" for number in range(9))).levels
    files = tables.levels_files(levels)
    parts = [tables.read_levels([content]) for content in files.values()]
    assert len(parts) > 2
    assert sum(part["symbol"].nunique() for part in parts) == 9
    assert pd.concat(parts)["mmr"].tolist() == levels["mmr"].tolist()
    assert tables.levels_files(levels) == files


def test_publications_are_numbered_and_chained(three):
    store = PublicationStore(three)
    records = store.records()
    assert [record.number for record in records] == [1, 2, 3]
    assert sorted(path.name for path in three.iterdir() if path.is_dir()) == [
        "000001", "000002", "000003",
    ]  # fmt: skip
    for before, record in pairwise(records):
        assert record.previous_digest == before.digest
    assert store.before(AT + timedelta(hours=2)).number == 2
    assert store.before(AT) is None


def test_a_margin_goes_on_from_the_one_published_before(three):
    store = PublicationStore(three)
    before, after = store.read(1), store.read(2)
    assert after.levels["mmr_before"].tolist() == before.levels["mmr"].tolist()
    # the rise within the hour is limited
    assert "speed limit" in set(after.levels["binding_rule"])
    limit = before.after.memory.limited * (1.0 + POLICY.speed.rise_per_hour)
    ok = (after.levels["status"] == "ok").to_numpy()
    assert (after.after.memory.limited[ok] <= limit[ok] * (1 + 1e-12)).all()


def test_the_same_margins_are_known_to_be_published(three):
    store = PublicationStore(three)
    last = store.latest()
    again = scored(2, past=store.read(2).remembered)
    assert is_published(last, again, POLICY, SCHEDULE, ())
    other = POLICY.model_copy(update={"description": "another"})
    assert not is_published(last, again, other, SCHEDULE, ())
    assert not is_published(last, scored(2, seed=1), POLICY, SCHEDULE, ())


def test_of_two_who_follow_the_same_number_one_is_told_that_it_was_taken(copied):
    one, other = PublicationStore(copied), PublicationStore(copied)
    follows = one.last_number
    publish(one, scored(3), follows=follows, reason="calm")
    message = r"number 000004 was taken by anna at .* \(calm\); nothing was published: score again"
    with pytest.raises(PublishedMeanwhileError, match=message):
        publish(other, scored(3, seed=1), follows=follows)
    assert other.last_number == 4
    assert other.latest().reason == "calm"


def test_of_several_processes_at_once_one_wins_and_the_others_are_told(tmp_path):
    context = processes()
    barrier, answers = context.Barrier(4), context.Queue()
    publishers = [
        context.Process(target=race, args=(tmp_path / "p", barrier, answers, name))
        for name in "abcd"
    ]
    for process in publishers:
        process.start()
    told = dict(answers.get(timeout=60) for _ in publishers)
    for process in publishers:
        process.join()
    (winner,) = (name for name, answer in told.items() if answer == 1)
    assert all(f"taken by {winner} at" in told[name] for name in set(told) - {winner})
    store = PublicationStore(tmp_path / "p")
    assert [record.by for record in store.records()] == [winner]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: flip(p / "000002" / "levels" / "00000.parquet"), "000002 of perp-8h: levels/"),
        (lambda p: flip(p / "000002" / "after.parquet"), "after.parquet was changed"),
        (lambda p: flip(p / "000002" / "specs" / "policy.json"), "policy.json was changed"),
        (lambda p: flip(p / "000002" / "manifest.json"), "publication 000002: manifest.json"),
        (lambda p: (p / "000002" / "after.parquet").unlink(), "after.parquet cannot be read"),
        (lambda p: (p / "000002" / "more.txt").touch(), "more.txt is not of the publication"),
        (lambda p: rewrite(p, 2), "000002 of perp-8h: it is not the one that was published"),
        (lambda p: rename(p, 1, 2), "000002 in .* says it is 000001"),
    ],
)
def test_a_changed_publication_is_refused_with_its_name_and_the_others_are_read(
    copied, damage, message
):
    damage(copied)
    store = PublicationStore(copied)
    with pytest.raises(PublicationError, match=message):
        store.read(2)
    assert store.read(3).number == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: shutil.rmtree(p / "000003"), "000003 is missing"),
        (lambda p: shutil.rmtree(p / "000002"), "000002 is missing"),
        (lambda p: (p / "head.json").unlink(), "head.json is missing"),
        (lambda p: (p / "head.json").write_text("{}"), "head.json is damaged"),
        (lambda p: rewrite(p, 3), "000003 in .* is not the one that head.json names"),
        (lambda p: rewrite(p, 1), "000002 in .* does not follow the one before it"),
    ],
)
def test_a_broken_history_is_refused_and_nothing_is_published_on_it(copied, damage, message):
    damage(copied)
    with pytest.raises(PublicationError, match=message):
        PublicationStore(copied).records()


def test_every_damaged_publication_is_found(copied):
    """Also one that nothing rests on any more, and in a file that the chain does not look at."""
    assert damages(PublicationStore(copied)) == ()
    flip(copied / "000001" / "levels" / "00000.parquet")
    flip(copied / "000002" / "inputs" / "rows.parquet")
    assert publish(PublicationStore(copied), scored(3)).number == 4
    first, second = damages(PublicationStore(copied))
    assert "000001 of perp-8h: levels/00000.parquet was changed" in first
    assert "000002 of perp-8h: inputs/rows.parquet was changed" in second


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: rewrite(p, 1), "000001 of perp-8h: it is not the one that was published"),
        (lambda p: shutil.rmtree(p / "000003"), "000003 is missing"),
        (lambda p: (p / "head.json").write_text("{}"), "head.json is damaged"),
    ],
)
def test_a_broken_chain_is_found(copied, damage, message):
    damage(copied)
    assert any(message in problem for problem in damages(PublicationStore(copied)))


def test_on_a_damaged_last_publication_nothing_is_published(copied):
    flip(copied / "000003" / "levels" / "00000.parquet")
    with pytest.raises(PublicationError, match="000003"):
        publish(PublicationStore(copied), scored(4))
    assert not (copied / "000004").exists()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewrite(folder, number):
    """Make a publication anew with all its digests right, as if by somebody with the code."""
    other = shutil.copytree(folder, folder.parent / f"other-{number}")
    for later in range(number, 4):
        shutil.rmtree(other / f"{later:06}")
    (other / "head.json").unlink()
    if number > 1:
        digest = PublicationStore(folder).read(number - 1).record.digest
        (other / "head.json").write_text(json.dumps({"number": number - 1, "digest": digest}))
    store = PublicationStore(other)
    made = publish(store, scored(number - 1, seed=9))
    shutil.rmtree(folder / made.name)
    shutil.copytree(made.folder, folder / made.name)


def rename(folder, number, to):
    shutil.rmtree(folder / f"{to:06}")
    shutil.copytree(folder / f"{number:06}", folder / f"{to:06}")


def test_a_head_that_lags_behind_is_no_damage(copied):
    """Its writer was killed between the folder and the head."""
    head = (copied / "head.json").read_bytes()
    publish(PublicationStore(copied), scored(3))
    (copied / "head.json").chmod(0o644)
    (copied / "head.json").write_bytes(head)
    store = PublicationStore(copied)
    assert store.last_number == 4
    assert len(store.records()) == 4
    assert publish(store, scored(4)).number == 5


def test_what_a_killed_publisher_left_is_not_seen_and_is_cleared_away(copied):
    left = copied / ".new-000004-1-abcd"
    shutil.copytree(copied / "000003", left)
    store = PublicationStore(copied)
    assert store.last_number == 3
    assert publish(store, scored(3)).number == 4
    assert not left.exists()


def test_when_the_disk_is_full_nothing_is_published_and_nothing_is_left(copied, monkeypatch):
    store = PublicationStore(copied)
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"000004 could not be written .*No space left on device"):
        publish(store, scored(3))
    assert sorted(path.name for path in copied.iterdir() if path.is_dir()) == [
        "000001", "000002", "000003",
    ]  # fmt: skip
    assert PublicationStore(copied).latest().number == 3
    assert publish(store, scored(3)).number == 4


def test_margins_are_not_published_backwards(three):
    with pytest.raises(InputError, match=r"of 2026-03-01 13:00 UTC, publication 000003 is of"):
        publish(PublicationStore(three), scored(1))


def test_margins_are_not_published_ahead_of_their_time(copied):
    """Whatever followed would be refused until that moment has come."""
    store = PublicationStore(copied)
    clock = AT + timedelta(hours=4)
    with pytest.raises(InputError, match=r"of 2026-03-01 17:00 UTC, but it is 2026-03-01 16:00"):
        publish(store, scored(5), now=clock)
    assert publish(store, scored(4), now=clock - timedelta(seconds=59)).number == 4


def test_a_publication_ahead_of_its_time_is_come_back_from(copied):
    """A clock ran ahead when 000003 was made, of 14:00; it was mended at 12:30."""
    store = PublicationStore(copied)
    now = AT + timedelta(minutes=30)
    with pytest.raises(InputError, match=r"000003 .* not come yet: a clock was wrong"):
        publish(store, scored(0), now=now)
    back = revert(store, 2, at=now, overrides=(), by="bo", reason="clock", now=now)
    assert (back.number, back.at) == (4, now)
    memory = back.after.memory
    moment = np.datetime64(now.replace(tzinfo=None), "us")
    assert memory.at == moment
    assert not (memory.limited_at > moment).any()
    assert all(at <= moment for at, _ in memory.recent)
    # margins of a moment later follow it, within the limits
    after = store.before(AT + timedelta(hours=1))
    assert after.number == 4
    made = scored(1, past=after.remembered)
    assert publish(store, made, now=AT + timedelta(hours=1)).number == 5
    assert damages(PublicationStore(copied)) == ()


def test_a_score_of_the_same_moment_does_not_undo_a_revert(copied):
    store = PublicationStore(copied)
    revert(store, 1, at=None, overrides=(), by="bo", reason="a bad feed")
    with pytest.raises(InputError, match="by which bo went back to 000001"):
        publish(store, scored(2, seed=3))
    assert publish(store, scored(3)).number == 5


def test_a_table_that_follows_what_is_not_there_is_refused(three):
    with pytest.raises(InputError, match="follows publication 9, but 3 is the last one"):
        publish(PublicationStore(three), scored(4), follows=9)


@pytest.mark.parametrize("field", ["by", "reason"])
def test_a_publication_without_a_name_or_reason_is_refused(three, field):
    with pytest.raises(InputError, match=f"must say {field}"):
        publish(PublicationStore(three), scored(4), **{field: " "})


def test_a_number_that_is_not_there_is_refused(three, tmp_path):
    with pytest.raises(InputError, match=r"no publication 4 .*there are 1 to 3"):
        PublicationStore(three).read(4)
    with pytest.raises(InputError, match="nothing was published yet"):
        PublicationStore(tmp_path).read(1)


def test_a_policy_whose_name_is_no_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="its name becomes a folder"):
        store_of(tmp_path, "../perp")


def test_a_publication_cannot_be_written_to_by_mistake(three):
    for path in (three / "000001").rglob("*.parquet"):
        assert path.stat().st_mode & 0o222 == 0


@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5))
def test_whatever_is_tried_numbers_have_no_gap_and_nothing_published_changes(acts):
    """A publisher that lags behind is refused; what stands keeps its bytes."""

    with tempfile.TemporaryDirectory() as place:
        store = PublicationStore(Path(place) / "p")
        known: dict[str, str] = {}
        expected = 0
        for hour, (lag, fresh) in enumerate(acts):
            reader = PublicationStore(store.folder) if fresh else store
            follows = max(expected - lag, 0)
            made = scored(hour, symbols=("BTCUSDT", "XRPUSDT"))
            if follows == expected:
                assert publish(reader, made, follows=follows).number == expected + 1
                expected += 1
            else:
                with pytest.raises(PublishedMeanwhileError):
                    publish(reader, made, follows=follows)
            assert reader.last_number == expected
            found = {
                str(path): digest_of_file(path)
                for path in store.folder.glob("0*/**/*")
                if path.is_file()
            }
            assert known.items() <= found.items()
            known = found
        assert [record.number for record in store.records()] == list(range(1, expected + 1))
