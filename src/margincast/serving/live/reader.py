"""Live margins as another process sees them: the engine's, or fallbacks once it is gone.

Responsible for a worker of the service never going on with margins that nobody watches: a heartbeat
that grows old is a fault like any other.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from margincast.core.time import format_duration
from margincast.serving.live.faults import Fault, sentence
from margincast.serving.live.folder import LiveFolder, LiveState
from margincast.serving.live.keeping import kept
from margincast.serving.snapshot import Snapshot


@dataclass
class LiveReader:
    """Reads a live folder, look by look.

    Attributes:
        folder: where the engine writes.
        longest: time without a heartbeat from which on the engine counts as gone.
    """

    folder: LiveFolder
    longest: timedelta
    _seen: tuple[object, ...] = field(default=(), init=False)

    def look(self, now: datetime) -> Snapshot | None:
        """Return the margins to show from now on; None where the last ones stand.

        Args:
            now: the time, UTC.

        Raises:
            OSError: the folder cannot be read.
            InputError: its heartbeat is damaged, or its table is not one of margin levels.
        """
        status = self.folder.status()
        if status is None:
            return None
        alive = status.is_alive(now, self.longest)
        seen = (status.header, alive)
        if seen == self._seen:
            return None
        state = self.folder.read()
        if state is None:
            return None
        self._seen = (state.header, alive)
        if alive:
            return Snapshot.of(state.levels, state.header)
        return self._gone(state)

    def _gone(self, state: LiveState) -> Snapshot:
        reason = sentence(
            {
                Fault.ENGINE_STOPPED: (
                    f"no heartbeat since {state.beat:%F %H:%M:%S} UTC, for more than "
                    f"{format_duration(self.longest)}"
                )
            }
        )
        header = replace(state.header, revision=state.header.revision + 1, problem=reason)
        return Snapshot.of(kept(state.levels, reason), header)
