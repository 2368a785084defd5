"""Parameters of the simulated market: what decides how large the true tail is.

The forecasts of the embedded default are judged against a market whose law is known; this module
is that law's table of constants, per contract and for the market as a whole.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from margincast.core.errors import InputError, did_you_mean
from margincast.core.units import MINUTES_PER_YEAR


def _require(holds: bool, name: str, found: object, allowed: str) -> None:
    if not holds:
        raise InputError(f"{name} of the simulated market must be {allowed}, found {found!r}")


@dataclass(frozen=True, kw_only=True)
class ContractParameters:
    """One simulated contract: how it moves, and what its book and trades look like.

    An ordinary minute below is one of root mean square volatility; most minutes are calmer.

    Attributes:
        symbol: name of the contract, and of its files.
        start_price_usd: price at the start, USD.
        tick_size_usd: price grid, USD; every published price is a whole number of ticks.
        annual_volatility: root mean square volatility per square root of a year, jumps and
            seasonality apart, as a fraction.
        market_correlation: correlation of its diffusive moves with the market factor, in [-1, 1].
        own_volatility_scale: factor on the market's ``own_*_deviation``: how much its volatility
            moves by itself, dimensionless.
        own_jumps_per_day: mean number of jumps a day that no other contract shares.
        jump_size: mean absolute size of a jump, own or shared, as a fraction of the price.
        spread_bps: bid-ask spread in an ordinary minute, basis points of the mid price.
        depth_usd: notional at the best level of each side in an ordinary minute, USD.
        trades_per_minute: mean number of trades in an ordinary minute, at least 1.
        trade_size_usd: mean notional of a trade in an ordinary minute, USD.
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

    def __post_init__(self) -> None:
        """Refuse values for which the process or the book is not defined.

        Raises:
            InputError: a value lies outside its range.
        """
        _require(
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
            _require(0.0 < value < math.inf, f"{self.symbol}.{name}", value, "positive")
        for name in ("own_volatility_scale", "own_jumps_per_day"):
            value = getattr(self, name)
            _require(0.0 <= value < math.inf, f"{self.symbol}.{name}", value, "zero or more")
        _require(
            -1.0 <= self.market_correlation <= 1.0,
            f"{self.symbol}.market_correlation",
            self.market_correlation,
            "between -1 and 1",
        )
        _require(
            0.0 <= self.jump_size < 0.5,
            f"{self.symbol}.jump_size",
            self.jump_size,
            "a fraction of the price, at least 0 and below 0.5",
        )
        _require(
            1.0 <= self.trades_per_minute < math.inf,
            f"{self.symbol}.trades_per_minute",
            self.trades_per_minute,
            "at least 1",
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
    ),
    ContractParameters(
        symbol="SIM-ALT",
        start_price_usd=20.0,
        tick_size_usd=0.0001,
        annual_volatility=1.10,
        market_correlation=0.6,
        own_volatility_scale=1.3,
        own_jumps_per_day=2.0,
        jump_size=0.014,
        spread_bps=3.0,
        depth_usd=15_000.0,
        trades_per_minute=4.0,
        trade_size_usd=2_500.0,
    ),
)
"""Three contracts in the likeness of a large, a middling and a small perpetual future.

Chosen, not fitted: volatility and tail weight rise and liquidity falls from first to last.
"""


def select_contracts(symbols: Iterable[str]) -> tuple[ContractParameters, ...]:
    """Return the default contracts of these names, in the order asked for.

    Raises:
        InputError: a name is unknown.
    """
    known = {contract.symbol: contract for contract in DEFAULT_CONTRACTS}
    names = tuple(symbols)
    for name in names:
        if name not in known:
            raise InputError(
                f"no simulated contract is called {name!r}{did_you_mean(name, known)}; "
                f"choose among {', '.join(known)}"
            )
    return tuple(known[name] for name in names)


@dataclass(frozen=True, kw_only=True)
class MarketParameters:
    """The simulated market as a whole: contracts, common volatility, shared jumps, seasonality.

    Log-volatility is a sum of four Ornstein-Uhlenbeck processes: a slow and a fast one common to
    all contracts, and a slow and a fast one of each contract.

    Attributes:
        contracts: the contracts, with different symbols.
        substeps_per_minute: points of the price path in a minute; a bar's high and low are the
            extremes over these points and its open.
        slow_half_life_minutes: half-life of the slow log-volatility processes, minutes.
        fast_half_life_minutes: half-life of the fast log-volatility processes, minutes.
        common_slow_deviation: stationary standard deviation of common slow log-volatility.
        common_fast_deviation: the same, fast.
        own_slow_deviation: the same, slow and of one contract, before its ``own_volatility_scale``.
        own_fast_deviation: the same, fast and of one contract, before its ``own_volatility_scale``.
        leverage_correlation: correlation of the market factor's shock in a minute with the shock
            of the common fast log-volatility; negative: volatility rises when prices fall.
        common_jumps_per_day: mean number of jumps a day that hit all contracts at once.
        jump_volatility_power: jump intensity is proportional to volatility to this power (common
            volatility for common jumps, the contract's for its own), so that jumps cluster.
        downward_jump_share: probability that a jump is downward, in [0, 1].
        season_amplitude: amplitude of the daily cycle of log-volatility.
        season_peak_minute: minute of the UTC day at which the daily cycle peaks.
        weekend_log_volatility: added to log-volatility on Saturdays and Sundays (UTC).
    """

    contracts: tuple[ContractParameters, ...] = DEFAULT_CONTRACTS
    substeps_per_minute: int = 6
    slow_half_life_minutes: float = 4 * 1440.0
    fast_half_life_minutes: float = 45.0
    common_slow_deviation: float = 0.40
    common_fast_deviation: float = 0.35
    own_slow_deviation: float = 0.25
    own_fast_deviation: float = 0.25
    leverage_correlation: float = -0.4
    common_jumps_per_day: float = 1.0
    jump_volatility_power: float = 1.5
    downward_jump_share: float = 0.6
    season_amplitude: float = 0.3
    season_peak_minute: float = 15 * 60.0
    weekend_log_volatility: float = -0.25

    def __post_init__(self) -> None:
        """Refuse values for which the process is not defined.

        Raises:
            InputError: no contract, a symbol given twice, or a value outside its range.
        """
        symbols = [contract.symbol for contract in self.contracts]
        _require(bool(symbols), "contracts", symbols, "at least one contract")
        _require(
            len(set(symbols)) == len(symbols), "contracts", symbols, "contracts of different names"
        )
        _require(
            self.substeps_per_minute >= 1,
            "substeps_per_minute",
            self.substeps_per_minute,
            "at least 1",
        )
        for name in ("slow_half_life_minutes", "fast_half_life_minutes"):
            value = getattr(self, name)
            _require(0.0 < value < math.inf, name, value, "positive")
        for name in (
            "common_slow_deviation",
            "common_fast_deviation",
            "own_slow_deviation",
            "own_fast_deviation",
            "common_jumps_per_day",
        ):
            value = getattr(self, name)
            _require(0.0 <= value < math.inf, name, value, "zero or more")
        for name, lowest in (("leverage_correlation", -1.0), ("downward_jump_share", 0.0)):
            value = getattr(self, name)
            _require(lowest <= value <= 1.0, name, value, f"between {lowest:g} and 1")
        for name in (
            "jump_volatility_power",
            "season_amplitude",
            "season_peak_minute",
            "weekend_log_volatility",
        ):
            value = getattr(self, name)
            _require(math.isfinite(value), name, value, "finite")

    def contract(self, symbol: str) -> ContractParameters:
        """Return the contract of this name.

        Raises:
            InputError: the market has no such contract.
        """
        known = {contract.symbol: contract for contract in self.contracts}
        if symbol not in known:
            raise InputError(
                f"the simulated market has no contract {symbol!r}{did_you_mean(symbol, known)}; "
                f"it has {', '.join(known)}"
            )
        return known[symbol]
