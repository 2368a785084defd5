"""A gate with every kind of limit, and evidence that passes all of it."""

from datetime import timedelta

from margincast.serving.evidence import (
    AgainstChampion,
    DataFigures,
    Evidence,
    PooledTest,
    TestCount,
    WindowLoss,
)
from margincast.specs.gate import (
    BatteryLimits,
    ChampionLimits,
    CoverageBand,
    DataLimits,
    Gate,
    ProcyclicalityLimits,
    StressLimits,
)


def band(level: float, expected: float) -> CoverageBand:
    return CoverageBand(
        level=level,
        exceedance_ratio_min=0.8,
        exceedance_ratio_max=1.25,
        expected_exceedances_min=expected,
    )


GATE = Gate(
    reference="ewma_fhs",
    pinball_ratio_max=0.94,
    crossings_max=0,
    longest_override=timedelta(days=7),
    coverage=(band(0.99, 20.0), band(0.995, 10.0)),
    battery=BatteryLimits(
        tests=("kupiec", "dynamic quantile"),
        levels=(0.99,),
        not_failed_min=0.9,
        without_power_max=0.5,
        pooled_levels=(0.99,),
    ),
    champion=ChampionLimits(significance=0.05, difference_max=0.03, without_comparison="refuse"),
    procyclicality=ProcyclicalityLimits(largest_one_day_rise_max=5.0, peak_to_trough_max=30.0),
    stress=StressLimits(windows_min=1, shortfall_ratio_max=1.25),
    data=DataLimits(
        without_forecast_max=0.01,
        without_outcome_max=0.05,
        missing_decisions_max=0.05,
        faults_max=0,
        warnings_max=2,
    ),
)
GOOD = Evidence(
    pinball_ratios={"ewma_fhs": 0.9, "static": 0.5},
    exceedance_ratios={0.99: 1.05, 0.995: 0.9},
    expected_exceedances={0.99: 60.0, 0.995: 30.0},
    crossings=0,
    tests={
        ("kupiec", 0.99): TestCount(50, 2, 10),
        ("dynamic quantile", 0.99): TestCount(50, 5, 25),
    },
    pooled={0.99: PooledTest("pass", 0.4)},
    champion=AgainstChampion("demo/3", "", 0.6, -0.01, 0.01, 200),
    largest_one_day_rise=3.0,
    peak_to_trough=20.0,
    stress=(WindowLoss("2022-11-08 FTX", 40, 0.9), WindowLoss("2025-10-10", 0, float("nan"))),
    data=DataFigures(0.001, 0.02, 0.01, 0, 1),
)
