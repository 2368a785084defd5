"""Whatever happens in whatever order, margins fall back at once and never below what stood."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.levels_case import AT, CHECKOUT, POLICY, SYMBOLS
from tests.serving.live.session_case import MINUTE, base_rates, session_of, shown

from margincast.core.errors import InputError, PublicationError
from margincast.serving.live.faults import EVERYTHING, Fault
from margincast.serving.live.folder import LiveFolder
from margincast.serving.publications.store import PublicationStore
from margincast.specs.loading import load_spec
from margincast.specs.serving import MarginPolicy

BASE = base_rates()
QUIET_SECONDS = 10.0
SUBJECTS = ("SIM-BTC", EVERYTHING)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("fault"), st.sampled_from(SUBJECTS)),
        st.tuples(st.just("calm"), st.sampled_from(SUBJECTS)),
        st.tuples(st.just("wait"), st.sampled_from([0.2, 4.0, 11.0, 61.0])),
        st.tuples(st.just("forecast"), st.sampled_from([0.001, 0.02, 0.2, 3.0, float("nan")])),
        st.tuples(st.just("publishing fails"), st.booleans()),
    ),
    max_size=25,
)


class Record:
    """What was published last; fails when it is told to."""

    def __init__(self):
        self.fails, self.number, self.rates = False, 0, None

    def __call__(self, scored, _):
        if self.fails:
            raise InputError("the disk is full")
        self.number += 1
        levels = scored.levels
        keys = zip(levels["symbol"], levels["side"], levels["tier"], strict=True)
        self.rates = dict(zip(keys, levels["mmr"], strict=True))
        return self.number


class History:
    """A session, and what is wrong with its feed and machine."""

    def __init__(self, folder):
        self.record = Record()
        self.session = session_of(folder, publish=self.record)
        self.record.rates = shown(self.session)
        self.faulty, self.faulty_at = set(), {}

    def step(self, what, value):
        """Let something happen."""
        if what == "wait":
            self.session.clock.turn(value)
        elif what == "fault":
            self.faulty.add(value)
        elif what == "calm":
            self.faulty.discard(value)
        elif what == "forecast":
            self.session.engine.forecast = value
        else:
            self.record.fails = value
        now = self.session.clock.elapsed_us()
        self.faulty_at |= dict.fromkeys(self.faulty, now)
        everything = {Fault.STORE_DOWN: "no answer"} if EVERYTHING in self.faulty else {}
        self.session.champion.faults = everything
        crossed(self.session, *self.faulty)

    def falls(self, symbol):
        """Say whether a contract must be in fallback now."""
        return bool({symbol, EVERYTHING} & self.faulty)

    def quiet_us(self, symbol):
        """Return the time since the last fault of a contract, or of everything."""
        last = max(self.faulty_at.get(one, -1e9) for one in (symbol, EVERYTHING))
        return self.session.clock.elapsed_us() - last


@settings(max_examples=15, deadline=None)
@given(steps=steps)
def test_no_history_takes_a_margin_below_floor_base_or_what_was_published(tmp_path_factory, steps):
    history = History(tmp_path_factory.mktemp("live"))
    session = history.session
    for step in steps:
        before = shown(session)
        history.step(*step)
        after, status = shown(session), shown(session, "status")
        for key, mmr in after.items():
            if history.falls(key[0]):  # at this very look
                assert status[key] == "fallback"
                assert mmr >= before[key]
            if status[key] == "fallback":
                assert mmr >= history.record.rates[key]
        session.work(0.0)
        rates = shown(session)
        for key, status in shown(session, "status").items():
            assert rates[key] >= max(BASE[key], POLICY.limits.mmr_floor)
            assert status == "fallback" or history.quiet_us(key[0]) >= QUIET_SECONDS * 1e6


def crossed(session, *symbols):
    """Show a crossed book of some contracts, and sound ones of the others."""
    for symbol, one in session.sightings._seen.items():
        one.shown = {("book", Fault.CROSSED_BOOK): "6 above 5"} if symbol in symbols else {}
    session.machine.answered(session.clock.elapsed_us())
    session.look()


def recovered(session):
    """Let the quiet time pass."""
    session.clock.turn(QUIET_SECONDS)
    crossed(session)
    session.work(0.0)
    crossed(session)
    session.work(0.0)


def test_a_contract_that_came_back_higher_falls_back_no_lower(tmp_path):
    session = session_of(tmp_path)
    low = shown(session)
    crossed(session, "SIM-BTC")
    session.engine.forecasts(AT, 0.2)
    recovered(session)
    high = shown(session)
    assert all(high[key] > low[key] for key in high if key[0] == "SIM-BTC")
    crossed(session, "SIM-BTC")
    assert shown(session) == high
    assert {one for key, one in shown(session, "status").items() if key[0] == "SIM-BTC"} == {
        "fallback"
    }


def test_a_fault_that_ends_while_a_decision_is_made_still_ends_its_fallback(tmp_path):
    session = session_of(tmp_path)
    crossed(session, "SIM-BTC")
    session.clock.turn(50)
    reasons = session.keeper.reasons(SYMBOLS)
    decision = session.engine.decide(reasons)
    crossed(session)  # the watchdog finds it over
    session._show(decision.scored, reasons, ())
    assert "fallback" in shown(session, "status").values()
    crossed(session)
    session.work(0.0)
    assert set(shown(session, "status").values()) == {"ok"}


# --- publications -------------------------------------------------------------------------------


def minute(session):
    """Take the next decision, at its time."""
    session.clock.turn(60.0)
    session.machine.answered(session.clock.elapsed_us())
    session.work(0.0)
    session.look()


def published_elsewhere(store, tmp_path, forecast, at):
    """Publish what another process made."""
    other = session_of(tmp_path / f"other-{at:%M}", store=store)
    other.catch_up()
    other.engine.forecasts(at, forecast)
    made = other.engine.remake(at, dict.fromkeys(SYMBOLS, ""))
    return other.publish(made, ()), made.levels


def folder(path):
    path.mkdir(exist_ok=True)
    return path


def test_levels_on_the_board_are_those_on_the_record_when_somebody_was_faster(tmp_path):
    store = PublicationStore(tmp_path / "store")
    folder(tmp_path / "other-01")
    slow = ["speed.rise_per_hour=0.5", "speed.rise_per_day=20.0", "speed.fall_half_life=6h"]
    policy = load_spec(CHECKOUT / "serving" / "demo.toml", MarginPolicy, slow)
    session = session_of(folder(tmp_path / "one"), store=store, policy=policy)
    minute(session)
    assert store.last_number == 1
    session._catches_up_us = 2**62  # it does not notice by itself
    number, _ = published_elsewhere(store, tmp_path, 0.08, AT + MINUTE)
    assert number == 2
    minute(session)
    latest = store.latest()
    assert (latest.number, latest.record.by) == (3, "engine")
    keys = zip(latest.levels["symbol"], latest.levels["side"], latest.levels["tier"], strict=True)
    assert dict(zip(keys, latest.levels["mmr"], strict=True)) == shown(session)
    # half an hour's fall at the most from what the other one published
    there = store.read(2).levels
    assert (latest.levels["mmr"] >= 0.9 * there["mmr"]).all()
    assert session.keeper.board.current.header.number == 3


def test_what_somebody_publishes_is_gone_on_from_at_once_by_day_and_after_a_start(tmp_path):
    store = PublicationStore(tmp_path / "store")
    folder(tmp_path / "other-00")
    session = session_of(folder(tmp_path / "one"), store=store)
    number, levels = published_elsewhere(store, tmp_path, 0.08, AT + timedelta(seconds=30))
    session.clock.turn(31.0)
    session.work(0.0)
    assert session.keeper.board.current.header.number == number == 1
    crossed(session, EVERYTHING, *SYMBOLS)
    keys = zip(levels["symbol"], levels["side"], levels["tier"], strict=True)
    assert shown(session) == dict(zip(keys, levels["mmr"], strict=True))
    again = session_of(folder(tmp_path / "two"), store=store)
    again.catch_up()
    crossed(again, *SYMBOLS)
    assert shown(again) == shown(session)


def test_publications_that_cannot_be_read_or_written_are_a_fallback_and_no_end(tmp_path):
    session = session_of(tmp_path)

    def broken(*_):
        raise PublicationError("000003 was changed")

    session.caught_up, session.publish = broken, broken
    session.work(0.0)
    assert session.look().of("A").reason == "not published: publications cannot be read"
    session.caught_up = lambda: None
    session.clock.turn(1.0)
    minute(session)
    assert session.look().of("A").fault is Fault.NOT_PUBLISHED

    def full(*_):
        raise OSError(28, "No space left on device")

    session.publish, before = full, shown(session)
    session.engine.forecast = 0.001
    minute(session)
    assert session.look().of("A").fault is Fault.NOT_PUBLISHED
    assert shown(session) == before  # what is not on the record is not in force
    session.publish = lambda *_: 7
    minute(session)
    recovered(session)
    assert set(shown(session, "status").values()) == {"ok"}


# --- starts, stops and threads ------------------------------------------------------------------


def test_a_new_start_ends_no_fallback(tmp_path):
    session = session_of(tmp_path)
    crossed(session, "SIM-BTC")
    before = LiveFolder(tmp_path).status()
    before.counts["fallbacks"]["GONE"] = {"fault": "stale feed", "reason": "of another policy"}
    again = session_of(tmp_path, before=before)
    assert set(again.verdict.fallbacks) == {EVERYTHING, "SIM-BTC"}
    assert set(shown(again, "status").values()) == {"fallback"}
    assert "started again" in again.keeper.board.current.header.problem
    crossed(again)
    again.work(0.0)
    assert set(shown(again, "status").values()) == {"fallback"}
    recovered(again)
    assert set(shown(again, "status").values()) == {"ok"}


def test_a_process_that_was_stopped_waits_before_it_is_believed_again(tmp_path):
    session = session_of(tmp_path)
    session.clock.turn(3.0)
    session.machine.answered(session.clock.elapsed_us())  # the engine wakes first
    session.machine.unwatched_us = 3_000_000
    assert session.look().of("A").reason == "engine stopped: nobody watched for more than 1s"
    session.machine.unwatched_us = 0
    recovered(session)
    assert set(shown(session, "status").values()) == {"ok"}


@pytest.mark.parametrize("name", ["engine", "watchdog", "champion"])
def test_a_thread_that_ends_is_a_fallback_and_ends_the_session(tmp_path, name):
    session, said = session_of(tmp_path), []
    session.told = said.append

    def broken():
        raise ZeroDivisionError("by nothing")

    session._guarded(name, broken)
    assert session.look().of("A").reason == f"engine stopped: the {name} stopped: ZeroDivisionError"
    assert "by nothing" in said[0]


def test_a_live_folder_that_is_gone_is_a_fallback_and_comes_back(tmp_path):
    session = session_of(folder(tmp_path / "live"))
    session.look()
    for path in (tmp_path / "live").iterdir():
        path.unlink()
    (tmp_path / "live").rmdir()
    assert session.look().of("A").fault is Fault.DISK_FULL
    folder(tmp_path / "live")
    session.look()
    recovered(session)
    assert set(shown(session, "status").values()) == {"ok"}


def test_one_engine_writes_to_a_folder(tmp_path):
    first = LiveFolder(tmp_path)
    first.prepare()
    with pytest.raises(InputError, match="another live engine"):
        LiveFolder(tmp_path).prepare()
    del first


def test_a_heartbeat_that_is_damaged_is_said_to_be(tmp_path):
    session = session_of(tmp_path)
    session.look()
    assert LiveFolder(tmp_path).status().beat == AT
    (tmp_path / "status.json").write_text("")
    with pytest.raises(InputError, match="damaged"):
        LiveFolder(tmp_path).status()
