"""Rebuild the books of Bybit's order book archives (``ob500``, ``ob200``).

Order books are where the cost of closing a position is read; an archive keeps up to 500 levels a
side every 100 ms. It is a recording of the stream ``orderbook.{depth}.{symbol}``, a message a line.

Source: Bybit API documentation v5, "Websocket stream: Public: Orderbook". ``u`` counts the messages
of a stream, so a delta whose ``u`` does not follow the one before shows a hole, and the book is
unknown until the next snapshot. A ``u`` of 1 is a snapshot after the venue's service was restarted.
``ts``, when the venue made the message, is the time of a book; ``cts``, when the change was made in
the matching engine, lies before it, but nobody outside could know the book then.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.core.types import BoolArray
from margincast.data.book_builder import BookBuilder
from margincast.data.formats.format import APPLIED, ROW, Account, Batch, Match, Options
from margincast.data.formats.source import Source
from margincast.data.schemas import TIMESTAMP

HOLE = "hole in the sequence"
REPLACED = "book replaced by a new snapshot"
RESTARTED = "book replaced after a restart of the venue's service"
BEFORE_SNAPSHOT = "without a book: before the first snapshot"
AFTER_HOLE = "without a book: after a hole in the sequence"
NO_BOOK_MESSAGE = "not stored: no order book message"

_BLOCK_BYTES = 4 * 1024**2

_LEVELS = pl.List(pl.List(pl.String))
_MESSAGE = pl.Struct(
    {
        "topic": pl.String,
        "type": pl.String,
        "ts": pl.Int64,
        "data": pl.Struct({"s": pl.String, "b": _LEVELS, "a": _LEVELS, "u": pl.Int64}),
    }
)
_NO_MESSAGE = pl.Series(dtype=_MESSAGE)
_IS_SNAPSHOT = (pl.col("type") == "snapshot") | (pl.col("u") == 1)
_HEAD_FAULTS = {
    "lacks type, ts, s, u, b or a": pl.any_horizontal(pl.all().is_null()),
    "type is neither snapshot nor delta": ~pl.col("type").is_in(["snapshot", "delta"]),
    "ts is no time in milliseconds": ~pl.col("ts").is_between(0, 10**14),
}
# an empty snapshot needs an update to be a message of the builder: this one deletes nothing
_NO_LEVEL = pl.Series([[["0", "0"]]], dtype=_LEVELS)


def read_books(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    """Read messages and give the books they make."""
    streams: dict[str, _Stream] = {}
    row = 0
    with source.open() as content:
        while lines := content.readlines(_BLOCK_BYTES):
            records = [line for line in lines if line.strip()]
            messages = _parse(records, row + 1, account)
            row += len(records)
            books = []
            for topic in messages.heads["topic"].unique(maintain_order=True):
                part = messages.only((messages.heads["topic"] == topic).to_numpy())
                if topic not in streams:
                    streams[topic] = _Stream(match.symbol or part.heads["s"][0], match.options)
                books += streams[topic].apply(part, account)
            yield from _batch(books, match.venue)
    yield from _batch([stream.flush() for stream in streams.values()], match.venue)


def _batch(books: Sequence[pl.DataFrame], venue: str) -> Iterator[Batch]:
    made = [book for book in books if len(book)]
    if made:
        yield Batch("book", venue, pl.concat(made))


@dataclass(frozen=True)
class _Messages:
    """Messages of order books, and their levels.

    Attributes:
        heads: ``_row``, topic, type, ts, s, u, and the number of ``bids`` and ``asks``.
        levels: price and size of the levels of one message after the other, its bids first.
    """

    heads: pl.DataFrame
    levels: pl.DataFrame

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of levels of each message."""
        return (self.heads["bids"] + self.heads["asks"]).to_numpy()

    def only(self, chosen: BoolArray) -> "_Messages":
        """Keep the chosen messages."""
        if chosen.all():
            return self
        levels = self.levels.filter(np.repeat(chosen, self.lengths))
        return _Messages(self.heads.filter(chosen), levels)

    def updates(self, first_message: int) -> pl.DataFrame:
        """Write them as updates of a book, in messages numbered from ``first_message``."""
        heads = self.heads.select(
            ROW,
            (first_message + pl.int_range(pl.len(), dtype=pl.Int64)).alias("message"),
            (pl.col("ts") * 1000).cast(TIMESTAMP),
            pl.col("u").alias("sequence"),
            _IS_SNAPSHOT.alias("is_snapshot"),
        )
        sides = np.tile([True, False], len(self))
        is_bid = np.repeat(sides, self.heads.select("bids", "asks").to_numpy().ravel())
        of_level = heads[np.repeat(np.arange(len(self)), self.lengths)]
        return of_level.with_columns(pl.Series("is_bid", is_bid)).hstack(self.levels)


def _parse(records: Sequence[bytes], first_row: int, account: Account) -> _Messages:
    """Parse messages; reject the faulty ones and count those that are not of order books.

    Args:
        records: their texts.
        first_row: number of the first record.
        account: counts them.
    """
    texts = [record.decode(errors="replace").strip() for record in records]

    def reject(rows: pl.Series, reason: str) -> None:
        for row in rows:
            account.reject(row, reason, texts[row - first_row])

    rows = range(first_row, first_row + len(texts))
    lines = pl.DataFrame({"text": texts, ROW: rows}, schema={"text": pl.String, ROW: pl.Int64})
    decoded = _decoded(lines["text"])
    if decoded is None:
        each = [_decoded(lines["text"][place : place + 1]) for place in range(len(lines))]
        sound = pl.Series([message is not None for message in each])
        reject(lines[ROW].filter(~sound), "no message in JSON of the documented types")
        lines = lines.filter(sound)
        decoded = pl.concat([_NO_MESSAGE, *(message for message in each if message is not None)])
    messages = decoded.struct.unnest().unnest("data").with_columns(lines[ROW])

    of_books = messages.filter(pl.col("topic").str.starts_with("orderbook."))
    account.count(NO_BOOK_MESSAGE, len(messages) - len(of_books))
    for reason, faulty in _HEAD_FAULTS.items():
        reject(of_books.filter(faulty)[ROW], reason)
        of_books = of_books.remove(faulty)
    parsed = _with_levels(of_books)
    sound_level = parsed.levels.select(pl.all_horizontal(pl.all().is_finite())).to_series()
    if not sound_level.all():
        message_of_level = np.repeat(np.arange(len(parsed)), parsed.lengths)
        sound_message = np.ones(len(parsed), np.bool_)
        sound_message[message_of_level[~sound_level.to_numpy()]] = False
        reject(parsed.heads[ROW].filter(~sound_message), "a level is no price and size")
        parsed = parsed.only(sound_message)
    return parsed


def _decoded(texts: pl.Series) -> pl.Series | None:
    """Decode texts of a message each; None where one of them is something else."""
    try:
        messages = texts.str.json_decode(_MESSAGE)
    except pl.exceptions.ComputeError:
        return None
    return messages if len(messages) == len(texts) else None


def _with_levels(messages: pl.DataFrame) -> _Messages:
    """Read the levels; a price or size is NaN where a level is not two numbers."""
    is_empty = pl.col("b").list.len() + pl.col("a").list.len() == 0
    filled = messages.with_columns(
        pl.when(_IS_SNAPSHOT & is_empty).then(pl.lit(_NO_LEVEL).first()).otherwise("b").alias("b")
    )
    heads = filled.select(
        *(ROW, "topic", "type", "ts", "s", "u"),
        pl.col("b").list.len().cast(pl.Int64).alias("bids"),
        pl.col("a").list.len().cast(pl.Int64).alias("asks"),
    )
    pairs = filled.remove(is_empty).select(pl.concat_list("b", "a").alias("pair")).explode("pair")
    pair = pl.col("pair").list
    levels = pairs.select(
        pl.when(pair.len() == 2)
        .then(pair.get(place, null_on_oob=True).cast(pl.Float64, strict=False))
        .fill_null(np.nan)
        .alias(name)
        for place, name in enumerate(("price", "size"))
    )
    return _Messages(heads, levels)


class _Stream:
    """The book of one stream, as far as its messages follow each other."""

    def __init__(self, symbol: str, options: Options) -> None:
        self._builder = BookBuilder(symbol, levels=options.book_levels, every=options.book_every)
        self._messages = 0
        self._last_u: int | None = None
        self._known = False
        self._had_snapshot = False

    def apply(self, messages: _Messages, account: Account) -> list[pl.DataFrame]:
        """Apply messages, account for them and return the books that became final."""
        u = messages.heads["u"].to_numpy()
        is_snapshot = messages.heads.select(_IS_SNAPSHOT).to_series().to_numpy()
        expected = 1 + np.r_[u[0] - 1 if self._last_u is None else self._last_u, u[:-1]]
        is_hole = ~is_snapshot & (u != expected)
        known = _in_force(is_snapshot, is_hole, self._known)
        was_known = np.r_[self._known, known[:-1]]
        account.note(HOLE, int(is_hole.sum()))
        account.note(RESTARTED, int((is_snapshot & was_known & (u == 1)).sum()))
        account.note(REPLACED, int((is_snapshot & was_known & (u != 1)).sum()))
        had_snapshot = self._had_snapshot | (np.cumsum(is_snapshot) > 0)
        account.count(APPLIED, int(known.sum()))
        account.count(BEFORE_SNAPSHOT, int((~had_snapshot).sum()))
        account.count(AFTER_HOLE, int((~known & had_snapshot).sum()))

        books = []
        stretches = np.cumsum(is_hole)
        for stretch in np.unique(stretches[known | was_known]):
            of_stretch = stretches == stretch
            first = int(of_stretch.argmax())
            if is_hole[first] and was_known[first]:
                books.append(self._builder.invalidate())
            followed = messages.only(known & of_stretch)
            if len(followed):
                books.append(self._builder.apply(followed.updates(self._messages)))
                self._messages += len(followed)
        self._last_u, self._known = int(u[-1]), bool(known[-1])
        self._had_snapshot = bool(had_snapshot[-1])
        return books

    def flush(self) -> pl.DataFrame:
        """Return the last book."""
        return self._builder.flush()


def _in_force(begins: BoolArray, ends: BoolArray, before: bool) -> BoolArray:
    """Say where a state holds that begins and ends at some places and otherwise goes on."""
    change = np.maximum.accumulate(np.where(begins | ends, np.arange(len(begins)), -1))
    return np.where(change < 0, before, begins[change])
