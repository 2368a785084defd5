"""The search space: which heads a trial may be, and back from a trial's parameters to its head."""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from margincast.specs.training import Head, TrainingJob
from margincast.specs.tuning import Range


def distributions(space: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """Return the space as Optuna takes it."""
    return {key: _distribution(bounds) for key, bounds in space.items()}


def _distribution(bounds: Range) -> BaseDistribution:
    if bounds.integer:
        return IntDistribution(round(bounds.low), round(bounds.high), log=bounds.log)
    return FloatDistribution(bounds.low, bounds.high, log=bounds.log)


def head_of(parameters: Mapping[str, Any], job: TrainingJob) -> Head:
    """Return the spec's head with a trial's parameters in place of its own."""
    typed = {
        key: int(value) if job.tuning.space[key].integer else float(value)
        for key, value in parameters.items()
    }
    return job.model.head.model_copy(update=typed)


def own_parameters(job: TrainingJob) -> dict[str, Any]:
    """Return the spec's own values of the keys that are searched."""
    return {key: getattr(job.model.head, key) for key in job.tuning.space}


def inside(parameters: Mapping[str, Any], space: Mapping[str, Range]) -> bool:
    """Say whether every value lies within its range."""
    return all(space[key].low <= value <= space[key].high for key, value in parameters.items())
