"""The gate passes only what was shown; silence, NaN and short test periods never pass."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serving.gate_cases import GATE, GOOD

from margincast.serving.evidence import (
    AgainstChampion,
    Evidence,
    PooledTest,
    TestCount,
    WindowLoss,
)
from margincast.serving.gate import evaluate_gate, verdict_of_horizons
from margincast.serving.verdict import GateVerdict

NAN, INFINITY = float("nan"), float("inf")
CHAMPION, DATA = GOOD.champion, GOOD.data
UNTOLD = {
    "compared with others only": replace(GOOD, pinball_ratios={"static": 0.1}),
    "pinball not a number": replace(GOOD, pinball_ratios={"ewma_fhs": NAN}),
    "a level without ratio": replace(GOOD, exceedance_ratios={0.99: 1.05}),
    "infinite ratio": replace(GOOD, exceedance_ratios={0.99: INFINITY, 0.995: 0.9}),
    "expectation not counted": replace(GOOD, expected_exceedances={0.99: 60.0}),
    "crossings not counted": replace(GOOD, crossings=None),
    "a test not run": replace(GOOD, tests={("kupiec", 0.99): TestCount(50, 0, 0)}),
    "a test of nobody": replace(GOOD, tests={**GOOD.tests, ("kupiec", 0.99): TestCount(0, 0, 0)}),
    "no pooled test": replace(GOOD, pooled={}),
    "a pooled test without power": replace(
        GOOD, pooled={0.99: PooledTest("no power", 0.8, "too short")}
    ),
    "champion not asked for": replace(GOOD, champion=None),
    "champion not comparable": replace(GOOD, champion=AgainstChampion("demo/3", "no days")),
    "champion on one day": replace(GOOD, champion=replace(CHAMPION, highest_difference=INFINITY)),
    "champion without p": replace(GOOD, champion=replace(CHAMPION, p_worse=NAN)),
    "no one-day rise": replace(GOOD, largest_one_day_rise=None),
    "one-day rise not a number": replace(GOOD, largest_one_day_rise=NAN),
    "peak to trough not a number": replace(GOOD, peak_to_trough=NAN),
    "windows not looked at": replace(GOOD, stress=None),
    "only the reference held in a window": replace(
        GOOD, stress=(WindowLoss("2022-11-08 FTX", 40, INFINITY),)
    ),
    "share of forecasts not known": replace(GOOD, data=replace(DATA, without_forecast=NAN)),
}
SPOILED = UNTOLD | {
    "worse than the reference": replace(GOOD, pinball_ratios={"ewma_fhs": 0.95}),
    "too many exceedances": replace(GOOD, exceedance_ratios={0.99: 1.3, 0.995: 0.9}),
    "too few exceedances": replace(GOOD, exceedance_ratios={0.99: 1.05, 0.995: 0.7}),
    "test period too short": replace(GOOD, expected_exceedances={0.99: 60.0, 0.995: 9.9}),
    "a crossing": replace(GOOD, crossings=1),
    "too many contracts fail a test": replace(
        GOOD, tests={**GOOD.tests, ("kupiec", 0.99): TestCount(50, 6, 0)}
    ),
    "too many could not have told": replace(
        GOOD, tests={**GOOD.tests, ("kupiec", 0.99): TestCount(50, 0, 26)}
    ),
    "all together rejected": replace(GOOD, pooled={0.99: PooledTest("fail", 0.01)}),
    "worse than the champion": replace(GOOD, champion=replace(CHAMPION, p_worse=0.049)),
    "worse by how much nobody knows": replace(
        GOOD, champion=replace(CHAMPION, highest_difference=0.031)
    ),
    "rises too fast": replace(GOOD, largest_one_day_rise=5.1),
    "too high a peak": replace(GOOD, peak_to_trough=30.1),
    "no window of stress": replace(GOOD, stress=(WindowLoss("2025-10-10", 0, NAN),)),
    "lost too much in a window": replace(GOOD, stress=(WindowLoss("2022-11-08 FTX", 40, 1.3),)),
    "decisions without forecast": replace(GOOD, data=replace(DATA, without_forecast=0.02)),
    "decisions without outcome": replace(GOOD, data=replace(DATA, without_outcome=0.06)),
    "decisions missing": replace(GOOD, data=replace(DATA, missing_decisions=0.06)),
    "a fault in the data": replace(GOOD, data=replace(DATA, faults=1)),
    "many warnings": replace(GOOD, data=replace(DATA, warnings=3)),
}


def test_good_evidence_passes_every_check():
    verdict = evaluate_gate(GATE, GOOD)
    assert verdict.passed, verdict.reasons
    assert verdict.reasons == ()
    assert [(check.section, check.name) for check in verdict.checks] == [
        ("accuracy", "pinball ratio to ewma_fhs"),
        ("accuracy", "quantile crossings"),
        ("coverage", "expected independent exceedances at 0.99"),
        ("coverage", "exceedance ratio at 0.99"),
        ("coverage", "expected independent exceedances at 0.995"),
        ("coverage", "exceedance ratio at 0.995"),
        ("tests", "contracts and sides that stand kupiec at 0.99"),
        ("tests", "contracts and sides that stand dynamic quantile at 0.99"),
        ("tests", "coverage of all contracts together at 0.99"),
        ("champion", "no worse than the champion"),
        ("champion", "largest extra loss that cannot be excluded"),
        ("procyclicality", "largest one-day rise"),
        ("procyclicality", "peak to trough"),
        ("stress", "known windows of stress in the test period"),
        ("stress", "loss beyond margin in 2022-11-08 FTX, relative to ewma_fhs"),
        ("data", "share of decisions without our forecast"),
        ("data", "share of decisions without an outcome"),
        ("data", "share of decisions lost to missing or stale rows"),
        ("data", "faults found in the data"),
        ("data", "warnings about the data"),
    ]


@pytest.mark.parametrize("case", SPOILED)
def test_one_bad_figure_fails_exactly_its_own_check(case):
    verdict = evaluate_gate(GATE, SPOILED[case])
    assert not verdict.passed
    assert len(verdict.reasons) == 1


@pytest.mark.parametrize("case", UNTOLD)
def test_what_cannot_be_told_says_so_and_does_not_pass(case):
    verdict = evaluate_gate(GATE, UNTOLD[case])
    (failed,) = (check for check in verdict.checks if not check.passed)
    assert failed.observed is None
    assert failed.reason.startswith("cannot tell: ")


def test_no_evidence_at_all_fails_every_check():
    verdict = evaluate_gate(GATE, Evidence())
    assert not any(check.passed for check in verdict.checks)
    assert not GateVerdict.of(()).passed


def test_the_first_model_has_no_champion_to_be_worse_than_and_the_verdict_says_so():
    verdict = evaluate_gate(GATE, replace(GOOD, champion=AgainstChampion("", "nobody yet")))
    assert verdict.passed
    (check,) = (check for check in verdict.checks if check.section == "champion")
    assert (check.observed, check.reason) == (None, "nobody yet")


def test_a_champion_that_cannot_be_compared_passes_only_where_the_spec_says_so():
    accepting = GATE.model_copy(
        update={"champion": GATE.champion.model_copy(update={"without_comparison": "accept"})}
    )
    evidence = replace(GOOD, champion=AgainstChampion("demo/3", "no days in common"))
    verdict = evaluate_gate(accepting, evidence)
    assert verdict.passed
    (check,) = (check for check in verdict.checks if check.section == "champion")
    assert "no days in common; accepted" in check.reason
    # it accepts silence, not a worse model
    assert not evaluate_gate(accepting, SPOILED["worse than the champion"]).passed


def test_windows_the_test_period_does_not_hold_are_named():
    check = next(
        check
        for check in evaluate_gate(GATE, GOOD).checks
        if check.name.startswith("known windows")
    )
    assert check.reason.endswith("(not in it: 2025-10-10)")


def test_a_test_that_could_not_have_told_is_counted_beside_those_that_did():
    check = next(c for c in evaluate_gate(GATE, GOOD).checks if "dynamic" in c.name)
    assert "5 of 50 contracts and sides fail, 25 could not have told" in check.reason
    assert check.observed == pytest.approx(0.9)


@given(
    pinball=st.floats(allow_nan=True),
    ratio=st.floats(allow_nan=True),
    expected=st.floats(allow_nan=True),
    crossings=st.none() | st.integers(0, 3),
    rise=st.none() | st.floats(allow_nan=True),
)
def test_the_verdict_is_the_conjunction_of_the_limits(pinball, ratio, expected, crossings, rise):
    evidence = replace(
        GOOD,
        pinball_ratios={"ewma_fhs": pinball},
        exceedance_ratios={0.99: ratio, 0.995: 1.0},
        expected_exceedances={0.99: expected, 0.995: 20.0},
        crossings=crossings,
        largest_one_day_rise=rise,
    )
    verdict = evaluate_gate(GATE, evidence)
    allowed = (
        0.0 <= pinball <= 0.94
        and 0.8 <= ratio <= 1.25
        and 20.0 <= expected < INFINITY
        and crossings == 0
        and rise is not None
        and rise <= 5.0
    )
    assert verdict.passed == allowed
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))["passed"] == allowed
    assert verdict.digest() == evaluate_gate(GATE, evidence).digest()


def worsened(evidence: Evidence, figure: str, by: float) -> Evidence:
    """The same evidence with one figure worse by a share ``by``, or at its worst for infinity."""
    champion, data = evidence.champion, evidence.data
    assert champion is not None
    assert data is not None
    more = INFINITY if math.isinf(by) else 1.0 + by
    whole = 1000 if math.isinf(by) else round(10 * by)
    less = 1.0 / more
    kupiec = ("kupiec", 0.99)
    tested = evidence.tests[kupiec]
    fail = min(tested.series, tested.failed + whole)
    silent = min(tested.series, tested.without_power + whole)
    changes = {
        "pinball": {"pinball_ratios": {"ewma_fhs": evidence.pinball_ratios["ewma_fhs"] * more}},
        "expected": {
            "expected_exceedances": {k: v * less for k, v in evidence.expected_exceedances.items()}
        },
        "crossings": {"crossings": (evidence.crossings or 0) + whole},
        "failed": {"tests": {**evidence.tests, kupiec: replace(tested, failed=fail)}},
        "silent": {"tests": {**evidence.tests, kupiec: replace(tested, without_power=silent)}},
        "p_worse": {"champion": replace(champion, p_worse=champion.p_worse * less)},
        "bound": {
            "champion": replace(champion, highest_difference=champion.highest_difference + by)
        },
        "rise": {"largest_one_day_rise": (evidence.largest_one_day_rise or 0.0) + by},
        "peak": {"peak_to_trough": (evidence.peak_to_trough or 1.0) * more},
        "stress": {
            "stress": tuple(
                replace(one, shortfall_ratio=one.shortfall_ratio * more)
                for one in evidence.stress or ()
            )
        },
        "without_forecast": {"data": replace(data, without_forecast=data.without_forecast + by)},
        "missing": {"data": replace(data, missing_decisions=data.missing_decisions + by)},
        "faults": {"data": replace(data, faults=data.faults + whole)},
    }
    return replace(evidence, **changes[figure])


FIGURES = (
    "pinball", "expected", "crossings", "failed", "silent", "p_worse", "bound", "rise", "peak",
    "stress", "without_forecast", "missing", "faults",
)  # fmt: skip
amounts = st.floats(0.0, 3.0) | st.just(INFINITY)


@given(
    start=st.sampled_from([GOOD, *SPOILED.values()]),
    steps=st.lists(st.tuples(st.sampled_from(FIGURES), amounts), min_size=1, max_size=6),
)
def test_a_worse_figure_never_turns_a_refusal_into_a_pass(start, steps):
    if start.champion is None or start.data is None or ("kupiec", 0.99) not in start.tests:
        return
    if "ewma_fhs" not in start.pinball_ratios:
        return
    evidence, passed = start, evaluate_gate(GATE, start).passed
    for figure, by in steps:
        evidence = worsened(evidence, figure, by)
        now = evaluate_gate(GATE, evidence).passed
        assert now <= passed
        passed = now


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_at_its_worst_is_refused(figure):
    assert not evaluate_gate(GATE, worsened(GOOD, figure, INFINITY)).passed


def test_levels_are_compared_as_numbers():
    computed = 1.0 - 0.01
    assert evaluate_gate(
        GATE,
        replace(
            GOOD,
            exceedance_ratios={computed + 1e-15: 1.0, 0.995: 1.0},
            expected_exceedances={computed - 1e-15: 60.0, 0.995: 30.0},
            pooled={computed + 1e-15: PooledTest("pass", 0.4)},
            tests={(name, computed + 1e-15): count for (name, _), count in GOOD.tests.items()},
        ),
    ).passed


def test_one_horizon_has_the_verdict_it_has_alone():
    verdict = evaluate_gate(GATE, GOOD)
    assert verdict_of_horizons(GATE, {480: verdict}, 0) == verdict


@pytest.mark.parametrize("case", SPOILED)
def test_a_horizon_that_fails_fails_all_and_is_named(case):
    good, bad = evaluate_gate(GATE, GOOD), evaluate_gate(GATE, SPOILED[case])
    verdict = verdict_of_horizons(GATE, {60: good, 480: bad}, 0)
    assert not verdict.passed
    assert verdict.reasons == tuple(f"8h: {reason}" for reason in bad.reasons)
    assert [check.name for check in verdict.checks] == [
        *(f"1h: {check.name}" for check in good.checks),
        *(f"8h: {check.name}" for check in bad.checks),
        "crossings between horizons",
    ]


def test_crossings_between_horizons_fail_where_horizons_are_ordered():
    verdicts = dict.fromkeys((60, 480), evaluate_gate(GATE, GOOD))
    assert verdict_of_horizons(GATE, verdicts, 0).passed
    crossed = verdict_of_horizons(GATE, verdicts, 1)
    assert crossed.reasons == ("crossings between horizons 1 is not at most 0",)
    unordered = verdict_of_horizons(GATE, verdicts, None)
    assert unordered.passed
    assert len(unordered.checks) == 40
