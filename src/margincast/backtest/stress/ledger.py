"""The ledger of a cascade: who holds what, and who pays when an account cannot.

Responsible for the order of the losses beyond margin: the account's equity, the insurance fund,
auto-deleveraging of winners, and only then the venue. Every transaction moves cash and contracts
from one to another, so that neither is made nor lost.
"""

import numpy as np
import numpy.typing as npt

from margincast.backtest.stress.accounts import CascadeAccounts
from margincast.core.types import FloatArray

_LEAST_EQUITY_RATE = 1e-12


class Ledger:
    """Cash and contracts of all accounts; the last one is the rest of the open interest.

    The rest holds what the accounts do not, takes the other side of every liquidation, and is not
    levered, so it is never liquidated. Cash is what an account would have after buying its
    position back for nothing: collateral less the cost of its contracts.

    Args:
        accounts: as they stand at the start.
        price_usd: mark price at which the rest entered.
        fund_usd: the insurance fund.

    Attributes:
        size: contracts of each account, signed, shape (accounts + 1,).
        cash_usd: shape (accounts + 1,).
        fund_usd: the insurance fund, never below zero.
        liquidated: accounts that were liquidated, shape (accounts + 1,).
        margin_induced: liquidated while their equity met the margin of the start.
        bankrupt: liquidated with a loss beyond their equity.
        deleveraged: winners whose position was cut.
        shortfall_usd: losses beyond the equity of accounts sold to the book.
        auto_deleveraged_usd: notional closed against winners, at bankruptcy prices.
        borne_by_winners_usd: what they lost by that against the mark price.
        uncovered_usd: what the fund lacked; the venue's own loss.
    """

    def __init__(self, accounts: CascadeAccounts, price_usd: float, fund_usd: float) -> None:
        rest = -float(accounts.size.sum())
        self.size: FloatArray = np.append(accounts.size, rest)
        self._entry_usd = np.append(accounts.entry_price_usd, price_usd)
        self.cash_usd: FloatArray = np.append(accounts.collateral_usd, 0.0)
        self.cash_usd -= self.size * self._entry_usd
        self.fund_usd = fund_usd
        count = len(accounts) + 1
        self.liquidated, self.margin_induced, self.bankrupt, self.deleveraged = (
            np.zeros(count, dtype=np.bool_) for _ in range(4)
        )
        self.shortfall_usd = self.uncovered_usd = 0.0
        self.auto_deleveraged_usd = self.borne_by_winners_usd = 0.0

    def total_usd(self, price_usd: float) -> float:
        """Return the money of accounts, rest, fund and venue together, at any price the same."""
        equity = float((self.cash_usd + self.size * price_usd).sum())
        return equity + self.fund_usd - self.uncovered_usd

    def value(self, account: int, price_usd: float) -> float:
        """Return what an account is worth if its position is closed at a price, USD."""
        return float(self.cash_usd[account] + self.size[account] * price_usd)

    def due(self, price_usd: float, mmr: float) -> npt.NDArray[np.intp]:
        """Return the accounts below maintenance margin, the least equity a notional first."""
        size, cash = self.size[:-1], self.cash_usd[:-1]
        equity, notional = cash + size * price_usd, np.abs(size) * price_usd
        below = np.flatnonzero((size != 0.0) & (equity < mmr * notional))
        order: npt.NDArray[np.intp] = below[
            np.argsort(equity[below] / notional[below], kind="stable")
        ]
        return order

    def mark_liquidated(self, account: int, price_usd: float, mmr_at_start: float) -> None:
        """Record that an account is liquidated, and whether the margin's rise did it."""
        notional = abs(float(self.size[account])) * price_usd
        self.liquidated[account] = True
        self.margin_induced[account] = self.value(account, price_usd) >= mmr_at_start * notional

    def sell(self, account: int, fill_usd: float, fee_rate: float) -> None:
        """Close an account's position with the rest; the fund takes its fee or pays its deficit."""
        size = float(self.size[account])
        worth = self.value(account, fill_usd)
        self._transfer(account, -1, size, fill_usd)
        if worth >= 0.0:
            fee = min(worth, fee_rate * abs(size) * fill_usd)
            self.cash_usd[account] = worth - fee
            self.fund_usd += fee
            return
        self.bankrupt[account] = True
        self.cash_usd[account] = 0.0
        self.shortfall_usd -= worth
        paid = min(self.fund_usd, -worth)
        self.fund_usd -= paid
        self.uncovered_usd += -worth - paid

    def deleverage(self, account: int, price_usd: float) -> float:
        """Close a position against those of the other side at its bankruptcy price.

        In the order of profit over entry notional times leverage (over leverage for losers), as
        venues rank them (Binance, "What Is Auto-Deleveraging (ADL) and How Does It Work?"), the
        rest last. Nobody is taken whom the bankruptcy price would leave with less than nothing.

        Args:
            account: whose position is closed.
            price_usd: mark price, by which profit and leverage are ranked.

        Returns:
            Contracts that nobody could take, signed; zero as a rule.
        """
        size = float(self.size[account])
        bankruptcy_usd = -float(self.cash_usd[account]) / size
        self.bankrupt[account] = True
        for other in self._ranked(-np.sign(size), bankruptcy_usd, price_usd):
            part = np.sign(size) * min(abs(size), abs(float(self.size[other])))
            self._transfer(account, int(other), part, bankruptcy_usd)
            self.auto_deleveraged_usd += abs(part) * bankruptcy_usd
            self.borne_by_winners_usd += part * (bankruptcy_usd - price_usd)
            self.deleveraged[other] = True
            size = float(self.size[account])
            if size == 0.0:
                # closed at the price that leaves nothing, but for rounding: the rest bears that
                self.cash_usd[-1] += self.cash_usd[account]
                self.cash_usd[account] = 0.0
                break
        return size

    def _ranked(self, sign: float, bankruptcy_usd: float, price_usd: float) -> npt.NDArray[np.intp]:
        notional = np.abs(self.size) * price_usd
        equity = self.cash_usd + self.size * price_usd
        able = self.cash_usd + self.size * bankruptcy_usd >= 0.0
        able[-1] = True
        taken = np.flatnonzero((np.sign(self.size) == sign) & able & (bankruptcy_usd > 0.0))
        profit = sign * (price_usd / self._entry_usd[taken] - 1.0)
        # whoever has no equity left at the mark price has a leverage above all others'
        leverage = 1.0 / np.maximum(equity[taken] / notional[taken], _LEAST_EQUITY_RATE)
        score = np.where(profit > 0.0, profit * leverage, profit / leverage)
        score[taken == len(self.size) - 1] = -np.inf
        order: npt.NDArray[np.intp] = taken[np.argsort(-score, kind="stable")]
        return order

    def _transfer(self, seller: int, buyer: int, size: float, price_usd: float) -> None:
        """Move contracts (signed) from one to another for cash."""
        self.size[seller] -= size
        self.size[buyer] += size
        self.cash_usd[seller] += size * price_usd
        self.cash_usd[buyer] -= size * price_usd
