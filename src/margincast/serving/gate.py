"""The promotion gate: whether a backtest allows a model to set anybody's margin.

Pure arithmetic on the backtest's evidence. What cannot be told (a missing figure, NaN, a test
period too short) counts as not passed, with its reason: silence never promotes a model.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from typing import TypeVar

from margincast.core.time import format_minutes
from margincast.serving.evidence import (
    AgainstChampion,
    Evidence,
    PooledTest,
    TestCount,
    WindowLoss,
)
from margincast.serving.verdict import GateCheck, GateVerdict, cannot_tell, within
from margincast.specs.gate import BatteryLimits, ChampionLimits, Gate

Value = TypeVar("Value")


def evaluate_gate(gate: Gate, evidence: Evidence) -> GateVerdict:
    """Ask every question of the gate's spec of a backtest's evidence.

    Both ends of every band pass. The exceedance band is a band of point estimates; whether the
    test period is long enough for it to mean anything is a check of its own.
    """
    return GateVerdict.of(
        [
            *_accuracy(gate, evidence),
            *_coverage(gate, evidence),
            *_tests(gate, evidence),
            *_against_champion(gate.champion, evidence.champion),
            *_procyclicality(gate, evidence),
            *_stress(gate, evidence.stress),
            *_data(gate, evidence),
        ]
    )


def verdict_of_horizons(
    gate: Gate, verdicts: Mapping[int, GateVerdict], horizon_crossings: int | None
) -> GateVerdict:
    """Join the verdicts at every horizon; one horizon that fails is enough to say no.

    Args:
        gate: what was asked.
        verdicts: per horizon in minutes, the answer to :func:`evaluate_gate`.
        horizon_crossings: forecasts below that of a shorter horizon; None where horizons are not
            ordered by nature (end points in place of paths).

    Returns:
        The verdict itself where there is one horizon; of several every check with its horizon.
    """
    if len(verdicts) == 1:
        return next(iter(verdicts.values()))
    checks = [
        check
        for minutes, verdict in verdicts.items()
        for check in verdict.named(format_minutes(minutes))
    ]
    if horizon_crossings is not None:
        checks.append(
            within(
                "accuracy",
                "crossings between horizons",
                horizon_crossings,
                upper=gate.crossings_max,
                missing="the backtest did not count crossings between horizons",
            )
        )
    return GateVerdict.of(checks)


def _accuracy(gate: Gate, evidence: Evidence) -> Iterator[GateCheck]:
    yield within(
        "accuracy",
        f"pinball ratio to {gate.reference}",
        evidence.pinball_ratios.get(gate.reference),
        upper=gate.pinball_ratio_max,
        missing=f"the backtest did not compare with {gate.reference}",
    )
    yield within(
        "accuracy",
        "quantile crossings",
        evidence.crossings,
        upper=gate.crossings_max,
        missing="the backtest did not count quantile crossings",
    )


def _coverage(gate: Gate, evidence: Evidence) -> Iterator[GateCheck]:
    for band in gate.coverage:
        level = band.level
        yield within(
            "coverage",
            f"expected independent exceedances at {level:g}",
            _at_level(evidence.expected_exceedances, level),
            lower=band.expected_exceedances_min,
            missing=f"the backtest did not count its expected exceedances at {level:g}",
        )
        yield within(
            "coverage",
            f"exceedance ratio at {level:g}",
            _at_level(evidence.exceedance_ratios, level),
            lower=band.exceedance_ratio_min,
            upper=band.exceedance_ratio_max,
            missing=f"the backtest has no exceedance ratio at {level:g}",
        )


def _tests(gate: Gate, evidence: Evidence) -> Iterator[GateCheck]:
    limits = gate.battery
    for level in limits.levels:
        for test in limits.tests:
            of_test = {at: count for (name, at), count in evidence.tests.items() if name == test}
            yield _test(f"{test} at {level:g}", limits, _at_level(of_test, level))
    for level in limits.pooled_levels:
        yield _pooled(level, _at_level(evidence.pooled, level))


def _test(which: str, limits: BatteryLimits, count: TestCount | None) -> GateCheck:
    name = f"contracts and sides that stand {which}"
    allowed = f"at least {limits.not_failed_min:.0%}"
    if limits.without_power_max < 1.0:
        allowed += f", at most {limits.without_power_max:.0%} too short to have told"
    if count is None or count.series == 0:
        return cannot_tell("tests", name, allowed, f"{which} was not run")
    stand, silent = 1.0 - count.failed / count.series, count.without_power / count.series
    passed = stand >= limits.not_failed_min and silent <= limits.without_power_max
    reason = (
        f"{which}: {count.failed} of {count.series} contracts and sides fail, "
        f"{count.without_power} could not have told; allowed is {allowed}"
    )
    return GateCheck("tests", name, stand, allowed, passed, reason)


def _pooled(level: float, test: PooledTest | None) -> GateCheck:
    name, allowed = f"coverage of all contracts together at {level:g}", "not rejected, with power"
    if test is None:
        return cannot_tell("tests", name, allowed, f"it was not tested at {level:g}")
    if test.verdict not in {"pass", "fail"} or math.isnan(test.p_value):
        return cannot_tell("tests", name, allowed, f"{name} had no power: {test.reason}")
    passed = test.verdict == "pass"
    reason = f"{name} is {'not ' if passed else ''}rejected (p {test.p_value:.3g})"
    return GateCheck("tests", name, test.p_value, allowed, passed, reason)


def _against_champion(limits: ChampionLimits, found: AgainstChampion | None) -> Iterator[GateCheck]:
    name = "no worse than the champion"
    allowed = f"p at least {limits.significance:g}"
    if found is None:
        yield cannot_tell("champion", name, allowed, "the champion was not asked for")
        return
    if not found.champion:
        # the first model has nobody to be worse than; all other checks still stand before it
        reason = found.reason or "there is no champion yet to compare with"
        yield GateCheck("champion", name, None, allowed, passed=True, reason=reason)
        return
    if found.reason:
        check = cannot_tell("champion", name, allowed, f"{found.champion}: {found.reason}")
        if limits.without_comparison == "accept":
            reason = f"{check.reason}; accepted (gate.champion.without_comparison)"
            check = GateCheck("champion", name, None, allowed, passed=True, reason=reason)
        yield check
        return
    over = f"over {found.days} days in common with {found.champion}"
    if not (0.0 <= found.p_worse <= 1.0 and math.isfinite(found.highest_difference)):
        yield cannot_tell("champion", name, allowed, f"the comparison {over} has no error")
        return
    passed = found.p_worse >= limits.significance
    yield GateCheck(
        "champion",
        name,
        found.p_worse,
        allowed,
        passed,
        f"loss {found.difference:+.2%} {over} is {'not ' if passed else ''}worse beyond chance "
        f"(p {found.p_worse:.3g}, {allowed})",
    )
    passed = found.highest_difference <= limits.difference_max
    yield GateCheck(
        "champion",
        "largest extra loss that cannot be excluded",
        found.highest_difference,
        f"at most {limits.difference_max:g}",
        passed,
        f"an extra loss above {limits.difference_max:.2%} of {found.champion}'s "
        f"{'is' if passed else 'cannot be'} excluded: the bound is {found.highest_difference:+.2%}",
    )


def _procyclicality(gate: Gate, evidence: Evidence) -> Iterator[GateCheck]:
    limits = gate.procyclicality
    rise = evidence.largest_one_day_rise
    yield within(
        "procyclicality",
        "largest one-day rise",
        # a forecast that only falls rises by less than nothing, which is no fault
        0.0 if rise is not None and rise < 0.0 else rise,
        upper=limits.largest_one_day_rise_max,
        missing="the backtest has no one-day rise",
    )
    yield within(
        "procyclicality",
        "peak to trough",
        evidence.peak_to_trough,
        upper=limits.peak_to_trough_max,
        missing="the backtest has no peak to trough",
    )


def _stress(gate: Gate, windows: tuple[WindowLoss, ...] | None) -> Iterator[GateCheck]:
    limits = gate.stress
    held = [one for one in windows or () if one.decisions > 0]
    missing = [one.window for one in windows or () if one.decisions == 0]
    yield within(
        "stress",
        "known windows of stress in the test period",
        None if windows is None else len(held),
        lower=limits.windows_min,
        missing="windows of stress were not looked at",
        remark=f" (not in it: {', '.join(missing)})" if missing else "",
    )
    for one in held:
        yield within(
            "stress",
            f"loss beyond margin in {one.window}, relative to {gate.reference}",
            one.shortfall_ratio,
            upper=limits.shortfall_ratio_max,
            missing="not known",
        )


def _data(gate: Gate, evidence: Evidence) -> Iterator[GateCheck]:
    limits, found = gate.data, evidence.data
    figures = (None,) * 5 if found is None else astuple(found)
    most = (
        limits.without_forecast_max,
        limits.without_outcome_max,
        limits.missing_decisions_max,
        limits.faults_max,
        limits.warnings_max,
    )
    names = (
        "share of decisions without our forecast",
        "share of decisions without an outcome",
        "share of decisions lost to missing or stale rows",
        "faults found in the data",
        "warnings about the data",
    )
    for name, figure, upper in zip(names, figures, most, strict=True):
        yield within("data", name, figure, upper=upper, missing="the data was not looked at")


def _at_level(values: Mapping[float, Value], level: float) -> Value | None:
    """Look a level up as a number, so that 0.99 computed and 0.99 written are the same."""
    for known, value in values.items():
        if math.isclose(known, level, rel_tol=0.0, abs_tol=1e-9):
            return value
    return None
