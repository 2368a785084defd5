"""The gate's answer: one check a question, in words that stand without the code beside them."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from margincast.core.digest import digest_of

Section = Literal["accuracy", "coverage", "tests", "champion", "procyclicality", "stress", "data"]


@dataclass(frozen=True)
class GateCheck:
    """One question the gate asked.

    Attributes:
        section: part of the gate.
        name: what was looked at, for example ``exceedance ratio at 0.99``.
        observed: what the backtest found; None if it cannot tell, or there was nothing to find.
        allowed: what would pass, as text.
        passed: the answer.
        reason: the answer in words.
    """

    section: Section
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

    @classmethod
    def of(cls, checks: Iterable[GateCheck]) -> "GateVerdict":
        """Join checks; none at all is no pass."""
        every = tuple(checks)
        return cls(passed=bool(every) and all(check.passed for check in every), checks=every)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the gate did not pass, one text a failed check; empty if it passed."""
        return tuple(check.reason for check in self.checks if not check.passed)

    def named(self, prefix: str) -> tuple[GateCheck, ...]:
        """Return the checks with a prefix before name and reason."""
        return tuple(
            replace(check, name=f"{prefix}: {check.name}", reason=f"{prefix}: {check.reason}")
            for check in self.checks
        )

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON-like values."""
        return {"passed": self.passed, "checks": [asdict(check) for check in self.checks]}

    def digest(self) -> str:
        """SHA-256 of the verdict, by which the ledger refers to it."""
        return digest_of(self.to_json())


def within(
    section: Section,
    name: str,
    observed: float | None,
    *,
    missing: str,
    lower: float | None = None,
    upper: float | None = None,
    remark: str = "",
) -> GateCheck:
    """Ask whether a figure, zero or more, lies within limits; both ends pass.

    Args:
        section: part of the gate.
        name: of the figure.
        observed: the figure; None, NaN, infinite or negative: cannot be told, which does not pass.
        missing: why it is not known, where it is not.
        lower: least that passes.
        upper: most that passes.
        remark: added to the reason.
    """
    if lower is None:
        allowed = f"at most {upper:g}"
    elif upper is None:
        allowed = f"at least {lower:g}"
    else:
        allowed = f"{lower:g} to {upper:g}"
    if observed is None:
        return cannot_tell(section, name, allowed, missing)
    value = float(observed)
    if not math.isfinite(value) or value < 0.0:
        return cannot_tell(section, name, allowed, f"{name} came out as {value:g}")
    passed = (lower is None or value >= lower) and (upper is None or value <= upper)
    verb = "is" if passed else "is not"
    reason = f"{name} {value:.6g} {verb} {allowed}{remark}"
    return GateCheck(section, name, value, allowed, passed, reason)


def cannot_tell(section: Section, name: str, allowed: str, why: str) -> GateCheck:
    """Return the answer to a question without one: it does not pass."""
    return GateCheck(section, name, None, allowed, passed=False, reason=f"cannot tell: {why}")
