"""Parameters of the simulated market: what decides how large the true tail is.

The forecasts of the embedded default are judged against a market whose law is known; this module
is that law's table of constants for the market as a whole. Which stylised fact each one carries
stands in ``docs/method/simulated.md``.
"""

import math
from dataclasses import dataclass

from margincast.data.simulated.contracts import (
    DEFAULT_CONTRACTS,
    ContractParameters,
    contract_named,
    require,
    select_contracts,
)

__all__ = [
    "DEFAULT_CONTRACTS",
    "DEFAULT_LEVERAGE_CLASSES",
    "ContractParameters",
    "LeverageClass",
    "MarketParameters",
    "select_contracts",
]


@dataclass(frozen=True, kw_only=True)
class LeverageClass:
    """Open positions of about one leverage.

    Attributes:
        leverage: notional over initial margin, above 1.
        share: share of a contract's open interest that these positions return to, both sides
            together, in [0, 1].
        half_life_minutes: time in which half of them are closed and replaced, minutes.
    """

    leverage: float
    share: float
    half_life_minutes: float

    def __post_init__(self) -> None:
        """Refuse values for which positions are not defined.

        Raises:
            InputError: a value lies outside its range.
        """
        require(1.0 < self.leverage < math.inf, "leverage", self.leverage, "above 1")
        require(0.0 <= self.share <= 1.0, "share of a leverage", self.share, "between 0 and 1")
        require(
            0.0 < self.half_life_minutes < math.inf,
            "half_life_minutes of a leverage",
            self.half_life_minutes,
            "positive",
        )


DEFAULT_LEVERAGE_CLASSES: tuple[LeverageClass, ...] = (
    LeverageClass(leverage=5.0, share=0.10, half_life_minutes=7 * 1440.0),
    LeverageClass(leverage=10.0, share=0.12, half_life_minutes=3 * 1440.0),
    LeverageClass(leverage=25.0, share=0.06, half_life_minutes=1440.0),
    LeverageClass(leverage=50.0, share=0.03, half_life_minutes=480.0),
    LeverageClass(leverage=100.0, share=0.015, half_life_minutes=240.0),
)
"""Chosen, not fitted: higher leverage is rarer and held for a shorter time. The rest of the open
interest is hedged or unlevered and never liquidated."""


@dataclass(frozen=True, kw_only=True)
class MarketParameters:
    """The simulated market as a whole.

    Log-volatility is a sum of four Ornstein-Uhlenbeck processes (a slow and a fast one common to
    all contracts, a slow and a fast one of each contract), a common two-state Markov chain (calm,
    turbulent) and a pattern over the week. Jumps excite themselves. Leveraged positions that the
    price runs over are liquidated, and the liquidation orders move the price.

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
        turbulent_log_volatility: added to the log-volatility of all contracts in turbulence.
        calm_minutes: mean duration of a calm spell, minutes, at least 2.
        turbulent_minutes: mean duration of a turbulent spell, minutes, at least 2.
        leverage_correlation: correlation of the market factor's shock in a minute with the shock
            of the common fast log-volatility; negative: volatility rises when prices fall.
        common_jumps_per_day: mean number of jumps a day that hit all contracts at once.
        jump_branching: mean number of jumps that one jump sets off directly, in [0, 0.95].
        jump_half_life_minutes: half-life of the excitation a jump leaves behind, minutes.
        jump_volatility_power: the intensity of jumps not set off by others is proportional to
            volatility to this power (common volatility for common jumps, the contract's for own).
        downward_jump_share: probability that a jump is downward, in [0, 1].
        season_amplitude: amplitude of the daily cycle of log-volatility.
        season_peak_minute: minute of the UTC day at which the daily cycle peaks.
        weekend_log_volatility: added to log-volatility on Saturdays and Sundays (UTC).
        leverage_classes: open positions by leverage; their shares sum to at most 1.
        long_share: share of the leveraged positions that are long, in [0, 1].
        maintenance_margin_rate: at which the simulated venue liquidates; below every class's
            1 / leverage.
        liquidation_impact: price move, in ordinary spreads, of a liquidation order as large as
            the best level of the book at the volatility of the minute; 0 switches feedback off.
        impact_half_life_minutes: half-life of that move, minutes.
    """

    contracts: tuple[ContractParameters, ...] = DEFAULT_CONTRACTS
    substeps_per_minute: int = 6
    slow_half_life_minutes: float = 4 * 1440.0
    fast_half_life_minutes: float = 45.0
    common_slow_deviation: float = 0.35
    common_fast_deviation: float = 0.35
    own_slow_deviation: float = 0.25
    own_fast_deviation: float = 0.25
    turbulent_log_volatility: float = 0.7
    calm_minutes: float = 4 * 1440.0
    turbulent_minutes: float = 720.0
    leverage_correlation: float = -0.5
    common_jumps_per_day: float = 1.0
    jump_branching: float = 0.5
    jump_half_life_minutes: float = 15.0
    jump_volatility_power: float = 1.5
    downward_jump_share: float = 0.6
    season_amplitude: float = 0.3
    season_peak_minute: float = 15 * 60.0
    weekend_log_volatility: float = -0.25
    leverage_classes: tuple[LeverageClass, ...] = DEFAULT_LEVERAGE_CLASSES
    long_share: float = 0.55
    maintenance_margin_rate: float = 0.004
    liquidation_impact: float = 1.0
    impact_half_life_minutes: float = 20.0

    def __post_init__(self) -> None:
        """Refuse values for which the process is not defined.

        Raises:
            InputError: no contract, a symbol given twice, or a value outside its range.
        """
        symbols = [contract.symbol for contract in self.contracts]
        require(bool(symbols), "contracts", symbols, "at least one contract")
        require(
            len(set(symbols)) == len(symbols), "contracts", symbols, "contracts of different names"
        )
        require(
            self.substeps_per_minute >= 1,
            "substeps_per_minute",
            self.substeps_per_minute,
            "at least 1",
        )
        for names, lowest, highest in _RANGES:
            for name in names:
                value = getattr(self, name)
                allowed = f"at least {lowest:g}" + (
                    f" and at most {highest:g}" if highest < math.inf else ""
                )
                holds = lowest <= value <= highest and math.isfinite(value)
                require(holds, name, value, allowed)
        for name in _POSITIVE:
            value = getattr(self, name)
            require(0.0 < value < math.inf, name, value, "positive")
        for name in _FINITE:
            value = getattr(self, name)
            require(math.isfinite(value), name, value, "finite")
        shares = sum(each.share for each in self.leverage_classes)
        require(shares <= 1.0, "the sum of the leverage classes' shares", shares, "at most 1")
        for each in self.leverage_classes:
            require(
                self.maintenance_margin_rate < 1.0 / each.leverage,
                "maintenance_margin_rate",
                self.maintenance_margin_rate,
                f"below 1 / leverage, and a class has leverage {each.leverage:g}",
            )

    @property
    def turbulent_share(self) -> float:
        """Share of time spent in turbulence."""
        return self.turbulent_minutes / (self.calm_minutes + self.turbulent_minutes)

    def contract(self, symbol: str) -> ContractParameters:
        """Return the contract of this name.

        Raises:
            InputError: the market has no such contract.
        """
        return contract_named(self.contracts, symbol, "contract of this simulated market")


_RANGES: tuple[tuple[tuple[str, ...], float, float], ...] = (
    (
        (
            "common_slow_deviation",
            "common_fast_deviation",
            "own_slow_deviation",
            "own_fast_deviation",
            "common_jumps_per_day",
            "maintenance_margin_rate",
            "liquidation_impact",
        ),
        0.0,
        math.inf,
    ),
    # Both ways out of a state are read off one uniform number: they may not overlap.
    (("calm_minutes", "turbulent_minutes"), 2.0, math.inf),
    (("leverage_correlation",), -1.0, 1.0),
    (("downward_jump_share", "long_share"), 0.0, 1.0),
    (("jump_branching",), 0.0, 0.95),
)
_POSITIVE = (
    "slow_half_life_minutes",
    "fast_half_life_minutes",
    "jump_half_life_minutes",
    "impact_half_life_minutes",
)
_FINITE = (
    "jump_volatility_power",
    "season_amplitude",
    "season_peak_minute",
    "weekend_log_volatility",
    "turbulent_log_volatility",
)
