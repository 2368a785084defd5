"""The checksum by which OKX and Bitget let a rebuilt book be compared with theirs.

A book that has silently drifted from the venue's gives a wrong depth and so a wrong liquidation
cost; the checksum of its best levels finds that at the first message.

The checksum is the CRC-32, as a signed number, of ``bid:size:ask:size:...`` over the first 25
levels of both sides in turn, prices and sizes written as the venue wrote them; where one side has
fewer levels the other goes on alone (OKX API v5, "Order Book Trading: WS / Order book channel";
Bitget API, "Websocket: Checksum").
"""

import zlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest

from margincast.data.formats.captures.decoder import levels_of, microseconds_of, whole
from margincast.data.formats.captures.fields import (
    pairs_in,
    whole_or_none,
)
from margincast.data.formats.captures.venue import (
    BookMessage,
    Record,
    VenueDecoder,
)
from margincast.data.formats.format import APPLIED, Options

CHECKED_LEVELS = 25
"""Levels a side that the checksum covers."""

MISMATCH = "without a book: checksum does not fit"
"""Outcome of a message after which the book is not the venue's: a hole."""

VERIFIED = "checksum verified"
"""Event: the book after a message is the venue's."""


class ChecksummedLevels:
    """Both sides of a book with its prices and sizes as text."""

    def __init__(self) -> None:
        self._bids = _Side(sign=-1)
        self._asks = _Side(sign=1)

    def update(self, bids: Iterable[Sequence[object]], asks: Iterable[Sequence[object]]) -> None:
        """Take levels given as ``[price, size, ...]`` texts; size zero deletes one.

        Raises:
            TypeError: a price or size is no text.
        """
        for side, levels in ((self._bids, bids), (self._asks, asks)):
            for level in levels:
                side.set(level[0], level[1])

    def checksum(self) -> int:
        """Compute the checksum of the best levels, a signed number of 32 bits."""
        pairs = zip_longest(self._bids.best(), self._asks.best(), fillvalue=())
        text = ":".join(chain.from_iterable(chain.from_iterable(pairs)))
        value = zlib.crc32(text.encode())
        return value - 2**32 if value >= 2**31 else value


class ChecksummedDecoder(VenueDecoder):
    """Decodes a venue whose book messages carry a checksum."""

    def __init__(self, options: Options) -> None:
        """Begin without books; ``options`` say how they are written down."""
        super().__init__(options)
        self._levels: dict[tuple[str, str, str], ChecksummedLevels] = {}

    def take_book(
        self,
        item: Mapping[str, object],
        venue: str,
        symbol: str,
        channel: str,
        record: Record,
        *,
        is_snapshot: bool,
    ) -> str:
        """Apply the one book of a message if it follows and its checksum, if any, fits.

        Args:
            item: ``bids``, ``asks``, ``ts`` and, where the venue has them, ``checksum``, ``seqId``
                and ``prevSeqId``.
            venue: where it is traded.
            symbol: contract.
            channel: which of several books of the contract it is.
            record: the message.
            is_snapshot: whether it replaces what was there.

        Returns:
            What became of the message.
        """
        bids, asks = pairs_in(item["bids"]), pairs_in(item["asks"])
        message = BookMessage(
            ts_us=microseconds_of(item["ts"]),
            bids=levels_of(bids),
            asks=levels_of(asks),
            is_snapshot=is_snapshot,
            sequence=whole_or_none(item.get("seqId")),
            follows=whole_or_none(item.get("prevSeqId")),
        )
        # absent in some messages of some years, and 0 since OKX gave it up
        checksum = whole(item.get("checksum") or 0)
        book = self.book(venue, symbol, channel)
        refusal = book.refusal_of(message, record)
        if refusal is not None:
            return refusal
        if checksum:
            if is_snapshot:
                self._levels[venue, symbol, channel] = ChecksummedLevels()
            levels = self._levels[venue, symbol, channel]
            levels.update(bids, asks)
            if levels.checksum() != checksum:
                book.lose(record.account)
                return MISMATCH
            record.account.note(VERIFIED)
        book.apply(message, record)
        return APPLIED


class _Side:
    """Levels of a side, best first: the price times ``sign`` grows."""

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._keys: list[float] = []
        self._texts: dict[float, tuple[str, str]] = {}

    def set(self, price: object, size: object) -> None:
        if not isinstance(price, str) or not isinstance(size, str):
            raise TypeError(price, size)
        key = self._sign * float(price)
        if float(size) == 0:
            if self._texts.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
            return
        if key not in self._texts:
            insort(self._keys, key)
        self._texts[key] = (price, size)

    def best(self) -> list[tuple[str, str]]:
        return [self._texts[key] for key in self._keys[:CHECKED_LEVELS]]
