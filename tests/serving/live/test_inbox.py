from datetime import UTC, datetime

from margincast.serving.live.events import Event
from margincast.serving.live.inbox import Inbox


def event(number):
    return Event("trades", "A", {"ts": datetime(2026, 1, 1, second=number, tzinfo=UTC)})


def test_rows_leave_in_the_order_in_which_they_came_with_their_times():
    inbox = Inbox(5)
    assert inbox.put([event(1), event(2)], 10) == 0
    assert inbox.put([event(3)], 20) == 0
    assert inbox.load().oldest_us == 10
    assert inbox.take(2, 0.0) == [(10, event(1)), (10, event(2))]
    assert inbox.take(2, 0.0) == [(20, event(3))]
    assert inbox.take(2, 0.0) == []


def test_what_does_not_fit_is_refused_and_counted_and_what_waits_stays():
    inbox = Inbox(2)
    assert inbox.put([event(1), event(2), event(3)], 10) == 1
    assert inbox.put([event(4)], 30) == 1
    load = inbox.load()
    assert (load.waiting, load.dropped, load.dropped_us) == (2, 2, 30)
    assert inbox.dropped() == {("trades", "A"): 2}
    assert [one for _, one in inbox.take(9, 0.0)] == [event(1), event(2)]
