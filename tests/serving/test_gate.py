"""The gate passes only what was shown; silence, NaN and short test periods never pass."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.serving.gate import Evidence, evaluate_gate, verdict_of_horizons
from margincast.specs.gate import Gate

GATE = Gate(
    reference="ewma_fhs",
    pinball_ratio_max=0.94,
    exceedance_ratio_min=0.8,
    exceedance_ratio_max=1.25,
    gated_levels=(0.99, 0.995),
    crossings_max=0,
    minimum_expected_exceedances=10.0,
    longest_override=timedelta(days=7),
)
GOOD = Evidence(
    pinball_ratios={"ewma_fhs": 0.9, "static": 0.5},
    exceedance_ratios={0.99: 1.05, 0.995: 0.9},
    expected_exceedances={0.99: 60.0, 0.995: 30.0},
    crossings=0,
)
SPOILED = {
    "worse than the reference": replace(GOOD, pinball_ratios={"ewma_fhs": 0.95}),
    "compared with others only": replace(GOOD, pinball_ratios={"static": 0.1}),
    "pinball not a number": replace(GOOD, pinball_ratios={"ewma_fhs": float("nan")}),
    "too many exceedances": replace(GOOD, exceedance_ratios={0.99: 1.3, 0.995: 0.9}),
    "too few exceedances": replace(GOOD, exceedance_ratios={0.99: 1.05, 0.995: 0.7}),
    "a level without ratio": replace(GOOD, exceedance_ratios={0.99: 1.05}),
    "infinite ratio": replace(GOOD, exceedance_ratios={0.99: float("inf"), 0.995: 0.9}),
    "test period too short": replace(GOOD, expected_exceedances={0.99: 60.0, 0.995: 9.9}),
    "expectation not counted": replace(GOOD, expected_exceedances={0.99: 60.0}),
    "a crossing": replace(GOOD, crossings=1),
    "crossings not counted": replace(GOOD, crossings=None),
}


def test_good_evidence_passes_every_check():
    verdict = evaluate_gate(GATE, GOOD)
    assert verdict.passed
    assert verdict.reasons == ()
    assert [check.name for check in verdict.checks] == [
        "pinball ratio to ewma_fhs",
        "expected independent exceedances at 0.99",
        "exceedance ratio at 0.99",
        "expected independent exceedances at 0.995",
        "exceedance ratio at 0.995",
        "quantile crossings",
    ]


@pytest.mark.parametrize("case", SPOILED)
def test_one_bad_figure_fails_exactly_its_own_check(case):
    verdict = evaluate_gate(GATE, SPOILED[case])
    assert not verdict.passed
    assert len(verdict.reasons) == 1


@pytest.mark.parametrize(
    "case",
    [
        "compared with others only",
        "pinball not a number",
        "a level without ratio",
        "infinite ratio",
        "expectation not counted",
        "crossings not counted",
    ],
)
def test_what_cannot_be_told_says_so(case):
    verdict = evaluate_gate(GATE, SPOILED[case])
    (failed,) = (check for check in verdict.checks if not check.passed)
    assert failed.observed is None
    assert failed.reason.startswith("cannot tell: ")


def test_no_evidence_at_all_fails_every_check():
    verdict = evaluate_gate(GATE, Evidence())
    assert not any(check.passed for check in verdict.checks)


@given(
    pinball=st.floats(allow_nan=True),
    ratio=st.floats(allow_nan=True),
    expected=st.floats(allow_nan=True),
    crossings=st.none() | st.integers(0, 3),
)
def test_the_verdict_is_the_conjunction_of_the_bands(pinball, ratio, expected, crossings):
    evidence = Evidence(
        pinball_ratios={"ewma_fhs": pinball},
        exceedance_ratios={0.99: ratio, 0.995: 1.0},
        expected_exceedances={0.99: expected, 0.995: 20.0},
        crossings=crossings,
    )
    verdict = evaluate_gate(GATE, evidence)
    allowed = (
        0.0 <= pinball <= 0.94
        and 0.8 <= ratio <= 1.25
        and 10.0 <= expected < float("inf")
        and crossings == 0
    )
    assert verdict.passed == allowed
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))["passed"] == allowed
    assert verdict.digest() == evaluate_gate(GATE, evidence).digest()


@given(st.floats(0.5, 2.0), st.floats(0.5, 2.0))
def test_a_lower_pinball_never_turns_a_pass_into_a_failure(first, second):
    lower, higher = sorted((first, second))
    passed = [
        evaluate_gate(GATE, replace(GOOD, pinball_ratios={"ewma_fhs": value})).passed
        for value in (lower, higher)
    ]
    assert passed[0] >= passed[1]


def test_levels_are_compared_as_numbers():
    computed = 1.0 - 0.01
    assert evaluate_gate(
        GATE,
        replace(
            GOOD,
            exceedance_ratios={computed + 1e-15: 1.0, 0.995: 1.0},
            expected_exceedances={computed - 1e-15: 60.0, 0.995: 30.0},
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
    assert len(unordered.checks) == 12
