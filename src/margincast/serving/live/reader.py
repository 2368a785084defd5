"""Live margins as another process sees them: the engine's, or fallbacks once it is gone.

Responsible for a worker of the service never going on with margins that nobody watches: a heartbeat
that grows old is a fault like any other.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pyarrow as pa

from margincast.core.errors import MargincastError
from margincast.serving.live.faults import Fault, sentence
from margincast.serving.live.folder import LiveFolder, LiveState, LiveStatus
from margincast.serving.live.keeping import kept
from margincast.serving.snapshot import Header, Snapshot


@dataclass
class LiveReader:
    """Reads a live folder, look by look.

    A heartbeat counts when it is another one than before and the margins it stands for were read;
    its age is measured on a clock that nobody sets. A folder that is gone or damaged is silence.

    Attributes:
        folder: where the engine writes.
        longest: time without a heartbeat from which on the engine counts as gone.
        problem: why the folder could not be read at the last look; empty where it could.
    """

    folder: LiveFolder
    longest: timedelta
    problem: str = field(default="", init=False)
    _state: LiveState | None = field(default=None, init=False)
    _beat: datetime | None = field(default=None, init=False)
    _heard: float = field(default=float("-inf"), init=False)
    _shown: tuple[Header, bool] | None = field(default=None, init=False)

    def is_alive(self, seconds: float) -> bool:
        """Say whether the engine was heard of lately.

        Args:
            seconds: of the clock that looks are made by.
        """
        return seconds - self._heard <= self.longest.total_seconds()

    def look(self, now: datetime, seconds: float) -> Snapshot | None:
        """Return the margins to show from now on; None where the last ones stand.

        Args:
            now: the time, UTC: says how old the first heartbeat is.
            seconds: of a clock that nobody sets.
        """
        snapshot: Snapshot | None = None
        try:
            status = self.folder.status()
            if status is not None:
                snapshot = self._take(status, now, seconds)
            self.problem = ""
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            pa.ArrowException,
            MargincastError,
        ) as error:
            self.problem = f"{type(error).__name__}: {error}"
        if self._state is None:
            return None
        shown = (self._state.header, self.is_alive(seconds))
        if shown == self._shown:
            return None
        self._shown = shown
        if not shown[1]:
            return self._gone(self._state, self._beat or self._state.beat)
        return snapshot or Snapshot.of(self._state.levels, self._state.header)

    def _take(self, status: LiveStatus, now: datetime, seconds: float) -> Snapshot | None:
        """Count a heartbeat; returns the margins where they are other ones."""
        snapshot: Snapshot | None = None
        if self._state is None or status.header != self._state.header:
            state = self.folder.read()
            if state is None:
                return None
            snapshot = Snapshot.of(state.levels, state.header)
            self._state = state
        if status.beat != self._beat:
            age, longest = (now - status.beat).total_seconds(), self.longest.total_seconds()
            if self._beat is not None and not 0.0 <= age <= longest:
                # it is another one than before, so it is young: a clock was set
                age = 0.0
            # a first one from the future may be of any time: the next one counts
            self._heard = seconds - age if age >= -longest else float("-inf")
            self._beat = status.beat
        return snapshot

    def _gone(self, state: LiveState, beat: datetime) -> Snapshot:
        reason = sentence(
            {
                Fault.ENGINE_STOPPED: (
                    f"no heartbeat since {beat:%F %H:%M:%S} UTC, for more than "
                    f"{self.longest.total_seconds():g} s"
                )
            }
        )
        header = replace(state.header, revision=state.header.revision + 1, problem=reason)
        return Snapshot.of(kept(state.levels, reason), header)
