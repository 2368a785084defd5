"""Alarms: raised at once, ended late, and never by a reading that nobody has."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.monitoring.monitoring_cases import START

from margincast.serving.monitoring.alarm import AlarmState, Check, advance, advance_all

CALM = timedelta(hours=3)


def check(value, *, lasting=False, subject="s", limit=1.0):
    return Check("fallback", subject, value, limit, "because", lasting=lasting)


def after_readings(values, *, lasting=False, step=timedelta(hours=1)):
    states, state = [], AlarmState()
    for number, value in enumerate(values):
        one = check(value, lasting=lasting)
        state = advance(state, one, START + number * step, clears_at=0.8, calm=CALM)
        states.append(state)
    return states


readings = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.8, 0.9, 1.0, 1.1])), max_size=20)


@settings(max_examples=40)
@given(readings)
def test_raised_only_by_a_value_above_the_limit_and_ended_only_by_lasting_calm(values):
    before = AlarmState()
    good = timedelta(0)
    for value, state in zip(values, after_readings(values), strict=True):
        if before.raised_at is None:
            assert (state.raised_at is not None) == (value is not None and value > 1.0)
        elif state.raised_at is None:
            assert value is not None
            assert value <= 0.8
            assert good >= CALM
        good = good + timedelta(hours=1) if value is not None and value <= 0.8 else timedelta(0)
        before = state


@settings(max_examples=40)
@given(readings)
def test_an_answer_that_lasts_is_not_taken_back(values):
    raised = [state.raised_at for state in after_readings(values, lasting=True)]
    first = next((number for number, at in enumerate(raised) if at is not None), len(raised))
    assert len(set(raised[first:])) <= 1
    reached = [value is not None and value >= 1.0 for value in values]
    assert first == (reached.index(True) if any(reached) else len(values))


@settings(max_examples=20)
@given(readings)
def test_looking_twice_at_one_moment_changes_nothing(values):
    state = AlarmState()
    for number, value in enumerate(values):
        at = START + timedelta(hours=number)
        state = advance(state, check(value), at, clears_at=0.8, calm=CALM)
        assert state == advance(state, check(value), at, clears_at=0.8, calm=CALM)


def test_a_value_between_keeps_the_alarm_as_it_is():
    *_, last = after_readings([1.1, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert last.raised_at == START
    *_, last = after_readings([0.9, 0.9])
    assert last.raised_at is None


def test_another_subject_starts_anew_and_what_was_not_looked_at_stays():
    raised = AlarmState(START)
    kept = Check("champion", "m", 1.0, 0.0, "none")
    states = {check(1.0).key: raised, kept.key: raised}
    found = advance_all(states, [check(0.0, subject="t")], START, clears_at=0.8, calm=CALM)
    assert found == {kept.key: raised, check(0.0, subject="t").key: AlarmState()}


def test_a_limit_of_nothing_is_passed_by_anything():
    assert check(0.0, limit=0.0).reading(0.8) == "good"
    assert check(1e-9, limit=0.0).reading(0.8) == "high"
    assert check(None, limit=0.0).reading(0.8) == "unknown"
