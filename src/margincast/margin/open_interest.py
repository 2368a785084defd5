"""Open interest in the initial margin: how much dearer it gets to open where much is open already.

Responsible for the rise of the initial margin rate to 1 between two caps of open interest. What
cannot be liquidated into the book should not be opened.

Source: dYdX v4, ``protocol/x/perpetuals/types/liquidity_tier.go``, GetAdjustedInitialMarginPpm:
``Scaling Factor = (Open Notional - Lower Cap) / (Upper Cap - Lower Cap)``, ``IMF Increase = Scaling
Factor * (1 - Base IMF)``, ``Effective IMF = Min(Base IMF + Max(IMF Increase, 0), 1.0)``. dYdX
rounds the rate down to a millionth; here it is rounded up to the publication grid.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from margincast.core.time import format_duration
from margincast.core.types import FloatArray
from margincast.margin.rounding import rounded_up
from margincast.specs.beside_maintenance import OpenInterest

Texts = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Held:
    """What is known of a contract's open interest at the moment of use.

    Attributes:
        usd: open interest; NaN where it is not known.
        age: time since it was known.
        daily_usd: mean notional traded in a day; NaN where it is not known.
    """

    usd: float
    age: timedelta
    daily_usd: float


@dataclass(frozen=True)
class OpenInterestShares:
    """How far the initial margin of C contracts is on its way to 1; shape (C,) each.

    Attributes:
        usd: open interest; NaN where it is not known.
        share: of the way, 0 to 1.
        reason: in words; empty where nothing is added.
    """

    usd: FloatArray
    share: FloatArray
    reason: Texts

    def contracts(self, chosen: npt.NDArray[np.intp]) -> "OpenInterestShares":
        """Return those of some contracts."""
        return OpenInterestShares(self.usd[chosen], self.share[chosen], self.reason[chosen])

    @classmethod
    def unknown(cls, contracts: int, section: OpenInterest) -> "OpenInterestShares":
        """Return those of contracts of which nothing is known."""
        return cls(
            np.full(contracts, np.nan),
            np.full(contracts, section.unknown_share),
            np.full(contracts, _said(section, "not known"), dtype=object),
        )


def cap_share(
    open_interest: FloatArray, lower_cap: FloatArray | float, upper_cap: FloatArray | float
) -> FloatArray:
    """Return dYdX's scaling factor: 0 up to the lower cap, 1 from the upper one on.

    Args:
        open_interest: notional or days of trading, shape (k,); NaN stays NaN.
        lower_cap: in the same unit.
        upper_cap: above it.
    """
    return np.clip((open_interest - lower_cap) / np.subtract(upper_cap, lower_cap), 0.0, 1.0)


def scaled_rates(imr: FloatArray, share: FloatArray, step: float) -> FloatArray:
    """Return ``imr + share * (1 - imr)``, rounded up to the grid; a share of 0 changes nothing.

    Args:
        imr: initial margin rates, up to 1, shape (k,).
        share: of the way to 1, shape (k,).
        step: of the grid; divides 1.
    """
    raised = rounded_up(np.minimum(imr + share * (1.0 - imr), 1.0), step)
    return np.where(share > 0.0, np.maximum(raised, imr), imr)


def open_interest_shares(
    symbols: Sequence[str], held: Mapping[str, Held], section: OpenInterest
) -> OpenInterestShares:
    """Return how far every contract's initial margin is on its way to 1, and why.

    Open interest that is missing, negative or older than ``max_age``, or has caps in days of
    trading that is not known, takes ``unknown_share``. A contract without caps takes nothing.

    Args:
        symbols: C contracts.
        held: what is known of them; a contract that is absent is not known.
        section: the policy's.
    """
    named = {symbol: caps for caps in section.caps for symbol in caps.symbols}
    usd, share = np.full(len(symbols), np.nan), np.zeros(len(symbols))
    reason = np.full(len(symbols), "", dtype=object)
    for i, symbol in enumerate(symbols):
        own = held.get(symbol, _NOTHING)
        problem = _problem(own, section)
        usd[i] = np.nan if problem else own.usd
        caps, days = named.get(symbol), section.days
        if caps is not None:
            open_, low, high, unit = own.usd, caps.lower_cap_usd, caps.upper_cap_usd, "USD"
        elif days is not None:
            if not problem and not own.daily_usd > 0.0:
                problem = "in days of trading not known, as the contract's trading is not"
            open_ = own.usd / own.daily_usd if own.daily_usd > 0.0 else math.nan
            low, high, unit = days.lower_cap_days, days.upper_cap_days, "days of trading"
        else:
            continue
        if problem:
            share[i], reason[i] = section.unknown_share, _said(section, problem)
            continue
        share[i] = cap_share(np.array([open_]), low, high)[0]
        if share[i] > 0.0:
            reason[i] = (
                f"open interest of {open_:,.4g} {unit}, {share[i]:.4g} of the way from {low:,.4g} "
                f"to {high:,.4g}"
            )
    return OpenInterestShares(usd, share, reason)


_NOTHING = Held(math.nan, timedelta(0), math.nan)


def _problem(held: Held, section: OpenInterest) -> str:
    if math.isnan(held.usd):
        return "not known"
    if not 0.0 <= held.usd < math.inf:
        return f"of {held.usd:,.4g} USD is not believed"
    if not timedelta(0) <= held.age <= section.max_age:
        return f"stale: {held.age} old, allowed {format_duration(section.max_age)}"
    return ""


def _said(section: OpenInterest, problem: str) -> str:
    return f"open interest {problem}: {section.unknown_share:g} of the way to 1"
