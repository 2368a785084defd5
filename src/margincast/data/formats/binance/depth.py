"""Join Binance's depth snapshots and updates by the venue's sequence rules into one true book.

A liquidation cost read from a book that missed an update is wrong by an unknown amount, so a book
is kept only while every update is known to follow the one before.

The rules are those of "How to manage a local order book correctly" in the venue's documentation of
the spot API (Web Socket Streams) and of USD-M and COIN-M futures (Websocket Market Streams). They
come to one: an update says what changed after update id ``after_id`` (``U - 1`` on spot, ``pu`` on
futures, where ids are shared by all contracts and leave gaps) up to ``last_id`` (``u``). It follows
a book at id ``n`` if ``after_id <= n < last_id``; it is already in the book if ``last_id <= n``;
else something between is missing. Quantities are absolute, so an overlap does no harm.
"""

from collections import deque
from dataclasses import dataclass

from margincast.data.formats.captures.decoder import Levels, Updates
from margincast.data.formats.format import (
    AFTER_HOLE,
    APPLIED,
    HOLE,
    NO_SNAPSHOT,
    Account,
    Batch,
)

ALREADY_APPLIED = "not stored: update that the book already holds"
"""Outcome of updates that a book (or the snapshot it began with) already holds."""
OLD_SNAPSHOT = "not stored: snapshot older than the book"
"""Outcome of snapshots that a sound book is ahead of."""

UNJOINED_SNAPSHOT = "snapshot that the next update does not follow"
"""Event: what happened between a snapshot and the first update after it is missing."""
RECEIVE_TIME = "receive time taken where the venue gives none"
"""Event: a row whose time is that of its arrival, on the recorder's clock."""

JOIN_LIMIT = 1_000
"""Updates kept for a snapshot that is still to come.

At the fastest documented speed of the spot stream, 100 ms, they span 100 s; the answer to a request
for a snapshot takes about one.
"""


@dataclass(frozen=True, slots=True)
class DepthSnapshot:
    """A whole book as of an update id.

    Attributes:
        row: number of its record.
        last_id: the last update in it.
        bids: price and size of levels.
        asks: as the bids.
        ts_us: the venue's time; None where it gives none (spot).
        received_us: when it arrived; None where that is not recorded.
        records: records it consists of; none if it comes from another file.
    """

    row: int
    last_id: int
    bids: Levels
    asks: Levels
    ts_us: int | None = None
    received_us: int | None = None
    records: int = 1


@dataclass(frozen=True, slots=True)
class DepthUpdate:
    """What changed in a book after update ``after_id`` up to ``last_id``.

    Attributes:
        row: number of its (last) record.
        after_id: the update it follows.
        last_id: the last update in it.
        bids: price and size of changed levels; size zero deletes one.
        asks: as the bids.
        ts_us: the venue's time.
        received_us: when it arrived; None where that is not recorded.
        records: records it consists of.
    """

    row: int
    after_id: int
    last_id: int
    bids: Levels
    asks: Levels
    ts_us: int
    received_us: int | None = None
    records: int = 1


class DepthBook:
    """The book of one contract, joined from snapshots and updates in the order they arrived.

    A snapshot without a time (spot) waits for the first update that follows it and makes one book
    with it: its state was reached before that update's time, the earliest that is known not to be
    too early. Where none follows, it is a book as of its arrival.
    """

    def __init__(self, updates: Updates) -> None:
        """Begin without a book; ``updates`` takes what follows in sequence."""
        self._updates = updates
        self._last_id: int | None = None  # the last update in the book; None: no book
        self._last_us = 0
        self._follows = False  # whether an update followed the snapshot
        self._undated: DepthSnapshot | None = None
        self._waiting: deque[DepthUpdate] = deque()
        self._why_waiting = NO_SNAPSHOT

    def snapshot(self, snapshot: DepthSnapshot, account: Account) -> None:
        """Begin a new book, unless the present one is sound and ahead of the snapshot."""
        if self._last_id is not None and snapshot.last_id <= self._last_id:
            account.count(OLD_SNAPSHOT, snapshot.records)
            return
        self._add_undated(account)
        account.count(APPLIED, snapshot.records)
        self._last_id, self._follows = snapshot.last_id, False
        if snapshot.ts_us is None:
            self._undated = snapshot
        else:
            self._add_snapshot(snapshot, snapshot.ts_us)
        waiting, self._waiting = self._waiting, deque()
        for update in waiting:
            if update.last_id <= snapshot.last_id:
                account.count(self._why_waiting, update.records)
            else:
                self.update(update, account)

    def update(self, update: DepthUpdate, account: Account) -> None:
        """Apply an update that follows; keep one that does not for the next snapshot."""
        if self._last_id is None:
            self._wait(update, account)
        elif update.last_id <= self._last_id:
            if self._follows and update.ts_us > self._last_us:
                self._lose(update, account)  # later in time, yet earlier in sequence
            else:
                account.count(ALREADY_APPLIED, update.records)
        elif update.after_id > self._last_id:
            self._lose(update, account)
        else:
            self._apply(update)
            account.count(APPLIED, update.records)

    def take(self, account: Account, *, last: bool) -> list[Batch]:
        """Hand over the books that became final; ``last`` at the end of the source."""
        if last:
            self._add_undated(account)
            for update in self._waiting:
                account.count(self._why_waiting, update.records)
            self._waiting.clear()
        return self._updates.take(last=last)

    def _apply(self, update: DepthUpdate) -> None:
        bids, asks, snapshot = update.bids, update.asks, self._undated
        received_us = update.received_us
        if snapshot is not None:
            # of two sizes of one level in a message the last stands
            bids, asks = [*snapshot.bids, *bids], [*snapshot.asks, *asks]
            if snapshot.received_us is not None and received_us is not None:
                received_us = max(received_us, snapshot.received_us)
            self._undated = None
        self._updates.add(
            update.row,
            update.ts_us,
            bids,
            asks,
            is_snapshot=snapshot is not None,
            received_us=received_us,
            sequence=update.last_id,
        )
        self._last_id, self._last_us, self._follows = update.last_id, update.ts_us, True

    def _add_undated(self, account: Account) -> None:
        """Add a snapshot that no update follows, as of its arrival if that is known."""
        snapshot, self._undated = self._undated, None
        if snapshot is not None and snapshot.received_us is not None:
            account.note(RECEIVE_TIME)
            self._add_snapshot(snapshot, snapshot.received_us)

    def _add_snapshot(self, snapshot: DepthSnapshot, ts_us: int) -> None:
        self._updates.add(
            snapshot.row,
            ts_us,
            snapshot.bids,
            snapshot.asks,
            is_snapshot=True,
            received_us=snapshot.received_us,
            sequence=snapshot.last_id,
        )

    def _lose(self, update: DepthUpdate, account: Account) -> None:
        self._add_undated(account)
        self._updates.invalidate()
        self._last_id = None
        if self._follows:
            self._why_waiting = AFTER_HOLE
            account.note(HOLE)
        else:
            account.note(UNJOINED_SNAPSHOT)
        self._wait(update, account)

    def _wait(self, update: DepthUpdate, account: Account) -> None:
        self._waiting.append(update)
        if len(self._waiting) > JOIN_LIMIT:
            account.count(self._why_waiting, self._waiting.popleft().records)
