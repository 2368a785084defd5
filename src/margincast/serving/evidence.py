"""What the promotion gate is shown of a model: the figures of its backtest, and nothing else.

A figure that is missing is not known, and what is not known does not pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TestCount:
    """One test at one level over all contracts and sides.

    Attributes:
        series: contracts and sides.
        failed: of them, after adjustment for their number.
        without_power: of them, too short to have told.
    """

    # keeps pytest, which collects classes by this name, from taking it for a test
    __test__ = False

    series: int
    failed: int
    without_power: int


@dataclass(frozen=True)
class PooledTest:
    """The test of all contracts together at one level.

    Attributes:
        verdict: pass, fail, or no power.
        p_value: of the test; NaN where it has no statistic.
        reason: why it could not tell; otherwise empty.
    """

    verdict: str
    p_value: float
    reason: str = ""


@dataclass(frozen=True)
class WindowLoss:
    """A known window of stress.

    Attributes:
        window: its name.
        decisions: of the test period that meet it; 0: it does not hold the window.
        shortfall_ratio: mean loss beyond margin over the reference's, both margins brought to one
            mean; 1 where neither lost, infinite where only the reference did not.
    """

    window: str
    decisions: int
    shortfall_ratio: float


@dataclass(frozen=True)
class AgainstChampion:
    """The candidate beside the champion, on the decisions both were asked.

    Attributes:
        champion: which version, for example ``perp-8h/3``; empty where there is none.
        reason: why there is no comparison; empty where there is one.
        p_worse: one-sided p-value of "no worse than the champion".
        difference: mean loss less the champion's, a share of the champion's.
        highest_difference: the largest that is not excluded at the gate's significance.
        days: in common.
    """

    champion: str
    reason: str = ""
    p_worse: float = float("nan")
    difference: float = float("nan")
    highest_difference: float = float("nan")
    days: int = 0


@dataclass(frozen=True)
class DataFigures:
    """How good the data of the test period was; see :class:`~margincast.specs.gate.DataLimits`."""

    without_forecast: float
    without_outcome: float
    missing_decisions: float
    faults: int
    warnings: int


@dataclass(frozen=True)
class Evidence:
    """What a backtest on held-out time found, as far as the gate asks for it.

    Attributes:
        pinball_ratios: for each peer by name, the model's mean pinball loss (over sides, contracts
            and decisions) divided by the peer's on the same decisions, averaged over levels.
        exceedance_ratios: for each level, observed over nominal exceedances, pooled over
            contracts and sides.
        expected_exceedances: for each level, independent exceedances the test period expects;
            the effective number of decisions (overlap and clustering taken out) x (1 - level).
        crossings: decisions at which a higher level had a lower forecast; None if not counted.
        tests: by name and level, the tests of every contract and side.
        pooled: by level, the coverage test of all together.
        champion: the comparison with the champion; None if nobody asked for it.
        largest_one_day_rise: relative, median over contracts and sides.
        peak_to_trough: largest over smallest forecast, median over contracts and sides.
        stress: the known windows; None if they were not looked at.
        data: None if it was not looked at.
    """

    pinball_ratios: Mapping[str, float] = field(default_factory=dict)
    exceedance_ratios: Mapping[float, float] = field(default_factory=dict)
    expected_exceedances: Mapping[float, float] = field(default_factory=dict)
    crossings: int | None = None
    tests: Mapping[tuple[str, float], TestCount] = field(default_factory=dict)
    pooled: Mapping[float, PooledTest] = field(default_factory=dict)
    champion: AgainstChampion | None = None
    largest_one_day_rise: float | None = None
    peak_to_trough: float | None = None
    stress: tuple[WindowLoss, ...] | None = None
    data: DataFigures | None = None
