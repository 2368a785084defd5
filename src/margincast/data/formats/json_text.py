"""Read JSON text in bounded memory, line by line or element by element of one large array.

Recordings of market data outgrow memory; what a margin is computed from is read as a stream, and a
file that ends in the middle is an error that names the place.
"""

import codecs
import json
from collections.abc import Iterator

from margincast.core.errors import InputError
from margincast.data.formats.source import Source

MOST_CHARACTERS = 64 * 1024**2
"""Longest line or element that is read."""

_BLOCK_BYTES = 1024**2
_SPACES = " \t\r\n"
_ENDS = _SPACES + ",]"
_LONGEST_WORD = 16  # of what a block may cut through: -Infinity, a \\uXXXX pair


def lines_of(source: Source) -> Iterator[tuple[int, bytes]]:
    """Read lines, without their ends.

    Yields:
        The number of the line, the first is 1, and its bytes.

    Raises:
        InputError: the source cannot be read to its end, or a line is longer than
            :data:`MOST_CHARACTERS`.
    """
    with source.open() as stream:
        row = 0
        while line := stream.readline(MOST_CHARACTERS):
            row += 1
            if len(line) == MOST_CHARACTERS:
                raise InputError(
                    f"{source}: line {row} is longer than {MOST_CHARACTERS:,} bytes; a line is "
                    "one message, so this file is of another kind or damaged"
                )
            yield row, line.rstrip(b"\r\n")


def elements_of(source: Source) -> Iterator[tuple[int, object]]:
    """Read the elements of a file that is one JSON array.

    Yields:
        The number of the element, the first is 1, and the element.

    Raises:
        InputError: the file is no JSON array, ends before the array does, or an element is longer
            than :data:`MOST_CHARACTERS`; names the element.
    """
    decoder = json.JSONDecoder()
    with source.open() as stream:
        text = _Text(source, iter(lambda: stream.read(_BLOCK_BYTES), b""))
        if text.next_character() != "[":
            raise InputError(f"{source} is no JSON array: it does not begin with '['")
        text.position += 1
        row = 0
        if text.next_character() == "]":
            text.position += 1
        else:
            while True:
                row += 1
                text.next_character()
                yield row, text.element(decoder, row)
                separator = text.next_character()
                text.position += 1
                if separator == "]":
                    break
                if separator != ",":
                    raise _broken(source, row, f"is followed by {separator!r}")
        if following := text.next_character():
            raise InputError(
                f"{source}: {following!r} follows the end of the array after element {row}; "
                "one file is one array, so split it or fetch it again"
            )


class _Text:
    """Decoded text of which only the part not yet read is held."""

    def __init__(self, source: Source, blocks: Iterator[bytes]) -> None:
        self._source, self._blocks = source, blocks
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at_end = False
        self.position = 0

    def next_character(self) -> str:
        """Skip white space and return the character after it; empty at the end."""
        while True:
            while self.position < len(self._text):
                if self._text[self.position] not in _SPACES:
                    return self._text[self.position]
                self.position += 1
            if self._at_end:
                return ""
            self._extend()

    def element(self, decoder: json.JSONDecoder, row: int) -> object:
        """Parse the element that begins here."""
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self.position)
            except json.JSONDecodeError as error:
                if self._at_end or self._is_wrong(error):
                    raise _broken(self._source, row, f"is no JSON: {error.msg}") from None
            else:
                # a number may go on in the next block: of 0.5 cut after its point, 0 is a value
                following = self._text[end : end + 1]
                is_cut = following not in _ENDS and len(self._text) - end < _LONGEST_WORD
                if self._at_end or (following and not is_cut):
                    self.position = end
                    return value
            if len(self._text) - self.position > MOST_CHARACTERS:
                raise _broken(self._source, row, f"is longer than {MOST_CHARACTERS:,} characters")
            self._extend()

    def _is_wrong(self, error: json.JSONDecodeError) -> bool:
        """Whether more text would not help: the fault is neither a cut word nor a cut string."""
        is_cut = error.pos > len(self._text) - _LONGEST_WORD
        return not is_cut and not error.msg.startswith("Unterminated string")

    def _extend(self) -> None:
        block = next(self._blocks, b"")
        self._at_end = not block
        try:
            more = self._decoder.decode(block, final=self._at_end)
        except UnicodeDecodeError as error:
            raise InputError(f"{self._source} is not UTF-8 text: {error}; convert it") from None
        self._text = self._text[self.position :] + more
        self.position = 0


def _broken(source: Source, row: int, what: str) -> InputError:
    return InputError(
        f"{source}: element {row} of the array {what}; the file is damaged or incomplete, "
        "fetch or copy it again"
    )
