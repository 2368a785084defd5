"""The change of a margin between two moments, split into lines that add up to it.

Responsible for saying which part of "up 2.3 points" was the market, which the model and which the
policy. A rate is the sum of what its steps added, so the change of a rate is the sum of the changes
of what each step added: no remainder, and no order between the steps but the chain's own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from margincast.margin.chain import Rule
from margincast.margin.explanation import values_of

Cause = Literal["model", "policy file", "data", "policy", "operator"]
"""``policy``: what the same policy did otherwise, its memory included; ``operator``: by hand."""
_CAUSES: Mapping[Rule, Cause] = {
    "forecast": "data",
    "liquidation cost": "data",
    "fallback": "data",
    "override": "operator",
}
"""Steps that are not the policy's own."""


@dataclass(frozen=True)
class Line:
    """A part of a change.

    Attributes:
        cause: who or what it is from.
        what: step, feature or file.
        change: of the maintenance margin rate, a fraction.
    """

    cause: Cause
    what: str
    change: float


@dataclass(frozen=True)
class Change:
    """A change and its parts, which add up to it.

    Attributes:
        before: maintenance margin rate at the earlier moment, a fraction.
        after: at the later one.
        lines: its parts, in the order in which they were taken apart.
    """

    before: float
    after: float
    lines: tuple[Line, ...]

    @property
    def total(self) -> float:
        """The change."""
        return self.after - self.before

    def by_cause(self) -> dict[Cause, float]:
        """Return the sum of the lines of each cause, in their order."""
        causes = dict.fromkeys(line.cause for line in self.lines)
        return {
            cause: math.fsum(line.change for line in self.lines if line.cause == cause)
            for cause in causes
        }

    def record(self) -> dict[str, Any]:
        """Return all of it JSON-like."""
        return {
            "before": self.before,
            "after": self.after,
            "change": self.total,
            "by_cause": self.by_cause(),
            "lines": [
                {"cause": line.cause, "what": line.what, "change": line.change}
                for line in self.lines
            ],
        }


def change_between(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    forecast: Sequence[Line] = (),
    first: Sequence[Line] = (),
    start: float | None = None,
) -> Change:
    """Split the change between two rows of margin levels by the steps of their chains.

    Args:
        before: row of the earlier moment.
        after: of the same contract, side and tier at the later one.
        forecast: lines that the forecast's change is split into; without them it is one line.
        first: lines that led to ``before`` from an earlier rate (another model, another policy
            file).
        start: that rate; the one of ``before`` if not given.
    """
    added = [_added(before), _added(after)]
    steps = [step for step in dict.fromkeys([*added[0], *added[1]]) if step not in _LAST]
    steps += [step for step in _LAST if step in added[0] or step in added[1]]
    lines = list(first)
    for step in steps:
        change = added[1].get(step, 0.0) - added[0].get(step, 0.0)
        if step == "forecast" and forecast:
            lines += forecast
            change -= math.fsum(line.change for line in forecast)
            if change == 0.0:
                continue
            lines.append(Line("data", "forecast, numerical remainder", change))
        else:
            lines.append(Line(_CAUSES.get(step, "policy"), step, change))
    begin = float(before["mmr"]) if start is None else start
    return Change(begin, float(after["mmr"]), tuple(lines))


_LAST: tuple[Rule, ...] = ("fallback", "override")


def _added(row: Mapping[str, Any]) -> dict[Rule, float]:
    """Return what every step of a row added to its rate."""
    return {step: after - before for step, before, after in values_of(row)}
