"""Historical windows: what each margin lost on the days everybody asks about.

Responsible for the stress part of a margin's evidence that really happened, reported apart from
the averages that hide it, and for comparing margins of the same cost: a higher margin always loses
less, so each is scaled to one mean before the losses are set side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError, did_you_mean
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import require_finite, require_pairs

Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True)
class StressWindow:
    """A span of time in which the market was under stress.

    Attributes:
        name: as reported.
        start: first moment, with a time zone.
        end: first moment after it.
        lead: time before the start that "before" means.

    Raises:
        InputError: times without a zone, an end not after the start, or no lead.
    """

    name: str
    start: datetime
    end: datetime
    lead: timedelta = timedelta(days=7)

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise InputError(f"the times of the window {self.name!r} need a time zone; give UTC")
        if self.end <= self.start or self.lead <= timedelta(0):
            raise InputError(
                f"the window {self.name!r} must end after its start and have a lead, found "
                f"{self.start} to {self.end} and {self.lead}"
            )

    def holds(self, decided: Times, horizon: timedelta) -> BoolArray:
        """Say of each decision whether the span of its outcome, (t, t + horizon], meets it."""
        start, end = _instant(self.start), _instant(self.end)
        held: BoolArray = (decided < end) & (decided + np.timedelta64(horizon) > start)
        return held

    def precedes(self, decided: Times, horizon: timedelta) -> BoolArray:
        """Say of each decision whether it lies in the lead, its outcome over at the start."""
        start, first = _instant(self.start), _instant(self.start - self.lead)
        before: BoolArray = (decided >= first) & (decided + np.timedelta64(horizon) <= start)
        return before


KNOWN_WINDOWS: tuple[StressWindow, ...] = tuple(
    StressWindow(name, start, start + timedelta(days=days))
    for name, start, days in (
        ("2020-03-12 Black Thursday", datetime(2020, 3, 12, tzinfo=UTC), 2),
        ("2021-05-19", datetime(2021, 5, 19, tzinfo=UTC), 2),
        # from the first loss of the peg to the halt of the chain
        ("2022-05 LUNA", datetime(2022, 5, 7, tzinfo=UTC), 7),
        ("2022-11-08 FTX", datetime(2022, 11, 8, tzinfo=UTC), 2),
        # prices fell from the evening of the 4th, UTC
        ("2024-08-05", datetime(2024, 8, 4, tzinfo=UTC), 2),
        # the fall came in the last hours of the 10th, UTC; the 11th holds what it left
        ("2025-10-10", datetime(2025, 10, 10, tzinfo=UTC), 2),
        ("2026-02-05", datetime(2026, 2, 5, tzinfo=UTC), 2),
    )
)
"""UTC days of the events that venues and their users ask about."""


@dataclass(frozen=True)
class WindowFigures:
    """One margin in one window.

    Attributes:
        window: its name.
        model: whose margin.
        scale: factor the margin was multiplied with to bring every margin to one mean; 1 as it is.
        decisions: whose outcome meets the window; outcomes that reach into it count.
        exceedances: outcomes strictly beyond the margin.
        mean_shortfall: loss beyond margin a decision, a fraction; zero where it held.
        worst_shortfall: the largest.
        mean_margin_before: over the decisions of the lead; NaN without any.
        mean_margin_during: over the window's decisions.
        largest_margin_during: the largest of them.
        reason: why there are no figures; empty otherwise.
    """

    window: str
    model: str
    scale: float
    decisions: int
    exceedances: int
    mean_shortfall: float
    worst_shortfall: float
    mean_margin_before: float
    mean_margin_during: float
    largest_margin_during: float
    reason: str = ""


def scales_to_one_mean(
    margins: Mapping[str, FloatArray], reference: str, weights: FloatArray | None = None
) -> dict[str, float]:
    """Return the factor that brings each margin to the mean of the reference: the same cost.

    One factor a margin, over all contracts and the whole period, so that a margin keeps its own
    way of spreading cost over contracts and time.

    Args:
        margins: by model, fractions of the notional on the same decisions, shape (n,), positive.
        reference: the model whose mean all get.
        weights: open interest of each decision, any unit, shape (n,); None: decisions alike.

    Raises:
        InputError: the reference is not among the margins; margins that are not positive and
            finite or of different shapes; weights that are negative or all zero.
    """
    if reference not in margins:
        raise InputError(
            f"no margin is named {reference!r}{did_you_mean(reference, margins)}; "
            f"there are {', '.join(margins)}"
        )
    weight = np.ones_like(margins[reference]) if weights is None else weights
    weight = require_finite(weight, "weights")
    if weight.min() < 0.0 or weight.sum() <= 0.0:
        raise InputError("weights must be zero or more, and not all zero")
    means = {}
    for name, margin in margins.items():
        values = require_finite(margin, f"the margin of {name}")
        if values.shape != weight.shape or values.min() <= 0.0:
            raise InputError(
                f"the margin of {name} must be positive and of shape {weight.shape}, found shape "
                f"{values.shape} with smallest {values.min():g}"
            )
        means[name] = float(np.average(values, weights=weight))
    return {name: means[reference] / mean for name, mean in means.items()}


def window_figures(
    windows: Sequence[StressWindow],
    decided: Times,
    horizon: timedelta,
    outcome: FloatArray,
    margins: Mapping[str, FloatArray],
    *,
    scales: Mapping[str, float] | None = None,
) -> tuple[WindowFigures, ...]:
    """Return the figures of every margin in every window, window by window.

    Args:
        windows: for example :data:`KNOWN_WINDOWS`.
        decided: decision times, UTC, shape (n,), any order; all contracts together or one.
        horizon: liquidation horizon.
        outcome: adverse excursions, simple fractions, shape (n,).
        margins: by model, margins in force at the decisions, fractions, shape (n,).
        scales: factor by model, see :func:`scales_to_one_mean`; None: margins as they are.

    Returns:
        A window without decisions has figures of NaN and the reason; none is left out.

    Raises:
        InputError: shapes differ, NaN or infinite values, per cents, or a margin without scale.
    """
    if decided.shape != outcome.shape:
        raise InputError(
            f"decided has shape {decided.shape} and outcome {outcome.shape}; "
            "they must pair one to one"
        )
    unscaled = [] if scales is None else [name for name in margins if name not in scales]
    if unscaled:
        raise InputError(f"no scale is given for {', '.join(unscaled)}")
    factors = dict.fromkeys(margins, 1.0) if scales is None else scales
    for name, margin in margins.items():
        require_pairs(outcome, factors[name] * margin)
    found = []
    for window in windows:
        during, before = window.holds(decided, horizon), window.precedes(decided, horizon)
        for name, margin in margins.items():
            own = factors[name] * margin
            beyond = np.maximum(outcome[during] - own[during], 0.0)
            inside = bool(during.any())
            found.append(
                WindowFigures(
                    window=window.name,
                    model=name,
                    scale=factors[name],
                    decisions=int(during.sum()),
                    exceedances=int(np.count_nonzero(beyond)),
                    mean_shortfall=float(beyond.mean()) if inside else float("nan"),
                    worst_shortfall=float(beyond.max()) if inside else float("nan"),
                    mean_margin_before=float(own[before].mean()) if before.any() else float("nan"),
                    mean_margin_during=float(own[during].mean()) if inside else float("nan"),
                    largest_margin_during=float(own[during].max()) if inside else float("nan"),
                    reason="" if inside else "no decision's outcome meets this window",
                )
            )
    return tuple(found)


def _instant(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")
