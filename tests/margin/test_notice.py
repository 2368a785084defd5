"""Notice: which rate is in force when."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from margincast.margin.notice import InForce
from margincast.specs.loading import load_spec
from margincast.specs.serving import MarginPolicy, Publication

SERVING = Path(__file__).resolve().parents[2] / "serving"
START = np.datetime64("2024-01-01T00:00", "us")
HOUR = np.timedelta64(1, "h")
NO = np.array([False])


def policy(**notice):
    shipped = load_spec(SERVING / "perp-8h.toml", MarginPolicy)
    given_notice = Publication.model_validate({"every": "1h", "hold": 0.0, **notice})
    return shipped.model_copy(update={"publication": given_notice})


def rates_in_force(rates, of):
    state, found = InForce.blank(1), []
    for hour, rate in enumerate(rates):
        state = state.publish(np.array([rate]), START + hour * HOUR, of, at_once=NO)
        found.append(float(state.mmr[0]))
    return found


def test_without_notice_every_rate_is_in_force_at_once():
    assert rates_in_force([0.05, 0.04, 0.08], policy()) == [0.05, 0.04, 0.08]


def test_a_rise_and_a_fall_wait_for_their_own_notice():
    of = policy(notice_of_rise="1h", notice_of_fall="3h")
    assert rates_in_force([0.05, 0.08, 0.08, 0.04, 0.04, 0.04, 0.04], of) == [
        0.05, 0.05, 0.08, 0.08, 0.08, 0.08, 0.04,
    ]  # fmt: skip


def test_what_comes_into_force_makes_earlier_announcements_void():
    of = policy(notice_of_rise="1h", notice_of_fall="5h")
    # the fall of hour 1 would come at hour 6, but the rise of hour 3 came before it
    assert rates_in_force([0.05, 0.04, 0.04, 0.08, 0.08, 0.08, 0.08, 0.08], of) == [
        0.05, 0.05, 0.05, 0.05, 0.08, 0.08, 0.08, 0.08,
    ]  # fmt: skip


def test_a_fallback_waits_for_nothing():
    of = policy(notice_of_rise="8h", notice_of_fall="2d")
    state = InForce.blank(1).publish(np.array([0.05]), START, of, at_once=NO)
    state = state.publish(np.array([0.09]), START + HOUR, of, at_once=~NO)
    assert state.mmr.tolist() == [0.09]


def test_an_announced_fall_goes_no_lower_than_what_is_published_since():
    of = policy(notice_of_fall="3h")
    # the fall to 4 % of hour 1 comes at hour 4, when 6 % is asked for since hour 2
    assert rates_in_force([0.08, 0.04, 0.06, 0.06, 0.06, 0.06], of) == [
        0.08, 0.08, 0.08, 0.08, 0.06, 0.06,
    ]  # fmt: skip


def test_an_announced_rise_goes_no_higher_than_what_is_published_since():
    of = policy(notice_of_rise="2h")
    assert rates_in_force([0.04, 0.08, 0.05, 0.05], of) == [0.04, 0.04, 0.04, 0.05]


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(1, 12),
)
def test_a_loop_over_announcements_says_the_same(counts, rise, fall):
    of = policy(notice_of_rise=f"{rise}h", notice_of_fall=f"{fall}h")
    in_force, waiting, expected = None, [], []
    for hour, rate in enumerate(count / 100 for count in counts):
        if in_force is not None:
            waiting = [(due, sorted((earlier, rate, in_force))[1]) for due, earlier in waiting]
        due = [place for place, (at, _) in enumerate(waiting) if at == hour]
        if due:
            in_force, waiting = waiting[due[-1]][1], waiting[due[-1] + 1 :]
        if in_force is None or rate == in_force:
            in_force, waiting = rate, []
        else:
            waiting.append((hour + (rise if rate > in_force else fall), rate))
        expected.append(in_force)
    assert rates_in_force([count / 100 for count in counts], of) == expected


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5)), min_size=1, max_size=40),
    st.integers(0, 8),
    st.integers(0, 8),
)
def test_tiers_keep_their_order_and_rates_in_force_follow_the_published_ones(moves, rise, fall):
    given_notice = {"notice_of_rise": f"{rise}h", "notice_of_fall": f"{fall}h"}
    of = policy(**{name: value for name, value in given_notice.items() if value != "0h"})
    state = InForce.blank(2)
    for hour, (low, more) in enumerate(moves):
        rates, before = np.array([low, low + more]) / 100, state.mmr
        state = state.publish(rates, START + hour * HOUR, of, at_once=np.zeros(2, dtype=bool))
        assert state.mmr[0] <= state.mmr[1]
        # a rate in force moves towards what is published now, and not beyond it
        fell, rose = state.mmr < before, state.mmr > before
        assert (state.mmr[fell] >= rates[fell]).all()
        assert (state.mmr[rose] <= rates[rose]).all()
