"""What reading a venue's file gives: tiers for a base schedule, and the venue's own margins.

Responsible for the base schedule made of a venue's tiers, and for checking amounts that a file
carries against those its rates give.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from margincast.core.errors import InputError, did_you_mean
from margincast.margin.venues.tiers import Tiers, TiersBySymbol
from margincast.specs.loading import validate_spec
from margincast.specs.schedule import BaseSchedule

USD_LIKE = ("USDT", "USDC", "USD1", "USDE", "FDUSD", "BUSD", "USD")
"""Quote and collateral currencies whose amounts are taken as USD, one for one."""

AMOUNT_TOLERANCE_USD = Fraction(1, 200)
"""A venue may publish an amount rounded to the cent."""


@dataclass(frozen=True)
class ReadOptions:
    """What a file does not say.

    Attributes:
        last_cap_usd: largest position, USD notional, where a venue's last tier has no end.
        symbols: contracts to read; all of the file when absent.
        all_usd: amounts are USD (or a stablecoin's), whatever a contract's name says.
    """

    last_cap_usd: float | None = None
    symbols: tuple[str, ...] | None = None
    all_usd: bool = False

    def wants(self, symbol: str) -> bool:
        """Whether a contract is to be read."""
        return self.symbols is None or symbol in self.symbols

    def last_cap(self, where: str, floor_usd: Fraction) -> float:
        """Return the end of a last tier that the venue leaves open.

        Raises:
            InputError: it is not given, not finite, or not above the tier's floor.
        """
        if self.last_cap_usd is None:
            raise InputError(
                f"{where}: the last tier has no end, and the tiers of a base schedule have one; "
                "say with --last-cap which position is the largest, USD notional"
            )
        if not (math.isfinite(self.last_cap_usd) and self.last_cap_usd > floor_usd):
            raise InputError(
                f"{where}: the last tier starts at {float(floor_usd):,.0f} USD, so --last-cap must "
                f"lie above, found {self.last_cap_usd:,.0f}"
            )
        return self.last_cap_usd


@dataclass(frozen=True)
class VenueMargin:
    """What a venue charges for a position of one contract, by its own arithmetic.

    Attributes:
        tiers: how many tiers the venue's table has.
        maintenance_usd: maintenance margin of a notional, both USD, exact.
        initial_rate: initial margin rate of a notional, USD; a fraction, exact.
    """

    tiers: int
    maintenance_usd: Callable[[Fraction], Fraction]
    initial_rate: Callable[[Fraction], Fraction]

    @classmethod
    def of_brackets(
        cls,
        *,
        caps_usd: Sequence[Fraction],
        rates: Sequence[Fraction],
        amounts_usd: Sequence[Fraction],
        initial: Sequence[Fraction],
    ) -> "VenueMargin":
        """Return the arithmetic of venues with brackets: notional times rate less amount.

        Args:
            caps_usd: where the brackets end, USD; a larger notional counts to the last.
            rates: maintenance margin rates.
            amounts_usd: what is taken off.
            initial: initial margin rates.
        """

        def bracket(notional: Fraction) -> int:
            return min(bisect_left(caps_usd, notional), len(caps_usd) - 1)

        def maintenance(notional: Fraction) -> Fraction:
            number = bracket(notional)
            return notional * rates[number] - amounts_usd[number]

        return cls(len(caps_usd), maintenance, lambda notional: initial[bracket(notional)])


@dataclass(frozen=True)
class Imported:
    """A venue's file, read.

    Attributes:
        tiers: notional tiers by contract; none where the venue has no tiers.
        margins: the venue's own arithmetic by contract.
        remarks: what a reader of the schedule should know of the file.
    """

    tiers: TiersBySymbol
    margins: Mapping[str, VenueMargin]
    remarks: tuple[str, ...] = field(default=())


class Collected:
    """Gathers the contracts of a file, each once, and only those that are wanted."""

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._seen: set[str] = set()
        self._tiers: dict[str, Tiers] = {}
        self._margins: dict[str, VenueMargin] = {}
        self._remarks: list[str] = []

    def wants(self, symbol: str, where: str) -> bool:
        """Whether a contract is to be read.

        Raises:
            InputError: it was there before.
        """
        if symbol in self._seen:
            raise InputError(
                f"{where}: {symbol} stands twice; a contract has one table of tiers: take one out"
            )
        self._seen.add(symbol)
        return self._options.wants(symbol)

    def add(self, symbol: str, tiers: Tiers, margin: VenueMargin) -> None:
        """Keep a contract."""
        if tiers:
            self._tiers[symbol] = tiers
        self._margins[symbol] = margin

    def remark(self, text: str) -> None:
        """Keep a remark, once."""
        if text not in self._remarks:
            self._remarks.append(text)

    def finish(self) -> Imported:
        """Return what was gathered.

        Raises:
            InputError: a wanted contract is not in the file, or there is none at all.
        """
        for symbol in self._options.symbols or ():
            if symbol not in self._seen:
                raise InputError(
                    f"the file has no {symbol}{did_you_mean(symbol, self._seen)}; it has "
                    f"{len(self._seen)} contracts"
                )
        if not self._margins:
            raise InputError("the file has no contract in it")
        return Imported(self._tiers, self._margins, tuple(self._remarks))


def rate_of_leverage(leverage: Fraction | int) -> float:
    """Return the largest number whose decimal is not above ``1 / leverage``.

    Rounded down, so that the leverage made of it again, ``floor(1 / rate)``, is the same.

    >>> rate_of_leverage(40)
    0.025
    """
    target = 1 / Fraction(leverage)
    rate = float(target)
    return rate if Fraction(repr(rate)) <= target else math.nextafter(rate, 0.0)


def require_amount(found: Fraction, expected: Fraction, where: str, key: str) -> None:
    """Check an amount of a venue's file against the one its own rates give.

    Raises:
        InputError: they differ by more than a rounding to the cent; names both.
    """
    if abs(found - expected) > AMOUNT_TOLERANCE_USD:
        raise InputError(
            f"{where}: {key} is {float(found):,.10g}, but the rates and edges of the tiers give "
            f"{float(expected):,.10g}; the file was edited or is incomplete, fetch it again"
        )


def schedule_of(tiers: TiersBySymbol, name: str, description: str) -> BaseSchedule:
    """Make a base schedule of tiers; contracts with equal tiers share one list.

    Raises:
        SpecError: there is no contract.
    """
    shared: dict[Tiers, list[str]] = {}
    for symbol, own in tiers.items():
        shared.setdefault(own, []).append(symbol)
    brackets = [
        {"symbols": symbols, "tiers": [tier.model_dump() for tier in own]}
        for own, symbols in shared.items()
    ]
    raw = {"name": name, "description": description, "brackets": brackets}
    return validate_spec(raw, BaseSchedule, name)
