"""The watchdog falls back at once and comes back late: stated as properties of any history."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.serving.live.faults import EVERYTHING, Fault
from margincast.serving.live.watchdog import Watchdog
from margincast.specs.live import Recovery

SECOND = 1_000_000
SUBJECTS = ("A", "B", EVERYTHING)


def recovery(quiet=10, decisions=1):
    return Recovery(quiet=timedelta(seconds=quiet), good_decisions=decisions)


looks = st.lists(
    st.tuples(
        st.dictionaries(
            st.sampled_from(SUBJECTS),
            st.dictionaries(st.sampled_from(Fault), st.just("so it is"), max_size=2),
        ),
        st.integers(0, 4 * SECOND),  # time since the look before
        st.sets(st.sampled_from(SUBJECTS[:2])),  # good decisions
    ),
    max_size=60,
)


@settings(max_examples=40)
@given(looks=looks, quiet=st.integers(1, 8), decisions=st.integers(0, 2))
def test_any_history_falls_at_once_and_returns_after_quiet_and_good_decisions(
    looks, quiet, decisions
):
    dog, now = Watchdog(recovery(quiet, decisions)), 0
    clean_since = dict.fromkeys(SUBJECTS, 0)
    decided = dict.fromkeys(SUBJECTS, 0)
    down = set()
    for faults, step, good in looks:
        now += step
        verdict = dog.look(faults, now, good)
        for subject in SUBJECTS:
            if faults.get(subject):
                assert subject in verdict.fallbacks
                assert (subject in verdict.fell) == (subject not in down)
                clean_since[subject], decided[subject] = now, 0
                down.add(subject)
                continue
            decided[subject] += subject in good
            waited = now - clean_since[subject] >= quiet * SECOND
            enough = subject == EVERYTHING or decided[subject] >= decisions
            returns = subject in down and waited and enough
            assert (subject in verdict.recovered) == returns
            down -= {subject} if returns else set()
        assert set(verdict.fallbacks) == down


@settings(max_examples=40)
@given(looks=looks, quiet=st.integers(1, 8))
def test_no_flapping_a_subject_turns_at_most_once_a_quiet_time(looks, quiet):
    dog, now = Watchdog(recovery(quiet, 0)), 0
    fell_at = {}
    for faults, step, good in looks:
        now += step
        verdict = dog.look(faults, now, good)
        for subject in verdict.fell:
            fell_at[subject] = now
        for subject in verdict.recovered:
            assert now - fell_at[subject] >= quiet * SECOND


def test_the_most_telling_fault_is_shown_and_the_last_words_stand_until_recovery():
    dog = Watchdog(recovery())
    both = {"A": {Fault.SPIKE: "9 beside 5", Fault.CROSSED_BOOK: "6 above 5"}}
    assert dog.look(both, 0).of("A").reason == "crossed book: 6 above 5 (and 1 more)"
    later = dog.look({}, 3 * SECOND)
    assert later.of("A").fault is Fault.CROSSED_BOOK
    assert later.of("B") is None


def test_a_fault_of_everything_is_every_contracts():
    verdict = Watchdog(recovery()).look({EVERYTHING: {Fault.DISK_FULL: "3 bytes free"}}, 0)
    assert verdict.of("A").reason == verdict.of("B").reason == "disk full: 3 bytes free"
