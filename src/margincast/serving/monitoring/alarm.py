"""Alarms: a reading against its limit, raised at once and ended late.

Responsible for a person being told once, and not every hour that a value passes its limit and
comes back. An alarm is raised at the limit, and ends when its reading has stayed below a share of
the limit for a time. What nobody can read is no sign that all is well.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from margincast.specs.monitor import AlarmName

Reading = Literal["high", "between", "good", "unknown"]


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        alarm: which alarm it may raise.
        subject: what it is about; of another subject the alarm starts anew.
        value: what was read; None where it cannot be told.
        limit: value at which the alarm is raised; above zero, or zero where anything above is one.
        reason: what was found, in words.
        lasting: whether the alarm stays until the subject changes: the answer of a test is not
            taken back by what comes later.
    """

    alarm: AlarmName
    subject: str
    value: float | None
    limit: float
    reason: str
    lasting: bool = False

    @property
    def key(self) -> str:
        """What the alarm's state is kept under."""
        return f"{self.alarm}: {self.subject}"

    def reading(self, clears_at: float) -> Reading:
        """Say where the value lies; at ``clears_at`` times the limit it is good again."""
        if self.value is None:
            return "unknown"
        if self.value > self.limit or (self.lasting and self.value == self.limit):
            return "high"
        return "good" if self.value <= clears_at * self.limit else "between"


@dataclass(frozen=True)
class AlarmState:
    """Whether an alarm is raised.

    Attributes:
        raised_at: since when; None if it is not.
        good_since: since when its reading has been good while it is raised.
    """

    raised_at: datetime | None = None
    good_since: datetime | None = None


def advance(
    state: AlarmState, check: Check, at: datetime, *, clears_at: float, calm: timedelta
) -> AlarmState:
    """Return an alarm's state after a reading; the same reading at the same time changes nothing.

    Args:
        state: before.
        check: what was read.
        at: when; not before the last reading.
        clears_at: share of the limit at which a reading is good.
        calm: how long readings must have been good for the alarm to end.
    """
    reading = check.reading(clears_at)
    if state.raised_at is None:
        return AlarmState(raised_at=at) if reading == "high" else state
    if check.lasting or reading != "good":
        return AlarmState(state.raised_at)
    since = state.good_since or at
    if at - since >= calm:
        return AlarmState()
    return AlarmState(state.raised_at, since)


def advance_all(
    states: Mapping[str, AlarmState],
    checks: Iterable[Check],
    at: datetime,
    *,
    clears_at: float,
    calm: timedelta,
) -> dict[str, AlarmState]:
    """Return the states of all alarms after a run.

    Those not looked at stay as they are; of those that were, other subjects are forgotten.
    """
    looked_at = tuple(checks)
    names = {check.alarm for check in looked_at}
    kept = {key: state for key, state in states.items() if key.partition(":")[0] not in names}
    return kept | {
        check.key: advance(
            states.get(check.key, AlarmState()), check, at, clears_at=clears_at, calm=calm
        )
        for check in looked_at
    }
