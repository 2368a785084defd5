"""The course of a study: trials begun, fed step by step, given up, finished, and tried again.

Trials are driven from here and scored by workers; each step a trial has done is reported, so that a
hopeless one is given up early. A trial that is broken off (a killed worker or job, Ctrl-C) is tried
again; one whose fit is refused is kept as failed, with the reason.
"""

import time
import warnings
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from lightgbm.basic import LightGBMError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from margincast.core.errors import InputError, MargincastError
from margincast.specs.training import Head, TrainingJob
from margincast.training.tuning.folds import StudyFolds
from margincast.training.tuning.objective import Figures, StepScore, figures_of
from margincast.training.tuning.space import distributions, head_of
from margincast.training.tuning.trials import (
    announce,
    causes_of_failure,
    converged,
    counted,
    recover,
    take_back,
    this_process,
)
from margincast.training.tuning.workers import WorkerLostError, Workers

HEARTBEAT_SECONDS = 30.0
LOST_WORKERS = 3
"""A trial under which so many workers died is failed: it likely needs more memory than there is."""


@dataclass
class _Open:
    """A trial under way."""

    trial: Trial
    head: Head
    scores: list[StepScore] = field(default_factory=list)
    signed: float = field(default_factory=time.time)
    lost: int = 0


@dataclass
class StudyRun:
    """One process's work on a study.

    Attributes:
        study: see :func:`margincast.training.tuning.study.open_study`.
        job: the training spec.
        folds: what trials are scored on.
        workers: who scores them.
        on_trial: called after every finished trial.
    """

    study: Study
    job: TrainingJob
    folds: StudyFolds
    workers: Workers
    on_trial: Callable[[FrozenTrial], None]
    _open: dict[int, _Open] = field(default_factory=dict)
    """Trials begun and not finished, by number."""
    _asked: dict[Future[StepScore], _Open] = field(default_factory=dict)
    """What workers were asked for."""

    def finish(self) -> None:
        """Run trials until the study has ``tuning.trials`` of them or has converged.

        Raises:
            InputError: every trial failed; names the causes.
        """
        announce(self.study)
        try:
            while self._fill() or recover(self.study):
                self._wait()
        except BaseException:
            # whatever ended this, the trials under way are tried again by the next run
            with suppress(Exception):
                for number in self._open:
                    take_back(self.study, number)
            raise
        trials = counted(self.study)
        if trials and all(trial.state == TrialState.FAIL for trial in trials):
            raise InputError(
                f"all {len(trials)} trials of study {self.study.study_name} failed: "
                + "; ".join(causes_of_failure(trials))
            )

    def _fill(self) -> int:
        """Begin trials until enough are under way; returns how many are."""
        tuning = self.job.tuning
        while (
            len(self._open) < tuning.workers
            and len(counted(self.study)) < tuning.trials
            and not converged(self.study, tuning)
        ):
            self._ask(self._begin())
        return len(self._open)

    def _begin(self) -> _Open:
        with warnings.catch_warnings():
            # the values of the spec are tried also where they lie outside the space
            warnings.filterwarnings("ignore", message="Fixed parameter .* is out of range")
            trial = self.study.ask(distributions(self.job.tuning.space))
        one = self._open[trial.number] = _Open(trial, head_of(trial.params, self.job))
        trial.set_user_attr("process", this_process())
        trial.set_user_attr("alive_at", one.signed)
        return one

    def _ask(self, one: _Open) -> None:
        self._asked[self.workers.submit(one.head, len(one.scores))] = one

    def _wait(self) -> None:
        """Take in what was answered, and ask for the next steps."""
        done, _ = wait(self._asked, timeout=HEARTBEAT_SECONDS, return_when=FIRST_COMPLETED)
        self._sign()
        if any(isinstance(future.exception(), WorkerLostError) for future in done):
            self._redo()
            return
        for future in done:
            one = self._asked.pop(future)
            if self._take_in(one, future):
                self._report(one)
            else:
                self._ask(one)

    def _sign(self) -> None:
        """Say that the trials under way are alive, for processes of other hosts."""
        now = time.time()
        for one in self._open.values():
            if abs(now - one.signed) > HEARTBEAT_SECONDS:
                one.trial.set_user_attr("alive_at", now)
                one.signed = now

    def _redo(self) -> None:
        """Ask new workers for everything that was under way when one died."""
        self._asked.clear()
        self.workers.restart()
        for one in list(self._open.values()):
            one.lost += 1
            if one.lost < LOST_WORKERS:
                self._ask(one)
            else:
                self._fail(one, f"{one.lost} workers died over it, as they do out of memory")
                self._report(one)

    def _take_in(self, one: _Open, future: Future[StepScore]) -> bool:
        """Take in the score of one step; says whether the trial is finished by it."""
        try:
            one.scores.append(future.result())
        except (MargincastError, LightGBMError) as error:
            self._fail(one, str(error))
            return True
        figures = figures_of(one.scores, self.folds.levels)
        objectives = self.job.tuning.objectives
        single = len(objectives) == 1
        if single:
            one.trial.report(getattr(figures, objectives[0]), len(one.scores) - 1)
        if len(one.scores) == len(self.folds.steps):
            self._keep(one.trial, figures)
            self.study.tell(one.trial, [getattr(figures, name) for name in objectives])
            return True
        if single and one.trial.should_prune():
            self._keep(one.trial, figures)
            self.study.tell(one.trial, state=TrialState.PRUNED)
            return True
        return False

    def _keep(self, trial: Trial, figures: Figures) -> None:
        """Write a trial's figures, and by how much each exceedance ratio leaves the band."""
        tuning = self.job.tuning
        low, high = tuning.exceedance_ratio_min, tuning.exceedance_ratio_max
        ratios = {f"{level:g}": ratio for level, ratio in figures.exceedance_ratios.items()}
        for level, ratio in ratios.items():
            trial.set_constraint(f"exceedance_ratio_{level}", max(low - ratio, ratio - high))
        for name, value in (asdict(figures) | {"exceedance_ratios": ratios}).items():
            if value == value:  # noqa: PLR0124  # not NaN: what is not known is left out
                trial.set_user_attr(name, value)

    def _fail(self, one: _Open, reason: str) -> None:
        one.trial.set_user_attr("error", reason)
        self.study.tell(one.trial, state=TrialState.FAIL)

    def _report(self, one: _Open) -> None:
        del self._open[one.trial.number]
        self.on_trial(self.study.get_trials(deepcopy=False)[one.trial.number])
