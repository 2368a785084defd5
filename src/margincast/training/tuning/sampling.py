"""Who proposes the next trial, and who gives one up: named in the spec, seeded, and resumable.

A sampler's random numbers hang on the seed and on which trial of the study it is, not on what the
process has drawn before. A study that was killed and continued with one worker therefore tries
what an uninterrupted one would have tried.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from margincast.specs.tuning import Tuning
from margincast.training.tuning.trials import abandoned

STARTUP_TRIALS = 10
"""Trials at random before the tree-structured Parzen estimator has something to learn from."""
UNPRUNED_TRIALS = 4
"""Trials that must have done a step before another is compared with their median."""


def sampler_of(tuning: Tuning) -> BaseSampler:
    """Return the sampler a spec names, seeded anew for every trial."""

    def made(seed: int) -> BaseSampler:
        if tuning.sampler == "random":
            return RandomSampler(seed=seed)
        if tuning.sampler == "nsgaii":
            return NSGAIISampler(seed=seed)
        return TPESampler(
            seed=seed,
            n_startup_trials=STARTUP_TRIALS,
            # several objectives are split parameter by parameter
            multivariate=len(tuning.objectives) == 1,
            constant_liar=True,
        )

    return SeededByTrial(made, tuning.seed)


def pruner_of(tuning: Tuning) -> BasePruner:
    """Return the pruner a spec names."""
    if tuning.pruner == "median":
        return MedianPruner(n_startup_trials=UNPRUNED_TRIALS)
    return NopPruner()


class SeededByTrial(BaseSampler):
    """A sampler made anew for every trial, from the seed and the trial's place in the study.

    Trials that were broken off and are tried again leave no gap.

    Args:
        make: a sampler of a seed.
        seed: of the study.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed
        self._sampler = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        broken_off = abandoned(study.get_trials(deepcopy=False))
        place = trial.number - sum(number < trial.number for number in broken_off)
        state = np.random.SeedSequence([self._seed, place]).generate_state(1)
        self._sampler = self._make(int(state[0]))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See :class:`optuna.samplers.BaseSampler`."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See :class:`optuna.samplers.BaseSampler`."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401  # the base class says so
        """See :class:`optuna.samplers.BaseSampler`."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """See :class:`optuna.samplers.BaseSampler`."""
        self._sampler.after_trial(study, trial, state, values)
