"""The watchdog: which contracts are in fallback now, why, and from when on they are good again.

Responsible for the fall to safety at the first fault, and for a return that does not flap. Pure:
faults and a clock go in, verdicts come out. Who looks, and how often, is
:class:`~margincast.serving.live.session.Session`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from margincast.serving.live.faults import EVERYTHING, Fault, Faults, sentence
from margincast.specs.live import Recovery

Microseconds = int
"""Of a clock that only goes forward."""


@dataclass(frozen=True)
class Fallback:
    """A contract, or the whole venue, in fallback.

    Attributes:
        reason: the last faults in words.
        fault: the most telling of them.
        since: when it fell back.
        last_seen: when a fault was seen last.
        decisions: good decisions since then.
    """

    reason: str
    fault: Fault
    since: Microseconds
    last_seen: Microseconds
    decisions: int = 0


@dataclass(frozen=True)
class Verdict:
    """What holds from one look to the next.

    Attributes:
        fallbacks: by contract, or :data:`~margincast.serving.live.faults.EVERYTHING`.
        fell: subjects that fell back at this look.
        recovered: subjects that came back at this look, and how they had been.
    """

    fallbacks: Mapping[str, Fallback]
    fell: tuple[str, ...]
    recovered: Mapping[str, Fallback]

    def of(self, symbol: str) -> Fallback | None:
        """Return the fallback a contract is in, the whole venue's first."""
        return self.fallbacks.get(EVERYTHING) or self.fallbacks.get(symbol)


@dataclass
class Watchdog:
    """The state of every subject; a subject without any is good.

    Attributes:
        recovery: when a fault is over.
    """

    recovery: Recovery
    _states: dict[str, Fallback] = field(default_factory=dict)

    def go_on(self, fallbacks: Mapping[str, tuple[Fault, str]], now: Microseconds) -> None:
        """Take over fallbacks of an engine that is gone: a new start ends none of them.

        Args:
            fallbacks: fault and reason by subject.
            now: from here on quiet is counted.
        """
        for subject, (fault, reason) in fallbacks.items():
            self._states[subject] = Fallback(reason, fault, now, now)

    def look(
        self, faults: Faults, now: Microseconds, good_decisions: Iterable[str] = ()
    ) -> Verdict:
        """Take in what is wrong now.

        A subject falls back with its first fault. It comes back once it has been without any for
        ``recovery.quiet`` and, if it is a contract, had ``recovery.good_decisions`` usable
        forecasts since; one fault more and it waits anew. What concerns the whole venue waits for
        the time only, since no decision is its own.

        Args:
            faults: by subject; a subject without faults may be absent.
            now: time of the look, not before the last one.
            good_decisions: contracts that had a decision with a usable forecast since the last
                look.
        """
        decided = set(good_decisions)
        fell: list[str] = []
        recovered: dict[str, Fallback] = {}
        for subject, found in faults.items():
            if not found:
                continue
            before = self._states.get(subject)
            if before is None:
                fell.append(subject)
            first = min(found, key=list(Fault).index)
            since = now if before is None else before.since
            self._states[subject] = Fallback(sentence(found), first, since, now)
        quiet_us = self.recovery.quiet // timedelta(microseconds=1)
        for subject, state in tuple(self._states.items()):
            if faults.get(subject):
                continue
            seen = state.decisions + (subject in decided)
            enough = subject == EVERYTHING or seen >= self.recovery.good_decisions
            if enough and now - state.last_seen >= quiet_us:
                recovered[subject] = self._states.pop(subject)
            else:
                self._states[subject] = Fallback(
                    state.reason, state.fault, state.since, state.last_seen, seen
                )
        return Verdict(dict(self._states), tuple(fell), recovered)
