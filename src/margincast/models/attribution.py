"""Why the forecast is what it is: its logarithm split over features, calibration and tail.

For the number behind the margin, "up 40 %: 31 points of it the volatility of the last hours". The
forecast is scale x head x calibration factor x tail multiplier, so its logarithm is a sum. The
log-linear scale splits exactly; the head, a sum of trees, by the SHAP values LightGBM computes
(TreeSHAP: Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9). A sum h = h0 + sum(d) becomes a
sum of logarithms by the logarithmic mean M: log(h / h0) = sum(d) / M(h, h0), without remainder and
in no order (the additive decomposition LMDI: Ang 2005, doi:10.1016/j.enpol.2003.10.010).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from margincast.core.errors import InputError
from margincast.core.types import Side
from margincast.models.parts import TOLERANCE, Parts, Staged, parts_of
from margincast.models.protocol import Panel

OTHERS = "(others)"


@dataclass(frozen=True)
class Explanation:
    """A forecast compared with a reference: average conditions, or another forecast.

    Attributes:
        reference: the forecast compared with, a fraction.
        forecast: the forecast explained, a fraction.
        lines: one line a feature or group, largest first. Among them stand ``calibration`` (the
            contract's own factor), ``online_calibration`` (exceedances since the fit) and
            ``rearrangement`` (levels crossed, and were put in order).
            Columns: ``feature``; ``value_before`` and ``value``, NaN where not known or where there
            is none; ``contribution`` to log(forecast / reference); ``multiplier``, its exponential;
            ``points``, to forecast / reference - 1. Contributions and points each add up exactly.
    """

    reference: float
    forecast: float
    lines: pd.DataFrame

    def record(self) -> dict[str, Any]:
        """Return all of it JSON-like; a value that is not known is None."""
        lines = self.lines.astype(object).where(self.lines.notna(), None)
        return {
            "reference": self.reference,
            "forecast": self.forecast,
            "lines": lines.to_dict("records"),
        }


def explain(
    forecaster: Staged,
    panel: Panel,
    row: int,
    side: Side,
    level: float,
    *,
    groups: Mapping[str, str] | None = None,
    most_lines: int | None = None,
) -> Explanation:
    """Explain one forecast against the model's forecast at average conditions.

    Args:
        forecaster: fitted.
        panel: decisions; a model with a memory needs those before ``row`` too.
        row: which of them.
        side: one of the forecaster's.
        level: one of the forecaster's.
        groups: line a feature is summed into, by feature; others stand alone. Features that say
            nearly the same share one effect at the fit's whim: group them.
        most_lines: the smallest contributions are summed as ``(others)`` so that no more lines
            than these are left.

    Raises:
        InputError: see :func:`parts_of`.
    """
    average, parts = parts_of(forecaster, panel, row, side, level)
    return explain_change(average, parts, groups=groups, most_lines=most_lines)


def explain_change(
    before: Parts,
    after: Parts,
    *,
    groups: Mapping[str, str] | None = None,
    most_lines: int | None = None,
) -> Explanation:
    """Explain one forecast against another of the same model: two dates, or two contracts.

    Args:
        before: what :func:`parts_of` returned for the reference.
        after: the same for the forecast to explain.
        groups: see :func:`explain`.
        most_lines: see :func:`explain`.

    Raises:
        InputError: ``most_lines`` is below 1, or both were not forecast by one model for one
            side and level.
    """
    if most_lines is not None and most_lines < 1:
        raise InputError(f"an explanation has at least 1 line, found most_lines = {most_lines}")
    contributions = _contributions(before, after)
    left = math.log(after.forecast / before.forecast) - math.fsum(contributions.values())
    if not abs(left) <= TOLERANCE:
        raise InputError(
            f"{after.label} and {before.label} were not forecast by one model for one side and "
            f"level (their parts leave {left:.3g} of the logarithm): compare such forecasts only"
        )
    table = _lines(before, after, contributions, groups or {})
    if most_lines is not None and len(table) > most_lines:
        named, others = table.iloc[: most_lines - 1], table.iloc[most_lines - 1 :]
        rest = {"feature": OTHERS, "contribution": math.fsum(others["contribution"])}
        table = pd.DataFrame([*named.to_dict("records"), rest], columns=table.columns)
    table["multiplier"] = np.exp(table["contribution"])
    mean = logarithmic_mean(after.forecast, before.forecast)
    table["points"] = table["contribution"] * (mean / before.forecast)
    return Explanation(before.forecast, after.forecast, table)


def logarithmic_mean(left: float, right: float) -> float:
    """Return (left - right) / log(left / right), and their value where both are equal.

    Between the geometric and the arithmetic mean (Carlson 1972, doi:10.2307/2317088).

    Args:
        left: positive.
        right: positive.
    """
    distance = math.log(left / right)
    # expm1(d) / d by its series where the quotient would lose its digits
    if abs(distance) < 1e-5:
        return right * (1.0 + distance / 2.0 + distance * distance / 6.0)
    return right * math.expm1(distance) / distance


def _contributions(before: Parts, after: Parts) -> dict[str, float]:
    """Split log(after / before) by feature; what both scale and head say of one is summed."""
    heads = [parts.average_head + sum(parts.head.values()) for parts in (before, after)]
    per_unit = 1.0 / logarithmic_mean(heads[1], heads[0])

    def change(name: str) -> float:
        scale = after.scale.get(name, 0.0) - before.scale.get(name, 0.0)
        head = after.head.get(name, 0.0) - before.head.get(name, 0.0)
        rest = after.rest.get(name, 0.0) - before.rest.get(name, 0.0)
        return scale + per_unit * head + rest

    parts = (part for of in (before, after) for part in (of.scale, of.head, of.rest))
    return {name: change(name) for part in parts for name in part}


def _lines(
    before: Parts, after: Parts, contributions: Mapping[str, float], groups: Mapping[str, str]
) -> pd.DataFrame:
    """Sum contributions by line, largest first; a line of several features has no value."""
    members: dict[str, list[str]] = {}
    for name in contributions:
        members.setdefault(groups.get(name, name), []).append(name)

    def value(parts: Parts, names: list[str]) -> float:
        return parts.worth.get(names[0], math.nan) if len(names) == 1 else math.nan

    table = pd.DataFrame(
        {
            "feature": list(members),
            "value_before": [value(before, names) for names in members.values()],
            "value": [value(after, names) for names in members.values()],
            "contribution": [
                math.fsum(contributions[name] for name in names) for names in members.values()
            ],
        }
    )
    return table.sort_values(
        "contribution", key=np.abs, ascending=False, kind="stable", ignore_index=True
    )
