"""Liquidation cascade: margin, liquidations and prices that drive each other.

Responsible for comparing margin schedules where a margin may cause the very losses it is there to
cover: on the same price shocks and the same accounts, what is liquidated, how far the price is
pressed, what the insurance fund pays and who is auto-deleveraged.

In each step the price moves by its own shock and by the pressure of earlier liquidations, which
dies out as the book refills (Obizhaeva and Wang 2013, doi:10.1016/j.finmar.2012.09.001); the
schedule sets the margin from that price; accounts below it are liquidated, worst first, against
the book, and press the price of the following steps. The rest of the open interest takes the other
side of all of it, unlevered. Accounts add no collateral and do not come back. Money is neither made
nor lost: accounts, the rest, the fund and the venue hold the same total at every step.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from margincast.backtest.stress.accounts import CascadeAccounts
from margincast.backtest.stress.impact import ImpactLaw
from margincast.backtest.stress.ledger import Ledger
from margincast.backtest.stress.schedules import MarginSchedule
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import require_finite


@dataclass(frozen=True, eq=False)
class CascadeMarket:
    """What happens to the price without liquidations, and what liquidations do to it.

    Attributes:
        log_price: log of the price without liquidations, shape (steps,).
        depth_usd: depth of the book in each step that the impact law refers to, shape (steps,),
            positive.
        impact: law of the move that liquidations make.
        half_life_steps: in which half of the pressing size is taken up by the book, positive.

    Raises:
        InputError: shapes that differ, or values out of range.
    """

    log_price: FloatArray
    depth_usd: FloatArray
    impact: ImpactLaw
    half_life_steps: float

    def __post_init__(self) -> None:
        log_price = require_finite(self.log_price, "log_price")
        depth = require_finite(self.depth_usd, "depth_usd")
        if log_price.ndim != 1 or depth.shape != log_price.shape or depth.min() <= 0.0:
            raise InputError(
                "log_price and depth_usd need one value a step, depths positive; found shapes "
                f"{log_price.shape} and {depth.shape}, smallest depth {depth.min():g}"
            )
        if not self.half_life_steps > 0.0:
            raise InputError(f"half_life_steps must be positive, found {self.half_life_steps:g}")


@dataclass(frozen=True)
class Venue:
    """What stands behind the accounts.

    Attributes:
        fund_usd: insurance fund at the start, zero or more.
        liquidation_fee_rate: of the notional, to the fund, as far as the account can pay it.

    Raises:
        InputError: a value out of range.
    """

    fund_usd: float
    liquidation_fee_rate: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.fund_usd < np.inf or not 0.0 <= self.liquidation_fee_rate < 1.0:
            raise InputError(
                "fund_usd must be zero or more and liquidation_fee_rate in [0, 1), found "
                f"{self.fund_usd:g} and {self.liquidation_fee_rate:g}"
            )


@dataclass(frozen=True, eq=False)
class CascadeRun:
    """One cascade under one schedule; arrays by step of shape (steps,), by account (accounts,).

    Attributes:
        mark_price_usd: with the pressure of the liquidations of earlier steps.
        unpressed_price_usd: without any.
        mmr: maintenance margin rate in force.
        liquidated_usd: notional of the accounts liquidated in the step, at its mark price, those
            auto-deleveraged instead included.
        fund_usd: insurance fund after the step.
        total_usd: money of all together after the step; the same throughout.
        liquidated: whether each account was liquidated.
        margin_induced: those of them whose equity still met the margin of the first step: the
            margin had risen over them.
        bankrupt: those of them whose equity did not pay the whole loss: the fund, winners or the
            venue paid.
        deleveraged: accounts on the winning side whose position was cut.
        shortfall_usd: losses beyond the equity of accounts sold to the book.
        auto_deleveraged_usd: notional closed against winners at bankruptcy prices.
        borne_by_winners_usd: what they lost by that against the mark price.
        uncovered_usd: losses that neither the fund nor winners bore; the venue's own.
    """

    mark_price_usd: FloatArray
    unpressed_price_usd: FloatArray
    mmr: FloatArray
    liquidated_usd: FloatArray
    fund_usd: FloatArray
    total_usd: FloatArray
    liquidated: BoolArray
    margin_induced: BoolArray
    bankrupt: BoolArray
    deleveraged: BoolArray
    shortfall_usd: float
    auto_deleveraged_usd: float
    borne_by_winners_usd: float
    uncovered_usd: float

    def summary(self) -> "CascadeSummary":
        """Return the run's headline figures."""
        return CascadeSummary(
            mean_mmr=float(self.mmr.mean()),
            largest_mmr=float(self.mmr.max()),
            liquidations=int(self.liquidated.sum()),
            margin_induced=int(self.margin_induced.sum()),
            bankruptcies=int(self.bankrupt.sum()),
            liquidated_usd=float(self.liquidated_usd.sum()),
            shortfall_usd=self.shortfall_usd,
            fund_low_usd=float(self.fund_usd.min()),
            auto_deleveraged_usd=self.auto_deleveraged_usd,
            borne_by_winners_usd=self.borne_by_winners_usd,
            uncovered_usd=self.uncovered_usd,
            largest_press=float(np.abs(self.mark_price_usd / self.unpressed_price_usd - 1.0).max()),
        )


@dataclass(frozen=True)
class CascadeSummary:
    """Headline figures of one cascade; see :class:`CascadeRun`.

    ``largest_press`` is the largest distance, a fraction, between the price and what it would have
    been without liquidations; ``fund_low_usd`` the least the insurance fund held.
    """

    mean_mmr: float
    largest_mmr: float
    liquidations: int
    margin_induced: int
    bankruptcies: int
    liquidated_usd: float
    shortfall_usd: float
    fund_low_usd: float
    auto_deleveraged_usd: float
    borne_by_winners_usd: float
    uncovered_usd: float
    largest_press: float


def run_cascade(
    accounts: CascadeAccounts, market: CascadeMarket, schedule: MarginSchedule, venue: Venue
) -> CascadeRun:
    """Run one cascade.

    An account is liquidated whole, at the mean price of walking its own size into the book. If the
    fund cannot bear what it then lacks, it is not sold: its position is closed at its bankruptcy
    price against the accounts of the other side, in the venues' order (profit times leverage);
    see :class:`~margincast.backtest.stress.ledger.Ledger`. Nothing is drawn at random.

    Args:
        accounts: who stands in the contract when the path begins.
        market: shocks, depth and impact.
        schedule: margin in force.
        venue: the insurance fund.

    Raises:
        InputError: the schedule gives a margin outside (0, 1).
    """
    steps = len(market.log_price)
    prices, margins, liquidated_usd, fund, total = np.zeros((5, steps))
    ledger = Ledger(accounts, float(np.exp(market.log_price[0])), venue.fund_usd)
    pressing, fade = 0.0, 0.5 ** (1.0 / market.half_life_steps)
    for step in range(steps):
        base, depth = float(market.log_price[step]), float(market.depth_usd[step])
        pressing *= fade
        # sold contracts press the price down
        price = float(np.exp(base - market.impact.move(pressing, depth)))
        prices[step] = price
        mmr = schedule(prices[: step + 1], margins[:step])
        if not 0.0 < mmr < 1.0:
            raise InputError(
                f"the schedule gave a margin of {mmr:g} at step {step}; it must lie in (0, 1)"
            )
        margins[step] = mmr
        for account in ledger.due(price, mmr):
            size = float(ledger.size[account])
            if size == 0.0:  # deleveraged by one before it in this step
                continue
            liquidated_usd[step] += abs(size) * price
            ledger.mark_liquidated(account, price, float(margins[0]))
            after = pressing + size * price
            fill = float(np.exp(base - market.impact.mean_move(pressing, after, depth)))
            if -ledger.value(account, fill) > ledger.fund_usd:
                size = ledger.deleverage(account, price)
                if size == 0.0:
                    continue
                # nobody was left to take this part: it is sold after all
                after = pressing + size * price
                fill = float(np.exp(base - market.impact.mean_move(pressing, after, depth)))
            ledger.sell(account, fill, venue.liquidation_fee_rate)
            pressing = after
        fund[step], total[step] = ledger.fund_usd, ledger.total_usd(price)
    return CascadeRun(
        mark_price_usd=prices,
        unpressed_price_usd=np.exp(market.log_price),
        mmr=margins,
        liquidated_usd=liquidated_usd,
        fund_usd=fund,
        total_usd=total,
        liquidated=ledger.liquidated[:-1],
        margin_induced=ledger.margin_induced[:-1],
        bankrupt=ledger.bankrupt[:-1],
        deleveraged=ledger.deleveraged[:-1],
        shortfall_usd=ledger.shortfall_usd,
        auto_deleveraged_usd=ledger.auto_deleveraged_usd,
        borne_by_winners_usd=ledger.borne_by_winners_usd,
        uncovered_usd=ledger.uncovered_usd,
    )


def compare_schedules(
    accounts: CascadeAccounts,
    market: CascadeMarket,
    schedules: Mapping[str, MarginSchedule],
    venue: Venue,
) -> dict[str, CascadeSummary]:
    """Run every schedule on the same shocks and accounts.

    A schedule with a higher mean margin costs more; compare those of one ``mean_mmr``.

    Raises:
        InputError: see :func:`run_cascade`.
    """
    return {
        name: run_cascade(accounts, market, schedule, venue).summary()
        for name, schedule in schedules.items()
    }
