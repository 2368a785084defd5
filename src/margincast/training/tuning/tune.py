"""From a training spec and its history to the best head, and what its score is worth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial

from margincast.models.checks import require_trainable
from margincast.models.protocol import Panel
from margincast.specs.training import Model, TrainingJob
from margincast.training.tuning.folds import prepare_folds
from margincast.training.tuning.running import StudyRun
from margincast.training.tuning.selection import Candidate, candidates_of, chosen_trial
from margincast.training.tuning.space import head_of
from margincast.training.tuning.storage import storage_errors
from margincast.training.tuning.study import inputs_of, open_study
from margincast.training.tuning.trials import counted
from margincast.training.tuning.workers import MakeWorkers, local_workers


@dataclass(frozen=True)
class Tuned:
    """The model spec with the head that was chosen, and the study it was found in.

    Attributes:
        model: the spec's model with the chosen head.
        study: all trials.
        trial: the chosen one.
        levels: levels of the head.
        candidates: the best trials, the chosen one first, and the spec's own head.
    """

    model: Model
    study: optuna.Study
    trial: FrozenTrial
    levels: tuple[float, ...]
    candidates: tuple[Candidate, ...]


def _silent(_: object) -> None:
    """Say nothing."""


def tune_head(
    job: TrainingJob,
    panels: Sequence[Panel],
    head_levels: tuple[float, ...],
    threads: int,
    on_trial: Callable[[FrozenTrial], None] = _silent,
    *,
    storage: BaseStorage | None = None,
    place: str = "memory",
    inputs: Mapping[str, str] | None = None,
    make_workers: MakeWorkers = local_workers,
    on_remark: Callable[[str], None] = _silent,
    on_begin: Callable[[int], None] = _silent,
) -> Tuned:
    """Search ``tuning.space`` for the best head, or continue a search that was interrupted.

    The values of the spec are tried first, so tuning never does worse than they do on its folds.

    Args:
        job: the training spec.
        panels: labelled decisions before the test period only, a panel a horizon.
        head_levels: levels LightGBM is trained at.
        threads: cores to use.
        on_trial: called after every finished trial.
        storage: where the study is kept; None: nowhere.
        place: name of that place, for messages.
        inputs: digests of data, features and code; a study of others is another study.
        make_workers: who does the work; processes of this machine where nothing is said.
        on_remark: called with what whoever waits should know.
        on_begin: called once with the number of trials that are there already.

    Raises:
        InputError: history that nothing may be learned from, or every trial failed.
        StudyStorageError: the study cannot be read or written.
    """
    for panel in panels:
        require_trainable(panel, job.target.sides, head_levels)
    folds = prepare_folds(job, panels, head_levels)
    workers = make_workers(folds, job.tuning.workers, threads)
    try:
        with storage_errors(place):
            study, remarks = open_study(
                job, storage or InMemoryStorage(), inputs_of(job, inputs or {})
            )
            for remark in remarks:
                on_remark(remark)
            on_begin(len(counted(study)))
            StudyRun(study, job, folds, workers, on_trial).finish()
            trial = chosen_trial(study)
        candidates = candidates_of(study, job, workers, held_out=folds.held_out is not None)
    finally:
        workers.close()
    model = job.model.model_copy(update={"head": head_of(trial.params, job)})
    return Tuned(model, study, trial, head_levels, candidates)
