"""Which trial is taken, and what it is worth on time the study never saw.

The best of many trials looks better than it is, because luck helped to make it the best. The best
few and the spec's own head are therefore fitted on all the study saw and scored on the held-out
stretch; the difference between the two scores is reported, and nothing is chosen by the second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from optuna.study import Study
from optuna.trial import FrozenTrial

from margincast.specs.training import Head, TrainingJob
from margincast.training.tuning.objective import Figures, StepScore, figures_of
from margincast.training.tuning.space import head_of
from margincast.training.tuning.trials import SPEC, completed, ranked, value_of, violation
from margincast.training.tuning.workers import HELD_OUT, Workers


@dataclass(frozen=True)
class Candidate:
    """A trial that was nearly chosen, the chosen one, or the spec's own head.

    Attributes:
        trial: as the study keeps it.
        head: what it tried.
        own: whether it is the head of the spec.
        held_out: its score on the stretch no trial saw; None without one.
    """

    trial: FrozenTrial
    head: Head
    own: bool
    held_out: StepScore | None

    def held_out_figures(self, levels: tuple[float, ...]) -> Figures | None:
        """Return the figures of the held-out stretch."""
        return None if self.held_out is None else figures_of([self.held_out], levels)


def chosen_trial(study: Study) -> FrozenTrial:
    """Return the best trial: within the band if any is, then least by the first objective."""
    return ranked(completed(study))[0]


def within_band(trial: FrozenTrial) -> bool:
    """Say whether every exceedance ratio of a trial lies within the spec's band."""
    return violation(trial) == 0.0


def candidates_of(
    study: Study, job: TrainingJob, workers: Workers, *, held_out: bool
) -> tuple[Candidate, ...]:
    """Score the best distinct trials and the spec's own head on the held-out stretch.

    Returns:
        Best first; the spec's own head wherever it ranks, at the end where it is not among them.
    """
    order = _distinct(ranked(completed(study)))
    best = order[: job.tuning.candidates]
    best += [t for t in order if t.user_attrs.get("source") == SPEC and t not in best]
    heads = [head_of(trial.params, job) for trial in best]
    asked = [workers.submit(head, HELD_OUT) for head in heads] if held_out else []
    scores: list[StepScore | None] = [future.result() for future in asked] or [None] * len(best)
    return tuple(
        Candidate(trial, head, trial.user_attrs.get("source") == SPEC, score)
        for trial, head, score in zip(best, heads, scores, strict=True)
    )


def _distinct(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Drop trials of the same parameters but the first."""
    seen: list[dict[str, object]] = []
    kept = []
    for trial in trials:
        if trial.params not in seen:
            seen.append(trial.params)
            kept.append(trial)
    return kept


def candidate_table(candidates: Sequence[Candidate], levels: tuple[float, ...]) -> pd.DataFrame:
    """Return one row a candidate: parameters, figures in the study and on the held-out stretch."""
    rows = []
    for rank, one in enumerate(candidates):
        row: dict[str, object] = {
            "trial": one.trial.number,
            "role": "chosen" if rank == 0 else "spec" if one.own else "candidate",
            **one.trial.params,
            **{f"study_{name}": one.trial.user_attrs.get(name) for name in FIGURES},
            "within_band": within_band(one.trial),
        }
        seen = one.held_out_figures(levels)
        if seen is not None:
            row |= {f"held_out_{name}": getattr(seen, name) for name in FIGURES}
        rows.append(row)
    return pd.DataFrame(rows)


FIGURES = ("loss", "coverage_error", "procyclicality", "mean_margin")


def daily_losses(candidates: Sequence[Candidate]) -> pd.DataFrame:
    """Return the relative loss of every day of the held-out stretch, a column a candidate."""
    return pd.DataFrame(
        {
            str(one.trial.number): pd.Series(one.held_out.daily_loss, index=one.held_out.days)
            for one in candidates
            if one.held_out is not None
        }
    )


def front_table(study: Study, objectives: Sequence[str]) -> pd.DataFrame:
    """Return the Pareto front of a study of several objectives, by the first of them."""
    front = sorted(study.best_trials, key=value_of)
    return pd.DataFrame(
        [
            {"trial": trial.number, **dict(zip(objectives, trial.values, strict=True))}
            | trial.params
            for trial in front
        ]
    )
