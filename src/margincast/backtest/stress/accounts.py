"""Leveraged accounts: who stands how close to liquidation when a cascade may begin.

Responsible for the accounts that a cascade runs over: margin schedules are compared on the same
ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.data.simulated.parameters import LeverageClass
from margincast.scoring.coverage import require_finite


@dataclass(frozen=True, eq=False)
class CascadeAccounts:
    """Isolated positions in one contract, one an account; arrays of shape (accounts,).

    Attributes:
        size: contracts of the underlying, above zero long, below zero short.
        entry_price_usd: at which each was opened.
        collateral_usd: posted when it was opened.

    Raises:
        InputError: shapes that differ, no account, or a value out of range.
    """

    size: FloatArray
    entry_price_usd: FloatArray
    collateral_usd: FloatArray

    def __post_init__(self) -> None:
        size = require_finite(self.size, "size")
        for name in ("entry_price_usd", "collateral_usd"):
            values = require_finite(getattr(self, name), name)
            if values.shape != size.shape or values.min() <= 0.0:
                raise InputError(
                    f"{name} must be positive and of shape {size.shape}, found shape "
                    f"{values.shape} with smallest {values.min():g}"
                )
        if size.ndim != 1 or np.any(size == 0.0):
            raise InputError("size must hold one position an account, none of them zero")

    def __len__(self) -> int:
        return len(self.size)

    def equity_usd(self, price_usd: float) -> FloatArray:
        """Return collateral and unrealised profit at a mark price, USD."""
        equity: FloatArray = self.collateral_usd + self.size * (price_usd - self.entry_price_usd)
        return equity


def draw_accounts(
    count: int,
    classes: Sequence[LeverageClass],
    *,
    price_usd: float,
    open_interest_usd: float,
    long_share: float,
    mmr: float,
    size_deviation: float,
    generator: np.random.Generator,
) -> CascadeAccounts:
    """Draw accounts as they stand after a long time at one price.

    As in the simulated market, equity over notional lies evenly in a band as wide as the distance
    of the class to liquidation, ``w = 1 / leverage - mmr``: between ``mmr + w/2`` and
    ``mmr + 3w/2``, so that the average account stands one width away. Entry prices follow from it.

    Args:
        count: accounts.
        classes: leverages and their shares of the open interest; what is left is hedged or
            unlevered and has no account.
        price_usd: mark price at which they stand.
        open_interest_usd: notional of all longs of the contract together with all shorts, as the
            simulated market counts it; leveraged accounts hold the classes' shares of it.
        long_share: share of their notional that is long, in (0, 1).
        mmr: maintenance margin rate in force, below every class's 1 / leverage.
        size_deviation: standard deviation of the log of an account's notional; 0: all alike.
        generator: seeded source of randomness.

    Raises:
        InputError: fewer accounts than two a class, or a value out of range.
    """
    shares = np.array([each.share for each in classes])
    leverages = np.array([each.leverage for each in classes])
    if not classes or shares.sum() <= 0.0 or count < 2 * len(classes):
        raise InputError(
            f"give classes with a share above zero and two accounts or more for each, found "
            f"{len(classes)} classes and {count} accounts"
        )
    for name, value in (("price_usd", price_usd), ("open_interest_usd", open_interest_usd)):
        if not 0.0 < value < np.inf:
            raise InputError(f"{name} must be positive, found {value:g}")
    if not 0.0 < long_share < 1.0 or not size_deviation >= 0.0:
        raise InputError(
            "long_share must lie in (0, 1) and size_deviation be zero or more, found "
            f"{long_share:g} and {size_deviation:g}"
        )
    if not 0.0 < mmr < 1.0 / leverages.max():
        raise InputError(
            f"mmr must be above 0 and below 1 / leverage ({1.0 / leverages.max():g} for the "
            f"highest), found {mmr:g}"
        )
    # Every class and side has an account, so that the shares come out exactly.
    group = np.arange(count) % (2 * len(classes))
    of_class, sign = group // 2, np.where(group % 2 == 0, 1.0, -1.0)
    weight = np.exp(size_deviation * generator.standard_normal(count))
    of_group = np.bincount(group, weights=weight)[group]
    side_share = np.where(sign > 0.0, long_share, 1.0 - long_share)
    notional = open_interest_usd * shares[of_class] * side_share * weight / of_group
    held = shares[of_class] > 0.0
    width = 1.0 / leverages[of_class] - mmr
    equity_rate = mmr + width * generator.uniform(0.5, 1.5, size=count)
    size = sign * notional / price_usd
    entry = price_usd * (1.0 - sign * equity_rate) / (1.0 - sign / leverages[of_class])
    collateral = np.abs(size) * entry / leverages[of_class]
    return CascadeAccounts(size[held], entry[held], collateral[held])
