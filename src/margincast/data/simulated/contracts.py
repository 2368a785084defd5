"""Contracts of the simulated market: how far each moves, and what closing a position in it costs.

Volatility and jumps set how large a contract's true tail is; depth, spread and open interest set
how much a liquidation adds to it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from margincast.core.errors import InputError, did_you_mean
from margincast.core.units import MINUTES_PER_YEAR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def require(holds: bool, name: str, found: object, allowed: str) -> None:
    """Refuse a parameter that lies outside its range.

    Raises:
        InputError: names the parameter, what was found and what is allowed.
    """
    if not holds:
        raise InputError(f"{name} of the simulated market must be {allowed}, found {found!r}")


def minute_of(instant: datetime) -> int:
    """Return the minute since 1970-01-01 UTC in which a time with a zone lies."""
    return (instant - _EPOCH) // timedelta(minutes=1)


def on_whole_minute(instant: datetime) -> bool:
    """Say whether a time has a zone and lies on a whole minute."""
    return instant.tzinfo is not None and not (instant - _EPOCH) % timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class ContractParameters:
    """One simulated contract: how it moves, and what its book, trades and positions look like.

    An ordinary minute below is one of root mean square volatility; most minutes are calmer.

    Attributes:
        symbol: name of the contract, and of its files.
        start_price_usd: price when the market starts or the contract is listed, USD.
        tick_size_usd: price grid, USD; every published price is a whole number of ticks.
        annual_volatility: root mean square volatility per square root of a year, jumps,
            liquidations and seasonality apart, as a fraction.
        market_correlation: correlation of its diffusive moves with the market factor, in [-1, 1].
        own_volatility_scale: factor on the market's ``own_*_deviation``: how much its volatility
            moves by itself, dimensionless.
        own_jumps_per_day: mean number of jumps a day that no other contract shares.
        jump_size: mean absolute size of a jump, own or shared, as a fraction of the price.
        spread_bps: bid-ask spread in an ordinary minute, basis points of the mid price.
        depth_usd: notional at the best level of each side in an ordinary minute, USD.
        trades_per_minute: mean number of trades in an ordinary minute, at least 1.
        trade_size_usd: mean notional of a trade in an ordinary minute, USD.
        open_interest_usd: open interest that positions return to, USD at the start price.
        listed_at: open of the first minute of trading; None: traded from the market's start.
        delisted_at: end of the last minute of trading; None: traded to the market's end.
        stale_after_delisting: whether an archive goes on with bars of zero volume at the last
            price after delisting, as several venues' do, or ends.
    """

    symbol: str
    start_price_usd: float
    tick_size_usd: float
    annual_volatility: float
    market_correlation: float
    own_volatility_scale: float
    own_jumps_per_day: float
    jump_size: float
    spread_bps: float
    depth_usd: float
    trades_per_minute: float
    trade_size_usd: float
    open_interest_usd: float
    listed_at: datetime | None = None
    delisted_at: datetime | None = None
    stale_after_delisting: bool = False

    def __post_init__(self) -> None:
        """Refuse values for which the process or the book is not defined.

        Raises:
            InputError: a value lies outside its range.
        """
        require(
            bool(self.symbol) and not set(self.symbol) & set("/\\"),
            "symbol",
            self.symbol,
            "a name that can be a file name",
        )
        for name in (
            "start_price_usd",
            "tick_size_usd",
            "annual_volatility",
            "spread_bps",
            "depth_usd",
            "trade_size_usd",
        ):
            value = getattr(self, name)
            require(0.0 < value < math.inf, f"{self.symbol}.{name}", value, "positive")
        for name in ("own_volatility_scale", "own_jumps_per_day", "open_interest_usd"):
            value = getattr(self, name)
            require(0.0 <= value < math.inf, f"{self.symbol}.{name}", value, "zero or more")
        require(
            -1.0 <= self.market_correlation <= 1.0,
            f"{self.symbol}.market_correlation",
            self.market_correlation,
            "between -1 and 1",
        )
        require(
            0.0 <= self.jump_size < 0.5,
            f"{self.symbol}.jump_size",
            self.jump_size,
            "a fraction of the price, at least 0 and below 0.5",
        )
        require(
            1.0 <= self.trades_per_minute < math.inf,
            f"{self.symbol}.trades_per_minute",
            self.trades_per_minute,
            "at least 1",
        )
        for name in ("listed_at", "delisted_at"):
            instant = getattr(self, name)
            require(
                instant is None or on_whole_minute(instant),
                f"{self.symbol}.{name}",
                instant,
                "a time with a zone on a whole minute",
            )
        require(
            self.listed_at is None or self.delisted_at is None or self.listed_at < self.delisted_at,
            f"{self.symbol}.delisted_at",
            self.delisted_at,
            f"after listed_at ({self.listed_at})",
        )

    @property
    def minute_volatility(self) -> float:
        """Root mean square volatility per square root of a minute, as a fraction."""
        return self.annual_volatility / math.sqrt(MINUTES_PER_YEAR)


DEFAULT_CONTRACTS: tuple[ContractParameters, ...] = (
    ContractParameters(
        symbol="SIM-BTC",
        start_price_usd=60_000.0,
        tick_size_usd=0.1,
        annual_volatility=0.50,
        market_correlation=0.9,
        own_volatility_scale=0.5,
        own_jumps_per_day=0.5,
        jump_size=0.004,
        spread_bps=0.3,
        depth_usd=250_000.0,
        trades_per_minute=8.0,
        trade_size_usd=20_000.0,
        open_interest_usd=1e9,
    ),
    ContractParameters(
        symbol="SIM-ETH",
        start_price_usd=3_000.0,
        tick_size_usd=0.01,
        annual_volatility=0.70,
        market_correlation=0.8,
        own_volatility_scale=0.8,
        own_jumps_per_day=0.8,
        jump_size=0.006,
        spread_bps=0.5,
        depth_usd=120_000.0,
        trades_per_minute=6.0,
        trade_size_usd=12_000.0,
        open_interest_usd=4e8,
    ),
    ContractParameters(
        symbol="SIM-ALT",
        start_price_usd=20.0,
        tick_size_usd=0.0001,
        annual_volatility=1.10,
        market_correlation=0.6,
        own_volatility_scale=1.0,
        own_jumps_per_day=2.0,
        jump_size=0.010,
        spread_bps=3.0,
        depth_usd=15_000.0,
        trades_per_minute=4.0,
        trade_size_usd=2_500.0,
        open_interest_usd=1e7,
    ),
)
"""Three contracts in the likeness of a large, a middling and a small perpetual future.

Chosen, not fitted: volatility and tail weight rise and liquidity falls from first to last.
"""


def contract_named(
    contracts: Iterable[ContractParameters], symbol: str, what: str = "simulated contract"
) -> ContractParameters:
    """Return the contract of this name.

    Raises:
        InputError: none is called so; names the nearest and all there are.
    """
    known = {contract.symbol: contract for contract in contracts}
    if symbol not in known:
        raise InputError(
            f"no {what} is called {symbol!r}{did_you_mean(symbol, known)}; "
            f"choose among {', '.join(known)}"
        )
    return known[symbol]


def select_contracts(symbols: Iterable[str]) -> tuple[ContractParameters, ...]:
    """Return the default contracts of these names, in the order asked for.

    Raises:
        InputError: a name is unknown.
    """
    return tuple(contract_named(DEFAULT_CONTRACTS, symbol) for symbol in symbols)
