"""What is wrong with the machine and the process: clock, disk, queue, engine, and the watch itself.

Responsible for the faults that no row of the feed shows.
"""

from dataclasses import InitVar, dataclass, field
from datetime import timedelta

from margincast.core.time import format_duration
from margincast.serving.live.clock import Clock, ClockWatch
from margincast.serving.live.faults import Fault
from margincast.serving.live.folder import LiveFolder
from margincast.serving.live.inbox import Inbox
from margincast.specs.live import Watch

_MICROSECOND = timedelta(microseconds=1)


@dataclass
class Machine:
    """The state of everything that is not the feed.

    Attributes:
        watch: what is a fault.
        clock: what time it is.
        folder: that must be writable.
        inbox: whose rows must not wait for long.
        disk: why the live folder could not be written last; None where it could.
        publication: why the newest decision is not on the record; None where it is.
        stopped: why a part of the process has ended; None while all go on.
        unwatched_us: time between the last two looks, where looks are made by the clock.
    """

    watch: Watch
    clock: InitVar[Clock]
    folder: LiveFolder
    inbox: Inbox
    disk: str | None = None
    publication: str | None = None
    stopped: str | None = None
    unwatched_us: int = 0
    _answered_us: int = field(init=False)
    _clock_watch: ClockWatch = field(init=False)

    def __post_init__(self, clock: Clock) -> None:
        self._clock_watch = ClockWatch(clock, self.watch.clock_skew)
        self._answered_us = clock.elapsed_us()

    def answered(self, now_us: int) -> None:
        """Note that the engine is at work."""
        self._answered_us = now_us

    def faults(self, now_us: int) -> dict[Fault, str]:
        """Return what is wrong now."""
        faults: dict[Fault, str] = {}
        if self.publication is not None:
            faults[Fault.NOT_PUBLISHED] = self.publication
        disk = self.disk or self._too_full()
        if disk is not None:
            faults[Fault.DISK_FULL] = disk
        jumped = self._clock_watch.look()
        if jumped is not None:
            faults[Fault.CLOCK_SKEW] = jumped
        lag_us = self.watch.longest_lag // _MICROSECOND
        lag = format_duration(self.watch.longest_lag)
        load = self.inbox.load()
        if load.oldest_us is not None and now_us - load.oldest_us > lag_us:
            faults[Fault.OVERLOAD] = f"{load.waiting:,} rows wait, the oldest for more than {lag}"
        elif load.dropped_us is not None and now_us - load.dropped_us <= lag_us:
            faults[Fault.OVERLOAD] = f"{load.dropped:,} rows were dropped: no room for them"
        if self.stopped is not None:
            faults[Fault.ENGINE_STOPPED] = self.stopped
        elif now_us - self._answered_us > lag_us:
            faults[Fault.ENGINE_STOPPED] = f"the engine has not answered for more than {lag}"
        elif self.unwatched_us > lag_us:
            # readers took the old heartbeat for a fallback, and must not see it end at once
            faults[Fault.ENGINE_STOPPED] = f"nobody watched for more than {lag}"
        return faults

    def _too_full(self) -> str | None:
        try:
            free = self.folder.free_bytes()
        except OSError as error:
            return f"the live folder cannot be found: {error.strerror}"
        if free >= self.watch.least_free_bytes:
            return None
        return f"{free:,} bytes free; at least {self.watch.least_free_bytes:,} are needed"
