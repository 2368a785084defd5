"""The books that a live liquidation cost is made of: each contract's newest, and those of a window.

Responsible for the same books as a batch reads off a table: the last known one, or the last of
every period of the policy's window.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np

from margincast.core.types import BoolArray, FloatArray, Times
from margincast.features.stream.snapshots import Known
from margincast.margin.liquidation_cost import Book
from margincast.margin.snapshots import Snapshots
from margincast.specs.serving import MarginPolicy


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
        tables = [values[:, side, what].T for side in (0, 1) for what in (0, 1)]
        known_at = new.known_at.astype("datetime64[us]")
        before = self.histories.get(symbol)
        if before is not None:
            known_at = np.concatenate([before.known_at, known_at])
            held = (before.bid_prices, before.bid_sizes, before.ask_prices, before.ask_sizes)
            tables = [_joined(*both) for both in zip(held, tables, strict=True)]
        keep = self._looked_at(known_at)
        self.histories[symbol] = Snapshots(known_at[keep], *(table[keep] for table in tables))

    def at(self, moment: np.datetime64) -> Mapping[str, Book]:
        """Return every contract's latest book; one older than the policy allows is as good as none.

        Args:
            moment: of use, UTC; no book added was known later.
        """
        oldest = moment - np.timedelta64(self.policy.staleness.max_data_age)
        walk = self.policy.liquidation.book
        found = {}
        for symbol, history in tuple(self.histories.items()):  # the watchdog reads too
            newest = history.known_at[-1]
            if newest < oldest:
                continue
            if walk is not None and walk.horizon is not None:
                # a window that ends now begins after, not at, its start
                since = moment - np.timedelta64(walk.horizon.window)
                found[symbol] = Book.latest(history.since(since) if newest > since else history)
            else:
                found[symbol] = Book.latest(history)
        return found

    def _looked_at(self, known_at: Times) -> BoolArray:
        """Say which are the last of every period, within the window."""
        walk = self.policy.liquidation.book
        assert walk is not None
        keep = np.zeros(len(known_at), dtype=np.bool_)
        keep[-1] = True
        if walk.horizon is not None:
            every = walk.horizon.every // timedelta(microseconds=1)
            period = known_at.astype(np.int64) // every
            keep[:-1] = period[1:] != period[:-1]
            keep &= known_at > known_at[-1] - np.timedelta64(walk.horizon.window)
        return keep


def _joined(before: FloatArray, after: FloatArray) -> FloatArray:
    """Put levels of later books below, as wide as the widest."""
    widest = max(before.shape[1], after.shape[1])
    joined = np.full((len(before) + len(after), widest), np.nan)
    joined[: len(before), : before.shape[1]] = before
    joined[len(before) :, : after.shape[1]] = after
    return joined
