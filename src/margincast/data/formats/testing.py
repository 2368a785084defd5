"""The contract every file format passes, importable so that one of your own can be held to it.

What reaches a margin came through a format, so each must be recognised alone, give canonical rows,
account for every record, and read the same twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from polars.testing import assert_frame_equal

from margincast.data.formats.format import (
    APPLIED,
    MERGED,
    ROW,
    ROWS_BEYOND,
    TRANSLATED,
    Account,
    Batch,
    Format,
    Hints,
    Match,
    Options,
    Sample,
)
from margincast.data.formats.registry import FORMATS, recognise
from margincast.data.formats.source import Source
from margincast.data.schemas import SIDES_OF_TABLES, TIMESTAMP, schema_of

GENERAL = ("canonical table", "mapped table")
"""Formats that read anything with the right column names, so that others may come before them."""


@dataclass(frozen=True)
class Reading:
    """A source read whole.

    Attributes:
        form: the format that recognised it.
        match: what it was recognised as.
        batches: everything it gave.
        account: what became of its records.
    """

    form: Format
    match: Match
    batches: tuple[Batch, ...]
    account: Account

    def table(self, name: str) -> pl.DataFrame:
        """All rows of one table, in the order they were given."""
        frames = [batch.frame for batch in self.batches if batch.table == name]
        return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()

    @property
    def tables(self) -> dict[str, int]:
        """Rows by table."""
        names = sorted({batch.table for batch in self.batches})
        return {name: len(self.table(name)) for name in names}


def read_whole(
    source: Source,
    hints: Hints | None = None,
    options: Options | None = None,
    formats: Sequence[Format] = FORMATS,
) -> Reading:
    """Recognise a source and read all of it."""
    form, match = recognise(source, hints, options, formats)
    account = Account()
    return Reading(form, match, tuple(form.read(source, match, account)), account)


def check_format(
    source: Source,
    name: str,
    hints: Hints | None = None,
    options: Options | None = None,
    formats: Sequence[Format] = FORMATS,
) -> Reading:
    """Hold the format that reads a source to the contract.

    Args:
        source: a file of the format.
        name: name of the format that must recognise it.
        hints: what the user says about the file.
        options: how to read.
        formats: formats to recognise it among.

    Returns:
        What was read.

    Raises:
        AssertionError: says which part of the contract is broken.
    """
    sample = Sample(source, source.head(), hints or Hints())
    knows = [form.name for form in formats if isinstance(form.match(sample), Match)]
    special = [known for known in knows if known not in GENERAL]
    assert special == [name] or (not special and knows[:1] == [name]), f"recognised as {knows}"
    first = read_whole(source, hints, options, formats)
    for batch in first.batches:
        _check_batch(batch)
    # a message may hold several trades: one record, several rows
    rows = sum(len(batch.frame) for batch in first.batches) - first.account.events[ROWS_BEYOND]
    outcomes = first.account.outcomes
    if not outcomes[APPLIED] and not outcomes[MERGED]:
        assert rows == outcomes[TRANSLATED], f"{rows} rows, account says {dict(outcomes)}"
    else:
        assert rows <= outcomes[TRANSLATED] + outcomes[APPLIED] + outcomes[MERGED]
    assert len(first.account.rejects) == first.account.rejected.total()
    again = read_whole(source, hints, options, formats)
    assert again.account.outcomes == outcomes
    assert len(again.batches) == len(first.batches)
    for one, other in zip(first.batches, again.batches, strict=True):
        assert (one.table, one.venue) == (other.table, other.venue)
        assert_frame_equal(one.frame, other.frame)
    return first


def _check_batch(batch: Batch) -> None:
    schema = schema_of(batch.table)
    frame = batch.frame
    what = f"{batch.table} of {batch.venue}"
    assert batch.venue, "a batch names its venue"
    assert len(frame), f"{what}: an empty batch"
    types = frame.schema
    assert types[ROW] == pl.Int64, what
    assert types["symbol"] == pl.String, what
    assert frame["symbol"].null_count() == 0, what
    assert types["ts"] == TIMESTAMP, what
    if "received_at" in types:
        assert types["received_at"] == TIMESTAMP, what
    missing = [name for name in schema.required if name not in types]
    assert not missing, f"{what} lacks {missing}"
    numeric = (*schema.positive, *schema.non_negative, *schema.finite)
    for column in types:
        if column in numeric or column.startswith(("bid_price_", "bid_size_", "ask_")):
            assert types[column].is_numeric(), f"{what}: {column} is {types[column]}"
    if schema.table in SIDES_OF_TABLES:
        assert set(frame["side"].drop_nulls().unique()) <= {"buy", "sell"}, what
