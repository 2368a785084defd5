"""Recognise what a file is: the first format that knows it, or a refusal that says what was tried.

A file read as the wrong kind would put wrong numbers under a margin, so nothing is guessed: a
format names the features of the file it goes by, and a file that fits none is refused.
"""

from collections.abc import Sequence
from dataclasses import replace

from margincast.core.errors import InputError
from margincast.data.formats import (
    coinalyze,
    coinglass,
    deribit,
    freqtrade,
    recorder,
    tabular,
)
from margincast.data.formats.binance import archive, stream
from margincast.data.formats.bybit import files as bybit
from margincast.data.formats.captures import recording
from margincast.data.formats.format import Format, Hints, Match, Options, Sample
from margincast.data.formats.source import Source
from margincast.data.formats.tardis import files as tardis

FORMATS: tuple[Format, ...] = (
    *archive.FORMATS,
    *stream.FORMATS,
    *tardis.FORMATS,
    *bybit.FORMATS,
    *recording.FORMATS,
    *recorder.FORMATS,
    *deribit.FORMATS,
    *coinglass.FORMATS,
    *coinalyze.FORMATS,
    *freqtrade.FORMATS,
    *tabular.FORMATS,
)
"""All formats, special ones before general ones: the canonical tables come last."""


def recognise(
    source: Source,
    hints: Hints | None = None,
    options: Options | None = None,
    formats: Sequence[Format] = FORMATS,
) -> tuple[Format, Match]:
    """Find the format of a source.

    Raises:
        InputError: the source is empty, cannot be read, or is of no known format; lists what was
            tried and why it did not fit.
    """
    hints = hints or Hints()
    sample = Sample(source, source.head(), hints)
    if not sample.head.strip():
        raise InputError(f"{source} is empty; fetch or copy the file again, or leave it out")
    tried = []
    for form in formats:
        found = form.match(sample)
        if isinstance(found, str):
            tried.append(f"  {form.name}: {found}")
            continue
        match = hints.applied_to(found)
        return form, replace(match, options=options or Options())
    raise InputError(
        f"{source} is of no kind that is known; describe its columns with --mapping, or leave it "
        "out. Tried:\n" + "\n".join(tried)
    )
