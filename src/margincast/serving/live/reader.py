"""Live margins as another process sees them: the engine's, or fallbacks once it is gone.

Responsible for a worker of the service never going on with margins that nobody watches: a heartbeat
that grows old is a fault like any other.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from margincast.core.time import format_duration
from margincast.margin.maintenance import maintenance_amounts_of_all
from margincast.serving.live.faults import Fault, sentence
from margincast.serving.live.folder import LiveFolder, LiveState
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
            InputError: its table is not one of margin levels.
        """
        status = self.folder.status()
        if status is None:
            return None
        alive = now - status.beat <= self.longest
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


def kept(levels: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Return margin levels as fallbacks: each rate the larger of the base schedule's and its own.

    Where the base schedule's is the larger, the initial rate rises in proportion, so that it stays
    above; the maintenance amounts follow the rates.

    Args:
        levels: as they were shown last.
        reason: why nothing newer can be believed.
    """
    mmr = np.maximum(levels["mmr"].to_numpy(), levels["base_mmr"].to_numpy())
    rise = mmr / levels["mmr"].to_numpy()
    imr = np.minimum(1.0, levels["imr"].to_numpy() * rise)
    fallback = levels["status"].eq("fallback")
    text = levels["reason"].where(fallback, "last published margin kept: " + reason)
    return levels.assign(
        mmr=mmr,
        mmr_in_force=np.fmax(levels["mmr_in_force"].to_numpy(), levels["base_mmr"].to_numpy()),
        imr=imr,
        max_leverage=1.0 / imr,
        maintenance_amount=maintenance_amounts_of_all(
            levels["tier_floor_usd"].to_numpy(), mmr, levels["tier"].eq(1).to_numpy()
        ),
        multiplier=mmr / levels["base_mmr"].to_numpy(),
        status="fallback",
        binding_rule="fallback",
        reason=text,
    )
