"""The account view: equity against requirements, and how far prices may move.

Responsible for the numbers of one account under published margin levels: equity after haircuts,
unrealised profit, initial and maintenance requirement by position and in total, and the distance to
liquidation when one contract moves alone and when all move together. Amounts are exact in decimals
until they are handed out.

Sources: Binance USD-M futures for the margin balance and the margin ratio (maintenance margin over
margin balance, liquidation at 1) and for isolated and cross positions; Binance Portfolio Margin
("uniMMR") for collateral: min(amount x price x rate, amount x price), so that what is owed counts
in full.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from margincast.core.errors import InputError
from margincast.core.types import Side
from margincast.margin.liquidation_price import Distance, Headroom, Requirement
from margincast.margin.rounding import exact

CROSS = "cross"


@dataclass(frozen=True)
class PositionTiers:
    """Published margin levels of one contract's side.

    Attributes:
        maintenance: the maintenance margin as a function of notional.
        imrs: initial margin rates of the tiers, fractions.
    """

    maintenance: Requirement
    imrs: tuple[float, ...]

    def tier(self, notional_usd: Fraction) -> int:
        """Return the number of a notional's tier, from 0.

        Raises:
            InputError: the notional lies above the last tier.
        """
        caps = self.maintenance.caps_usd
        if notional_usd > caps[-1]:
            raise InputError(
                f"a notional of {float(notional_usd):,.2f} USD lies above the last tier, which "
                f"ends at {float(caps[-1]):,.0f} USD"
            )
        return next(number for number, cap in enumerate(caps) if notional_usd <= cap)

    def initial_usd(self, notional_usd: Fraction) -> Fraction:
        """Return the initial margin of a notional: all of it at the rate of its tier.

        Not below the maintenance margin, which may still be that of a higher rate while its fall is
        only announced.
        """
        initial = notional_usd * exact(self.imrs[self.tier(notional_usd)])
        return max(initial, self.maintenance.at(notional_usd))


@dataclass(frozen=True)
class Position:
    """An open position.

    Attributes:
        symbol: the contract.
        side: long or short.
        size: in the contract's own unit, positive.
        entry_price: USD.
        mark_price: USD.
        tiers: margin levels of the contract's side.
        isolated_margin_usd: what was set aside for it alone; None: it shares the account.
    """

    symbol: str
    side: Side
    size: float
    entry_price: float
    mark_price: float
    tiers: PositionTiers
    isolated_margin_usd: float | None = None

    @property
    def notional_usd(self) -> Fraction:
        """Size times mark price."""
        return exact(self.size) * exact(self.mark_price)

    @property
    def signed_usd(self) -> Fraction:
        """Notional, negative for a short: what the account gains when the price doubles."""
        return self.notional_usd if self.side == "long" else -self.notional_usd

    @property
    def unrealised_usd(self) -> Fraction:
        """Unrealised profit at the mark price."""
        gain = exact(self.size) * (exact(self.mark_price) - exact(self.entry_price))
        return gain if self.side == "long" else -gain


@dataclass(frozen=True)
class Collateral:
    """An amount of an asset that stands behind the account.

    Attributes:
        asset: its name.
        amount: in its own unit; negative where it is owed.
        price_usd: of one unit.
        haircut: share of its value that does not count, a fraction.
        contract: contract whose price it follows; None: its price stays (cash, stablecoins).
    """

    asset: str
    amount: float
    price_usd: float
    haircut: Fraction
    contract: str | None = None

    @property
    def value_usd(self) -> Fraction:
        """Amount times price, before the haircut."""
        return exact(self.amount) * exact(self.price_usd)

    @property
    def counted_usd(self) -> Fraction:
        """What counts as equity: less the haircut, and in full what is owed."""
        return self.value_usd * (1 - self.haircut if self.amount > 0 else 1)


@dataclass(frozen=True)
class Pool:
    """Positions and the equity that answers for them: the account's, or one isolated position's.

    Attributes:
        name: ``cross``, or contract and side of the isolated position.
        positions: at least one, or none where only collateral is held.
        collateral: shared collateral; none for an isolated position.
        cash_usd: margin set aside for an isolated position.
    """

    name: str
    positions: tuple[Position, ...]
    collateral: tuple[Collateral, ...] = ()
    cash_usd: float = 0.0

    @property
    def equity_usd(self) -> Fraction:
        """Counted collateral, cash and unrealised profit."""
        counted = sum((each.counted_usd for each in self.collateral), exact(self.cash_usd))
        return counted + self.unrealised_usd

    @property
    def unrealised_usd(self) -> Fraction:
        """Unrealised profit of all positions."""
        return sum((each.unrealised_usd for each in self.positions), Fraction(0))

    @property
    def maintenance_usd(self) -> Fraction:
        """Sum of the positions' maintenance requirements."""
        required = (each.tiers.maintenance.at(each.notional_usd) for each in self.positions)
        return sum(required, Fraction(0))

    @property
    def initial_usd(self) -> Fraction:
        """Sum of the positions' initial requirements."""
        required = (each.tiers.initial_usd(each.notional_usd) for each in self.positions)
        return sum(required, Fraction(0))

    @property
    def margin_ratio(self) -> float | None:
        """Maintenance requirement over equity, liquidation at 1; None without positive equity."""
        equity = self.equity_usd
        return float(self.maintenance_usd / equity) if equity > 0 else None

    @property
    def is_below_maintenance(self) -> bool:
        """Whether the equity does not reach the maintenance requirement."""
        return self.equity_usd < self.maintenance_usd

    def headroom(self, moves: Callable[[str], bool]) -> Headroom:
        """Return equity less maintenance as a function of one move of some contracts.

        Haircuts are shares of value and stay what they are; the value of collateral moves with its
        contract, up and down alike.

        Args:
            moves: says of a contract whether its price moves.
        """
        moving = [each for each in self.positions if moves(each.symbol)]
        followers = [
            each for each in self.collateral if each.contract is not None and moves(each.contract)
        ]
        required = (each.tiers.maintenance.at(each.notional_usd) for each in moving)
        return Headroom(
            self.equity_usd - self.maintenance_usd + sum(required, Fraction(0)),
            sum((each.signed_usd for each in moving), Fraction(0))
            + sum((each.counted_usd for each in followers), Fraction(0)),
            tuple((each.tiers.maintenance, each.notional_usd) for each in moving),
        )


def pools_of(positions: Sequence[Position], collateral: Sequence[Collateral]) -> tuple[Pool, ...]:
    """Return the shared pool and one for every isolated position.

    Args:
        positions: of one account; a contract's side once.
        collateral: all of it shared.

    Raises:
        InputError: a contract's side, or an asset, is there twice.
    """
    held = [f"{each.symbol} {each.side}" for each in positions]
    assets = [each.asset for each in collateral]
    twice = sorted({name for names in (held, assets) for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"an account holds each position and asset once, found twice: {twice}")
    shared = tuple(each for each in positions if each.isolated_margin_usd is None)
    isolated = tuple(
        Pool(f"{each.symbol} {each.side}", (each,), cash_usd=each.isolated_margin_usd)
        for each in positions
        if each.isolated_margin_usd is not None
    )
    return (Pool(CROSS, shared, tuple(collateral)), *isolated)


def distance(pool: Pool, symbol: str | None = None) -> Distance | None:
    """Return the distance to liquidation; None where the pool is below its requirement already.

    Args:
        pool: positions and their equity.
        symbol: the contract that moves alone; None: all contracts and what follows them move by
            the same fraction.
    """
    if pool.is_below_maintenance:
        return None
    return pool.headroom(lambda name: symbol is None or name == symbol).distance()
