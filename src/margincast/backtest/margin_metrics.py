"""Margin metrics: what a margin cost, how often and how far it was exceeded, and who paid for that.

Responsible for the figures a venue's risk committee asks for, by contract, side, notional tier and
volatility regime: mean margin, exceedances, shortfall, and the draw on the insurance fund per unit
of open interest with each contract's share of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_finite, require_pairs

Labels = npt.NDArray[np.str_]
Grouping = Literal["contract", "side", "tier", "regime"]
GROUPINGS: tuple[Grouping, ...] = ("contract", "side", "tier", "regime")

CALM, NORMAL, TURBULENT, UNKNOWN = "calm", "normal", "turbulent", "unknown"


@dataclass(frozen=True, eq=False)
class MarginSample:
    """Decisions, the margin in force at each, and what came of it; arrays of shape (n,).

    Attributes:
        outcome: adverse excursions, simple fractions of the decision price.
        margin: maintenance margin rates in force, fractions of the notional.
        contract: symbols.
        side: ``long`` or ``short``; of the position at risk.
        tier: notional tiers; empty where margins do not differ by tier.
        regime: volatility regimes, see :func:`volatility_regimes`; empty where not asked for.
        open_interest_usd: open interest of that contract, side and tier at the decision; None:
            one unit at every decision, so that draws are in units of open interest.

    Raises:
        InputError: no decision; shapes that differ; NaN, infinite or negative values; per cents.
    """

    outcome: FloatArray
    margin: FloatArray
    contract: Labels
    side: Labels
    tier: Labels = field(default_factory=lambda: np.array([], dtype=np.str_))
    regime: Labels = field(default_factory=lambda: np.array([], dtype=np.str_))
    open_interest_usd: FloatArray | None = None

    def __post_init__(self) -> None:
        outcome, _ = require_pairs(self.outcome, self.margin)
        for name in GROUPINGS:
            labels = getattr(self, name)
            optional = name in ("tier", "regime") and labels.size == 0
            if labels.shape != outcome.shape and not optional:
                raise InputError(
                    f"{name} has shape {labels.shape} and the outcomes {outcome.shape}; "
                    "every decision needs one label"
                )
        if self.open_interest_usd is not None:
            weights = require_finite(self.open_interest_usd, "open_interest_usd")
            if weights.shape != outcome.shape or weights.min() < 0.0:
                raise InputError(
                    "open_interest_usd must be zero or more at every decision, found shape "
                    f"{weights.shape} with smallest {weights.min():g} for outcomes {outcome.shape}"
                )


@dataclass(frozen=True)
class MarginFigures:
    """Figures of the decisions of one group.

    The fund's draw supposes that every open position of the side stands exactly at its maintenance
    margin when the outcome begins: the most the fund can be asked for, and the same supposition for
    every margin compared. It adds up over decisions, so it is a loss only where outcomes do not
    overlap.

    Attributes:
        group: what the decisions have in common, label by grouping; empty for all together.
        decisions: number of them.
        exceedances: outcomes strictly beyond the margin.
        exceedance_share: their share.
        mean_margin: what traders pay, a fraction of the notional.
        mean_shortfall: loss beyond margin a decision, zero where it held.
        shortfall_per_exceedance: NaN without any.
        worst_shortfall: the largest.
        fund_draw: sum of shortfall times open interest: USD, or units of open interest where none
            was given.
        fund_draw_per_open_interest: mean draw a decision over mean open interest; NaN without
            open interest.
        share_of_draw: of the draw of the whole sample; NaN where nothing was drawn.
    """

    group: dict[Grouping, str]
    decisions: int
    exceedances: int
    exceedance_share: float
    mean_margin: float
    mean_shortfall: float
    shortfall_per_exceedance: float
    worst_shortfall: float
    fund_draw: float
    fund_draw_per_open_interest: float
    share_of_draw: float


def margin_figures(sample: MarginSample, by: Sequence[Grouping] = ()) -> tuple[MarginFigures, ...]:
    """Return the figures of every group of decisions, in the order of their labels.

    Args:
        sample: decisions, margins and outcomes.
        by: what to group by, for example ``("contract", "side")``; nothing: all together.

    Raises:
        InputError: a grouping that is not known, given twice, or whose labels the sample lacks.
    """
    _require_groupings(sample, by)
    group_of, names = _groups(sample, by)
    count = len(names)
    shortfall = np.maximum(sample.outcome - sample.margin, 0.0)
    weights = sample.open_interest_usd
    open_interest = np.ones_like(shortfall) if weights is None else weights

    def summed(values: FloatArray) -> FloatArray:
        sums: FloatArray = np.bincount(group_of, weights=values, minlength=count).astype(float)
        return sums

    decisions = np.bincount(group_of, minlength=count)
    hits = np.bincount(group_of[shortfall > 0.0], minlength=count)
    shortfalls, draws = summed(shortfall), summed(shortfall * open_interest)
    worst = np.zeros(count)
    np.maximum.at(worst, group_of, shortfall)
    margins, interests, total = summed(sample.margin), summed(open_interest), draws.sum()
    return tuple(
        MarginFigures(
            group=names[row],
            decisions=int(decisions[row]),
            exceedances=int(hits[row]),
            exceedance_share=float(hits[row] / decisions[row]),
            mean_margin=float(margins[row] / decisions[row]),
            mean_shortfall=float(shortfalls[row] / decisions[row]),
            shortfall_per_exceedance=_ratio(shortfalls[row], hits[row]),
            worst_shortfall=float(worst[row]),
            fund_draw=float(draws[row]),
            fund_draw_per_open_interest=_ratio(draws[row], interests[row]),
            share_of_draw=_ratio(draws[row], total),
        )
        for row in range(count)
    )


def volatility_regimes(volatility: FloatArray, contract: Labels) -> Labels:
    """Return each decision's volatility regime by the terciles of its own contract, shape (n,).

    ``calm`` up to the first tercile, ``turbulent`` above the second, ``normal`` between,
    ``unknown`` where volatility is. Each decision is placed by what was known at its time; the
    terciles themselves are those of the whole sample, because they sort a report and decide no
    margin. Terciles of each contract, or regimes would sort contracts instead of times.

    Args:
        volatility: known at the decision, before the outcome begins, any unit, shape (n,); NaN
            where not known.
        contract: symbols, shape (n,).

    Raises:
        InputError: shapes differ, or an infinite volatility.
    """
    if volatility.shape != contract.shape:
        raise InputError(
            f"volatility has shape {volatility.shape} and contract {contract.shape}; "
            "they must pair one to one"
        )
    if np.isinf(volatility).any():
        raise InputError("volatility holds infinite values; give NaN where it is not known")
    regimes = np.full(volatility.shape, UNKNOWN, dtype="<U9")
    known = ~np.isnan(volatility)
    for name in np.unique(contract):
        own = (contract == name) & known
        if own.any():
            low, high = np.quantile(volatility[own], (1 / 3, 2 / 3), method="linear")
            values = volatility[own]
            regimes[own] = np.select([values <= low, values <= high], [CALM, NORMAL], TURBULENT)
    return regimes


def _require_groupings(sample: MarginSample, by: Sequence[Grouping]) -> None:
    if len(set(by)) != len(by) or not set(by) <= set(GROUPINGS):
        raise InputError(f"group by different ones of {', '.join(GROUPINGS)}, found {list(by)}")
    lacking = [name for name in by if getattr(sample, name).size == 0]
    if lacking:
        raise InputError(f"the sample has no labels of {', '.join(lacking)} to group by")


def _groups(
    sample: MarginSample, by: Sequence[Grouping]
) -> tuple[npt.NDArray[np.intp], list[dict[Grouping, str]]]:
    """Return the number of each decision's group, and the labels of the groups that occur."""
    number = np.zeros(sample.outcome.shape, dtype=np.intp)
    labels: list[Labels] = []
    for name in by:
        distinct, place = np.unique(getattr(sample, name), return_inverse=True)
        labels.append(distinct)
        number = number * len(distinct) + place
    occurring, group_of = np.unique(number, return_inverse=True)
    if not by:
        return group_of, [{}]
    places = np.unravel_index(occurring, [len(distinct) for distinct in labels])
    columns = [distinct[place] for distinct, place in zip(labels, places, strict=True)]
    return group_of, [
        dict(zip(by, map(str, row), strict=True)) for row in zip(*columns, strict=True)
    ]


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0.0 else float("nan")
