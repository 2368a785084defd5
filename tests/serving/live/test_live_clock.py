from datetime import UTC, datetime, timedelta

from margincast.serving.live.clock import ClockWatch, FeedClock, SystemClock

START = datetime(2026, 1, 1, tzinfo=UTC)


class Set:
    """A clock whose two hands are set apart."""

    time, elapsed = START, 0

    def now(self):
        return self.time

    def elapsed_us(self):
        return self.elapsed


def test_a_clock_that_is_set_is_noticed_once_and_one_that_goes_on_is_not():
    clock = Set()
    watch = ClockWatch(clock, timedelta(seconds=2))
    assert watch.look() is None
    clock.time += timedelta(seconds=3600)
    clock.elapsed += 3_600_000_000
    assert watch.look() is None
    clock.time -= timedelta(seconds=3)
    assert watch.look() == "the clock jumped by -3.0 s between two looks"
    assert watch.look() is None


def test_the_feeds_clock_is_as_late_as_its_newest_row():
    clock = FeedClock(START)
    before = clock.elapsed_us()
    clock.hear(START + timedelta(seconds=5))
    clock.hear(START + timedelta(seconds=1))
    assert clock.now() == START + timedelta(seconds=5)
    assert clock.elapsed_us() - before == 5_000_000


def test_the_machines_clock_goes_forward():
    clock = SystemClock()
    assert clock.elapsed_us() <= clock.elapsed_us()
    assert clock.now().tzinfo is UTC
