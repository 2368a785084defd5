"""Bars of the mid price, where a venue gives none: ``data.mid_bars``, interval by interval."""

from collections.abc import Mapping
from datetime import timedelta

import numpy as np

from margincast.features.stream.bars import Bars
from margincast.features.stream.last_intervals import opens_of
from margincast.features.stream.snapshots import Known


class MidBars:
    """Makes bars of one contract's snapshots."""

    def __init__(self, bars: Bars, interval: timedelta) -> None:
        self._bars = bars
        self._interval = interval
        self._last: Known | None = None

    def remember(self, known: Known) -> None:
        """Set the last snapshot, with which the next is compared."""
        if len(known):
            self._last = known.after(len(known) - 1)

    def add(self, new: Known, traded: Mapping[int, float] | None) -> None:
        """Add the bars of snapshots, of whole intervals.

        Args:
            new: the snapshots.
            traded: size traded in each interval, by its open; None where no trades are given.
        """
        if not len(new):
            return
        whole = new if self._last is None else self._last.and_then(new)
        best = whole.values[:4]
        changed = np.ones(len(whole), dtype=np.bool_)
        changed[1:] = (best[:, 1:] != best[:, :-1]).any(axis=0)
        changed = changed[len(whole) - len(new) :]
        mid = (new.values[0] + new.values[2]) / 2
        opens = opens_of(new.known_at, self._interval)
        cuts = np.flatnonzero(np.diff(opens)) + 1
        for part in np.split(np.arange(len(new)), cuts):
            open_us, prices = int(opens[part[0]]), mid[part]
            size = 0.0 if traded is None else traded.get(open_us, 0.0)
            bar = {
                "open": prices[0],
                "high": prices.max(),
                "low": prices.min(),
                "close": prices[-1],
                "volume": float(len(part)) if traded is None else size,
                "snapshot_count": float(len(part)),
            }
            # a change is a sign of life where nothing was traded
            stale = size + changed[part].sum() == 0 and bar["high"] == bar["low"]
            self._bars.put(open_us, {} if stale else bar)
        self.remember(new)
