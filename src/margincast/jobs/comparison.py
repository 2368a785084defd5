"""Runs beside one of them: what is known of the difference, as values and as JSON."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from margincast.backtest.daily_comparison import DailyComparison, LossDifference
from margincast.jobs.run_pages import MODEL_TAG
from margincast.training.tracking.recorded import RecordedRun

SIGNIFICANCE = 0.05
"""Of a difference, after Benjamini-Hochberg over the runs compared."""


@dataclass(frozen=True)
class Compared:
    """One run beside the one all are compared with.

    Attributes:
        run: the run.
        differences: its losses less the other's, per horizon all levels and every level; empty
            where ``reason`` says why.
        adjusted_p: of the same, over the runs compared (Benjamini-Hochberg).
        found: what was compared; None where ``reason`` says why.
        reason: why the losses cannot be compared; empty if they can.
    """

    run: RecordedRun
    differences: tuple[LossDifference, ...] = ()
    adjusted_p: tuple[float, ...] = ()
    found: DailyComparison | None = None
    reason: str = ""

    def verdict(self, number: int) -> str:
        """Say of a difference, by its number, which model is better beyond chance."""
        if self.adjusted_p[number] >= SIGNIFICANCE:
            return "no difference shown"
        return "worse" if self.differences[number].difference > 0.0 else "better"

    @property
    def worse(self) -> bool:
        """Whether the run loses more, at some horizon over all levels, beyond chance."""
        return any(
            one.level is None and self.verdict(number) == "worse"
            for number, one in enumerate(self.differences)
        )


@dataclass(frozen=True)
class Comparison:
    """Runs compared with one of them.

    Attributes:
        against: that one.
        losses: its daily losses; None where it has none.
        others: the rest, in the order they were named.
        specs: keys of the jobs' specs, and digests, that are not the same for all runs: by key,
            texts by run id.
    """

    against: RecordedRun
    losses: pd.DataFrame | None
    others: tuple[Compared, ...]
    specs: dict[str, dict[str, str]]


def labels(comparison: Comparison) -> dict[str, str]:
    """Return by run id the shortest names that tell the runs apart."""
    runs = [comparison.against, *(one.run for one in comparison.others)]
    models = {run.run_id: run.tags.get(MODEL_TAG, run.name) for run in runs}
    for named in (models, {run.run_id: run.name for run in runs}):
        if len(set(named.values())) == len(runs):
            return named
    return {run.run_id: run.label for run in runs}


def as_record(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON-like values; what is not known is None."""
    base = comparison.against
    return {
        "against": _run_record(base),
        "runs": [
            _run_record(one.run)
            | {
                "metric_differences": {
                    name: value - base.metrics[name]
                    for name, value in one.run.metrics.items()
                    if name in base.metrics
                },
                "losses": [
                    _known(asdict(difference))
                    | {"adjusted_p_value": p_value, "verdict": one.verdict(number)}
                    for number, (difference, p_value) in enumerate(
                        zip(one.differences, one.adjusted_p, strict=True)
                    )
                ],
                "shared": None if one.found is None else _shared_record(one.found),
                "not_compared": one.reason,
            }
            for one in comparison.others
        ],
        "specs": comparison.specs,
    }


def _run_record(run: RecordedRun) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "started": run.started.isoformat(),
        "tags": {key: text for key, text in run.tags.items() if key.startswith("margincast.")},
        "metrics": dict(run.metrics),
    }


def _shared_record(found: DailyComparison) -> dict[str, Any]:
    shared = asdict(found.shared)
    return shared | {
        "first_day": found.shared.first_day.isoformat(),
        "last_day": found.shared.last_day.isoformat(),
    }


def _known(record: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
