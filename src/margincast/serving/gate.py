"""The promotion gate: whether a backtest allows a model to set anybody's margin.

Pure arithmetic on the backtest's evidence. What cannot be told (a missing figure, NaN, a test
period too short) counts as not passed, with its reason: silence never promotes a model.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from margincast.core.digest import digest_of
from margincast.core.time import format_minutes
from margincast.specs.gate import Gate


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
    """

    pinball_ratios: Mapping[str, float] = field(default_factory=dict)
    exceedance_ratios: Mapping[float, float] = field(default_factory=dict)
    expected_exceedances: Mapping[float, float] = field(default_factory=dict)
    crossings: int | None = None


@dataclass(frozen=True)
class GateCheck:
    """One question the gate asked.

    Attributes:
        name: what was looked at, for example ``exceedance ratio at 0.99``.
        observed: what the backtest found; None if it cannot tell.
        allowed: what would pass, as text.
        passed: the answer.
        reason: the answer in words.
    """

    name: str
    observed: float | None
    allowed: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class GateVerdict:
    """The gate's answer: passed only if every check passed."""

    passed: bool
    checks: tuple[GateCheck, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the gate did not pass, one text a failed check; empty if it passed."""
        return tuple(check.reason for check in self.checks if not check.passed)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON-like values."""
        return {"passed": self.passed, "checks": [asdict(check) for check in self.checks]}

    def digest(self) -> str:
        """SHA-256 of the verdict, by which the ledger refers to it."""
        return digest_of(self.to_json())


def evaluate_gate(gate: Gate, evidence: Evidence) -> GateVerdict:
    """Ask every question of the gate's spec of a backtest's evidence.

    Both ends of every band pass. The exceedance band is a band of point estimates; whether the
    test period is long enough for it to mean anything is a check of its own.
    """
    checks = [
        _within(
            f"pinball ratio to {gate.reference}",
            evidence.pinball_ratios.get(gate.reference),
            upper=gate.pinball_ratio_max,
            missing=f"the backtest did not compare with {gate.reference}",
        )
    ]
    for level in gate.gated_levels:
        checks.append(
            _within(
                f"expected independent exceedances at {level:g}",
                _at_level(evidence.expected_exceedances, level),
                lower=gate.minimum_expected_exceedances,
                missing=f"the backtest did not count its expected exceedances at {level:g}",
            )
        )
        checks.append(
            _within(
                f"exceedance ratio at {level:g}",
                _at_level(evidence.exceedance_ratios, level),
                lower=gate.exceedance_ratio_min,
                upper=gate.exceedance_ratio_max,
                missing=f"the backtest has no exceedance ratio at {level:g}",
            )
        )
    checks.append(
        _within(
            "quantile crossings",
            evidence.crossings,
            upper=gate.crossings_max,
            missing="the backtest did not count quantile crossings",
        )
    )
    return GateVerdict(passed=all(check.passed for check in checks), checks=tuple(checks))


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
        replace(
            check,
            name=f"{format_minutes(minutes)}: {check.name}",
            reason=f"{format_minutes(minutes)}: {check.reason}",
        )
        for minutes, verdict in verdicts.items()
        for check in verdict.checks
    ]
    if horizon_crossings is not None:
        checks.append(
            _within(
                "crossings between horizons",
                horizon_crossings,
                upper=gate.crossings_max,
                missing="the backtest did not count crossings between horizons",
            )
        )
    return GateVerdict(passed=all(check.passed for check in checks), checks=tuple(checks))


def _at_level(values: Mapping[float, float], level: float) -> float | None:
    """Look a level up as a number, so that 0.99 computed and 0.99 written are the same."""
    for known, value in values.items():
        if math.isclose(known, level, rel_tol=0.0, abs_tol=1e-9):
            return value
    return None


def _within(
    name: str,
    observed: float | None,
    *,
    missing: str,
    lower: float | None = None,
    upper: float | None = None,
) -> GateCheck:
    if lower is None:
        allowed = f"at most {upper:g}"
    elif upper is None:
        allowed = f"at least {lower:g}"
    else:
        allowed = f"{lower:g} to {upper:g}"
    if observed is None:
        return GateCheck(name, None, allowed, passed=False, reason=f"cannot tell: {missing}")
    value = float(observed)
    if not math.isfinite(value) or value < 0.0:
        reason = f"cannot tell: {name} came out as {value:g}"
        return GateCheck(name, None, allowed, passed=False, reason=reason)
    passed = (lower is None or value >= lower) and (upper is None or value <= upper)
    verb = "is" if passed else "is not"
    return GateCheck(name, value, allowed, passed, f"{name} {value:.6g} {verb} {allowed}")
