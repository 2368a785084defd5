"""Base schedules (``serving/schedules/*.toml``): the notional tiers in force without a forecast.

Responsible for refusing tiers that contradict each other, each problem with the tier's number.
"""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from margincast.specs.base import PositiveRate, RateBelowOne, Spec, Texts, Usd, to_tuple


class Tier(Spec):
    """A notional tier: positions above ``floor_usd`` and up to ``cap_usd`` of notional."""

    floor_usd: Usd
    cap_usd: Usd
    mmr: RateBelowOne
    """Base maintenance margin rate of the notional within the tier."""
    imr: PositiveRate
    """Base initial margin rate of a position whose notional ends in the tier."""


def _tier_problems(tiers: tuple[Tier, ...]) -> list[str]:
    """Say what is wrong with a list of tiers, each problem with the tier's number (from 1)."""
    problems = []
    if tiers[0].floor_usd != 0.0:
        problems.append(f"tier 1 must start at floor_usd = 0, found {tiers[0].floor_usd:g}")
    for number, tier in enumerate(tiers, start=1):
        if tier.cap_usd <= tier.floor_usd:
            problems.append(
                f"tier {number}: cap_usd must lie above floor_usd, found {tier.cap_usd:g} "
                f"and {tier.floor_usd:g}"
            )
        if tier.mmr >= tier.imr:
            problems.append(
                f"tier {number}: mmr must lie below imr, found {tier.mmr:g} and {tier.imr:g}"
            )
    for number, (lower, upper) in enumerate(pairwise(tiers), start=2):
        if upper.floor_usd != lower.cap_usd:
            problems.append(
                f"tier {number} must start where tier {number - 1} ends, at "
                f"{lower.cap_usd:g}, found floor_usd = {upper.floor_usd:g}"
            )
        for name in ("mmr", "imr"):
            before, after = getattr(lower, name), getattr(upper, name)
            if after < before:
                problems.append(
                    f"tier {number}: {name} must not fall as notional rises, found {after:g} "
                    f"after {before:g}"
                )
    return problems


class Brackets(Spec):
    """The tiers of a contract, from the first dollar up: contiguous, with rates that never fall."""

    tiers: Annotated[tuple[Tier, ...], BeforeValidator(to_tuple), Field(min_length=1)]

    @model_validator(mode="after")
    def _tiers_in_order(self) -> Self:
        problems = _tier_problems(self.tiers)
        if problems:
            raise ValueError("; ".join(problems))
        return self


class ContractBrackets(Brackets):
    """Tiers that the named contracts share."""

    symbols: Texts = Field(min_length=1)


class BaseSchedule(Spec):
    """A base schedule: the margins in force without a forecast, which a policy multiplies."""

    name: str
    description: str
    brackets: Annotated[tuple[ContractBrackets, ...], BeforeValidator(to_tuple)] = ()
    default: Brackets | None = None
    """Tiers of contracts that no brackets name; without it such a contract is refused."""
    delisted: Texts = ()
    """Contracts that have no margins any more, once nothing comes of them."""

    @property
    def named(self) -> frozenset[str]:
        """Contracts that have brackets of their own."""
        return frozenset(symbol for brackets in self.brackets for symbol in brackets.symbols)

    @model_validator(mode="after")
    def _each_contract_once(self) -> Self:
        symbols = [symbol for brackets in self.brackets for symbol in brackets.symbols]
        twice = sorted({symbol for symbol in symbols if symbols.count(symbol) > 1})
        if twice:
            raise ValueError(f"a contract has one list of tiers; found twice: {', '.join(twice)}")
        again = sorted({name for name in self.delisted if self.delisted.count(name) > 1})
        if again:
            raise ValueError(f"delisted names a contract twice: {', '.join(again)}")
        if not symbols and self.default is None:
            raise ValueError("the schedule has no tiers; write [[brackets]] or [default]")
        return self
