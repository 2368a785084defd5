"""Position model: how many accounts the margin itself liquidates, and how many the price does.

A margin that rises while a position is held takes the position out although its owner would have
met the margin he entered under. Responsible for counting those liquidations apart from the ones
the price alone makes, and the accounts that are closed with less than nothing left.

One position an account, isolated, of one contract: it enters at the mark price with the equity
that its leverage leaves, is held for a stated time, and nobody adds or withdraws collateral.
Funding and fees are left out.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray, Side
from margincast.scoring.coverage import require_finite

Steps = npt.NDArray[np.intp]

_CELLS_AT_A_TIME = 50_000


@dataclass(frozen=True, eq=False)
class Accounts:
    """Accounts, each with one position of the same side.

    Attributes:
        entry_step: place in the path at which each enters, shape (accounts,).
        leverage: entry notional over entry equity, above 1, shape (accounts,).
        hold_steps: how long each is held, shape (accounts,), at least 1.

    Raises:
        InputError: shapes that differ, no account, or a value outside its range.
    """

    entry_step: Steps
    leverage: FloatArray
    hold_steps: Steps

    def __post_init__(self) -> None:
        shapes = {self.entry_step.shape, self.leverage.shape, self.hold_steps.shape}
        if len(shapes) != 1 or self.leverage.ndim != 1 or self.leverage.size == 0:
            raise InputError(f"accounts need one entry, leverage and holding time each: {shapes}")
        if not (np.isfinite(self.leverage) & (self.leverage > 1.0)).all():
            raise InputError(f"leverage must be above 1, found {self.leverage.min():g}")
        if self.entry_step.min() < 0 or self.hold_steps.min() < 1:
            raise InputError(
                "accounts enter at step 0 or later and are held for 1 step or more, found "
                f"{self.entry_step.min()} and {self.hold_steps.min()}"
            )

    def __len__(self) -> int:
        return len(self.leverage)


def draw_accounts(
    count: int,
    *,
    path_length: int,
    leverages: FloatArray,
    shares: FloatArray,
    mean_hold_steps: float,
    generator: np.random.Generator,
) -> Accounts:
    """Draw accounts that enter at any time alike and are held for geometric times.

    Args:
        count: how many.
        path_length: steps of the path they enter.
        leverages: leverages they choose from, shape (classes,), above 1.
        shares: how many choose each, shape (classes,), not negative, in any unit.
        mean_hold_steps: mean holding time, at least 1.
        generator: seeded source of randomness.

    Raises:
        InputError: a count or time below 1, or shares that are negative, all zero or not one each.
    """
    if count < 1 or path_length < 1 or mean_hold_steps < 1.0:
        raise InputError(
            "count, path_length and mean_hold_steps must be at least 1, found "
            f"{count}, {path_length} and {mean_hold_steps:g}"
        )
    shares = require_finite(shares, "shares")
    if shares.shape != leverages.shape or shares.min() < 0.0 or shares.sum() <= 0.0:
        raise InputError(f"each leverage needs a share of zero or more, found {shares}")
    return Accounts(
        generator.integers(0, path_length, size=count),
        generator.choice(leverages, size=count, p=shares / shares.sum()),
        generator.geometric(1.0 / mean_hold_steps, size=count),
    )


@dataclass(frozen=True, eq=False)
class AccountOutcomes:
    """What became of every account; each array of shape (accounts,).

    Attributes:
        refused: its leverage was above what the margin at entry allows; it never entered.
        unknown: the path ends, or a price or margin is not known, before it shows what either
            margin would have done to the account; left out of all that follows.
        liquidated_step: place in the path at which equity fell below maintenance margin; -1: never.
        liquidated_step_at_entry_margin: the same, had the margin stayed as it was at entry.
        shortfall: loss beyond the equity at liquidation, a fraction of the entry notional; zero
            where there was none.
    """

    refused: BoolArray
    unknown: BoolArray
    liquidated_step: Steps
    liquidated_step_at_entry_margin: Steps
    shortfall: FloatArray

    @property
    def liquidated(self) -> BoolArray:
        """Liquidated at all."""
        return self.liquidated_step >= 0

    @property
    def margin_induced(self) -> BoolArray:
        """Liquidated, and would have been closed in time under the margin at entry."""
        return self.liquidated & (self.liquidated_step_at_entry_margin < 0)

    @property
    def price_induced(self) -> BoolArray:
        """Liquidated, and would have been under the margin at entry as well, then or later."""
        return self.liquidated & (self.liquidated_step_at_entry_margin >= 0)

    @property
    def brought_forward(self) -> BoolArray:
        """Those of the price's liquidations that a risen margin made earlier."""
        return self.price_induced & (self.liquidated_step < self.liquidated_step_at_entry_margin)

    @property
    def spared(self) -> BoolArray:
        """Not liquidated, but would have been had the margin not fallen since entry."""
        return ~self.liquidated & (self.liquidated_step_at_entry_margin >= 0)

    @property
    def bankrupt(self) -> BoolArray:
        """Liquidated with less than nothing left: somebody else paid."""
        return self.shortfall > 0.0

    def counts(self) -> "LiquidationCounts":
        """Return the numbers of accounts, and the mean shortfall of the bankrupt."""
        bankrupt = int(self.bankrupt.sum())
        return LiquidationCounts(
            accounts=len(self.refused),
            refused=int(self.refused.sum()),
            unknown=int(self.unknown.sum()),
            liquidations=int(self.liquidated.sum()),
            margin_induced=int(self.margin_induced.sum()),
            price_induced=int(self.price_induced.sum()),
            brought_forward=int(self.brought_forward.sum()),
            spared=int(self.spared.sum()),
            bankruptcies=bankrupt,
            shortfall_per_bankruptcy=float(self.shortfall.sum()) / bankrupt
            if bankrupt
            else float("nan"),
        )


@dataclass(frozen=True)
class LiquidationCounts:
    """Numbers of accounts; see the properties of :class:`AccountOutcomes`.

    ``accounts`` = refused + unknown + those that entered and whose end is known; ``liquidations`` =
    margin induced + price induced. ``shortfall_per_bankruptcy`` is a fraction of the entry
    notional, NaN without bankruptcies.
    """

    accounts: int
    refused: int
    unknown: int
    liquidations: int
    margin_induced: int
    price_induced: int
    brought_forward: int
    spared: int
    bankruptcies: int
    shortfall_per_bankruptcy: float


def run_accounts(
    mark_price: FloatArray,
    mmr: FloatArray,
    accounts: Accounts,
    side: Side,
    *,
    closing_steps: int = 0,
) -> AccountOutcomes:
    """Run accounts along a path of prices and margins.

    An account that entered at price e with leverage L has, at price p, equity over notional of
    ``1 - (1 - 1/L) e/p`` (long) or ``(1 + 1/L) e/p - 1`` (short). It is liquidated at the first
    step after entry at which that lies below the margin in force.

    Args:
        mark_price: mark prices on a regular grid, shape (steps,), positive; NaN where not known.
        mmr: maintenance margin rates in force at each, shape (steps,), in (0, 1); NaN where not
            known.
        accounts: who enters when.
        side: side of all positions.
        closing_steps: time that closing takes after the margin was missed; the position is closed
            at the worst price of these steps (cut off at the path's end). 0: at once, at the
            price of that step.

    Raises:
        InputError: shapes that differ, a price or margin outside its range, an account that
            enters after the path's end, or a negative closing time.
    """
    _require_path(mark_price, mmr, accounts, closing_steps)
    count, length = len(accounts), len(mark_price)
    entry, sign = accounts.entry_step, 1.0 if side == "long" else -1.0
    # equity over notional is sign * (1 - owed / price)
    owed = (1.0 - sign / accounts.leverage) * mark_price[entry]
    known_entry = np.isfinite(mark_price[entry]) & np.isfinite(mmr[entry])
    refused = known_entry & (1.0 / accounts.leverage <= mmr[entry])
    actual, at_entry = np.full(count, -1), np.full(count, -1)
    unknown = ~known_entry
    entered = np.flatnonzero(known_entry & ~refused)
    # accounts held about as long together, so that few cells are looked at in vain
    entered = entered[np.argsort(accounts.hold_steps[entered], kind="stable")]
    begin = 0
    while begin < len(entered):
        held = np.minimum(accounts.hold_steps[entered[begin:]], length)
        cells = np.arange(1, len(held) + 1) * held
        rows = entered[begin : begin + max(1, int(np.searchsorted(cells, _CELLS_AT_A_TIME)))]
        begin += len(rows)
        ahead = np.arange(1, min(int(accounts.hold_steps[rows].max()), length) + 1)
        step = entry[rows, np.newaxis] + ahead
        within = ahead <= accounts.hold_steps[rows, np.newaxis]
        beyond = step >= length
        place = np.minimum(step, length - 1)
        equity = sign * (1.0 - owed[rows, np.newaxis] / mark_price[place])
        unseen = within & (beyond | np.isnan(equity) | np.isnan(mmr[place]))
        below = within & ~unseen & (equity < mmr[place])
        below_entry = within & ~unseen & (equity < mmr[entry[rows], np.newaxis])
        # What happens after the first unseen step is not known.
        lost = _first(unseen)
        first, first_entry = _first(below), _first(below_entry)
        never = np.iinfo(np.intp).max
        hit, hit_entry = first < lost, first_entry < lost
        # Whether the margin made it is known only once both ends are.
        unknown[rows] = (lost < never) & ~(hit & hit_entry)
        settled = ~unknown[rows]
        actual[rows] = np.where(settled & hit, entry[rows] + 1 + first * hit, -1)
        at_entry[rows] = np.where(
            settled & hit_entry, entry[rows] + 1 + first_entry * hit_entry, -1
        )
    closed = np.flatnonzero(actual >= 0)
    fill = _worst_ahead(mark_price, sign, closing_steps)[actual[closed]]
    shortfall = np.zeros(count)
    # per unit of entry notional: the position is 1 / entry price contracts
    equity_left = sign * (fill - owed[closed]) / mark_price[entry[closed]]
    shortfall[closed] = np.maximum(-equity_left, 0.0)
    return AccountOutcomes(refused, unknown, actual, at_entry, shortfall)


def _first(flags: BoolArray) -> Steps:
    """Return the place of the first true flag of each row; the largest integer without any."""
    place: Steps = np.where(flags.any(axis=1), flags.argmax(axis=1), np.iinfo(np.intp).max)
    return place


def _worst_ahead(mark_price: FloatArray, sign: float, closing_steps: int) -> FloatArray:
    """Return the worst known price of each step and the ``closing_steps`` after it."""
    worst = sign * mark_price
    ahead = worst.copy()
    for shift in range(1, min(closing_steps, len(worst) - 1) + 1):
        ahead[:-shift] = np.fmin(ahead[:-shift], worst[shift:])
    return sign * ahead


def _require_path(
    mark_price: FloatArray, mmr: FloatArray, accounts: Accounts, closing_steps: int
) -> None:
    if mark_price.ndim != 1 or mark_price.shape != mmr.shape:
        raise InputError(
            f"mark_price has shape {mark_price.shape} and mmr {mmr.shape}; "
            "give one price and one margin a step"
        )
    if np.any(np.isinf(mark_price) | (mark_price <= 0.0)):
        raise InputError("mark_price must be positive where it is known")
    if np.any((mmr <= 0.0) | (mmr >= 1.0)):
        raise InputError(
            "mmr must lie strictly between 0 and 1 where it is known; "
            "give fractions of the notional (divide per cents by 100)"
        )
    if int(accounts.entry_step.max()) >= len(mark_price):
        raise InputError(
            f"an account enters at step {accounts.entry_step.max()}, after the last of "
            f"{len(mark_price)} prices"
        )
    if closing_steps < 0:
        raise InputError(f"closing_steps must be zero or more, found {closing_steps}")
