"""One object of a venue's file: its values as exact numbers, or what is wrong and where.

Responsible for refusing a missing key, a text that is no number and a number that cannot be meant,
before any rate or notional is made of it. Keys that are not asked for are left alone: venues add
keys without notice.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from margincast.core.errors import InputError, did_you_mean
from margincast.margin.rounding import exact


class Record:
    """A JSON object and the place it stands at.

    Raises:
        InputError: it is no object.
    """

    def __init__(self, raw: object, where: str) -> None:
        if not isinstance(raw, Mapping):
            raise InputError(f"{where}: an object is needed, found {_shown(raw)}")
        self.raw: Mapping[str, object] = raw
        self.where = where

    def value(self, key: str) -> object:
        """Return what stands under a key.

        Raises:
            InputError: the key is missing; names those that are there.
        """
        if key not in self.raw:
            raise InputError(
                f"{self.where}: key '{key}' is missing{did_you_mean(key, self.raw)}; "
                f"found: {', '.join(sorted(self.raw)) or 'no key at all'}"
            )
        return self.raw[key]

    def text(self, key: str) -> str:
        """Return a text that is not empty.

        Raises:
            InputError: missing, empty, or no text.
        """
        found = self.value(key)
        if not isinstance(found, str) or not found:
            raise InputError(f"{self.where}: '{key}' must be a text, found {_shown(found)}")
        return found

    def number(self, key: str) -> Fraction:
        """Return a number, written as such or as text, exactly as its decimal says.

        Raises:
            InputError: missing, no number, negative, or not finite.
        """
        found = self.value(key)
        number = _exactly(found)
        if number is None or number < 0:
            raise InputError(
                f"{self.where}: '{key}' must be a number of at least 0, found {_shown(found)}"
            )
        return number

    def whole(self, key: str) -> int:
        """Return a whole number.

        Raises:
            InputError: missing, no number, negative, or not whole.
        """
        number = self.number(key)
        if number.denominator != 1:
            raise InputError(
                f"{self.where}: '{key}' must be a whole number, found {float(number):g}"
            )
        return int(number)

    def items(self, key: str) -> list[object]:
        """Return a list that is not empty.

        Raises:
            InputError: missing, empty, or no list.
        """
        found = self.value(key)
        if not isinstance(found, list) or not found:
            raise InputError(f"{self.where}: '{key}' must be a list, found {_shown(found)}")
        return found

    def records(self, key: str, each: str) -> Iterator["Record"]:
        """Yield the objects of a list; ``each`` says what one of them is.

        Raises:
            InputError: see :meth:`items`, or one of them is no object.
        """
        for number, item in enumerate(self.items(key), start=1):
            yield Record(item, f"{self.where}, {each} {number}")


def _exactly(found: object) -> Fraction | None:
    if isinstance(found, bool):
        return None
    try:
        if isinstance(found, int | float):
            return exact(found)
        if isinstance(found, str):
            number = Decimal(found)
            return Fraction(number) if number.is_finite() else None
    except (InputError, InvalidOperation):
        return None
    return None


def _shown(found: object) -> str:
    text = repr(found)
    return text if len(text) <= 60 else f"{type(found).__name__} {text[:50]}..."
