"""The books that a live liquidation cost is made of: each contract's newest, and those of a window.

Responsible for the same books as a batch reads off a table: the last known one, or the last of
every period of the policy's window.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np

from margincast.core.types import FloatArray
from margincast.features.stream.snapshots import Known
from margincast.margin.liquidation_cost import Book
from margincast.margin.snapshots import Snapshots
from margincast.specs.serving import MarginPolicy

_TABLES = ("known_at", "bid_prices", "bid_sizes", "ask_prices", "ask_sizes")


@dataclass
class RecentBooks:
    """The books of every contract, as many as a policy looks at.

    Attributes:
        policy: says whether books are walked, and over which window.
        histories: by contract; where to start.
    """

    policy: MarginPolicy
    histories: dict[str, Snapshots] = field(default_factory=dict)

    def add(self, symbol: str, new: Known) -> None:
        """Add snapshots that became known since the last ones, in order."""
        if self.policy.liquidation.book is None or not len(new):
            return
        # level, side, price and size, snapshot
        values = new.values.reshape(new.levels, 2, 2, len(new))
        (bids, asks) = ((values[:, side, 0].T, values[:, side, 1].T) for side in (0, 1))
        known_at = new.known_at.astype("datetime64[us]")
        more = Snapshots(known_at, *bids, *asks)
        before = self.histories.get(symbol)
        self.histories[symbol] = self._thinned(more if before is None else _joined(before, more))

    def at(self, moment: np.datetime64) -> Mapping[str, Book]:
        """Return every contract's latest book; one older than the policy allows is as good as none.

        Args:
            moment: of use, UTC; no book added was known later.
        """
        oldest = moment - np.timedelta64(self.policy.staleness.max_data_age)
        walk = self.policy.liquidation.book
        found = {}
        for symbol, history in tuple(self.histories.items()):  # the watchdog reads too
            if history.known_at[-1] < oldest:
                continue
            if walk is not None and walk.horizon is not None:
                # a window that ends now begins after, not at, its start
                since = moment - np.timedelta64(walk.horizon.window)
                keep = history.known_at > since
                found[symbol] = Book.latest(_rows(history, keep) if keep.any() else history)
            else:
                found[symbol] = Book.latest(history)
        return found

    def _thinned(self, history: Snapshots) -> Snapshots:
        """Keep the last of every period, within the window."""
        walk = self.policy.liquidation.book
        assert walk is not None
        keep = np.zeros(len(history.known_at), dtype=bool)
        keep[-1] = True
        if walk.horizon is not None:
            every = walk.horizon.every // timedelta(microseconds=1)
            period = history.known_at.astype(np.int64) // every
            keep[:-1] = period[1:] != period[:-1]
            since = history.known_at[-1] - np.timedelta64(walk.horizon.window)
            keep &= history.known_at > since
        return _rows(history, keep)


def _rows(history: Snapshots, keep: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Snapshots:
    return Snapshots(*(getattr(history, name)[keep] for name in _TABLES))


def _joined(before: Snapshots, after: Snapshots) -> Snapshots:
    widest = max(before.bid_prices.shape[1], after.bid_prices.shape[1])

    def both(name: str) -> FloatArray:
        parts: list[FloatArray] = [getattr(one, name) for one in (before, after)]
        missing = [((0, 0), (0, widest - part.shape[1])) for part in parts]
        padded = zip(parts, missing, strict=True)
        return np.concatenate([np.pad(part, by, constant_values=np.nan) for part, by in padded])

    known_at = np.concatenate([before.known_at, after.known_at])
    return Snapshots(known_at, *(both(name) for name in _TABLES[1:]))
