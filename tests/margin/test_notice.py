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


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(1, 12),
)
def test_it_is_the_latest_publication_whose_time_has_come(counts, rise, fall):
    of = policy(notice_of_rise=f"{rise}h", notice_of_fall=f"{fall}h")
    rates = [count / 100 for count in counts]
    found, effective = [], []
    for hour, rate in enumerate(rates):
        due = [n for n, at in enumerate(effective) if at <= hour]
        now = rates[due[-1]] if due else None
        wait = 0 if now is None or rate == now else rise if rate > now else fall
        effective.append(hour + wait)
        found.append(rates[[n for n, at in enumerate(effective) if at <= hour][-1]])
    assert rates_in_force(rates, of) == found
