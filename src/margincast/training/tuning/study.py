"""A study: continued where it was left, or begun with the spec's own head and lent trials.

It is bound to all that a trial's value hangs on: spec, features, data and code. With other inputs
another study begins.
"""

import time
from collections.abc import Iterable, Mapping

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study

from margincast.core.digest import digest_of
from margincast.specs.training import TrainingJob
from margincast.training.tuning.sampling import pruner_of, sampler_of
from margincast.training.tuning.space import inside, own_parameters
from margincast.training.tuning.trials import SPEC, completed, counted, ranked, recover

OF_THE_SEARCH = frozenset(
    {
        "folds", "held_out_share", "seed", "sampler", "pruner", "objectives",
        "exceedance_ratio_min", "exceedance_ratio_max", "space",
    }
)  # fmt: skip
"""Keys of ``[tuning]`` that make a study another one; the rest says how long and where it runs."""


def inputs_of(job: TrainingJob, others: Mapping[str, str]) -> dict[str, str]:
    """Return digests of all that a trial's value hangs on.

    Args:
        job: the training spec.
        others: digests by name, of features, data and code for example.
    """
    spec = job.model_dump(
        mode="json",
        include={
            "target": True,
            "model": True,
            "backtest": {"start", "embargo"},
            "tuning": set(OF_THE_SEARCH),
        },
    )
    return {"spec": digest_of(spec), **others}


def open_study(
    job: TrainingJob, storage: BaseStorage, inputs: Mapping[str, str]
) -> tuple[Study, list[str]]:
    """Continue the study of these inputs, or begin it with the spec's own head and lent trials.

    Returns:
        The study, and remarks for whoever runs it.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tuning = job.tuning
    name = f"{job.name}-{digest_of(dict(inputs))[:12]}"
    earlier = [
        summary
        for summary in optuna.get_all_study_summaries(storage, include_best_trial=False)
        if summary.study_name != name
    ]
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=sampler_of(tuning),
        pruner=pruner_of(tuning),
        directions=["minimize"] * len(tuning.objectives),
        load_if_exists=True,
    )
    remarks = []
    if "begun" in study.user_attrs:
        lost = recover(study)
        done = len(counted(study))
        remarks.append(
            f"study {name}: {done} of {tuning.trials} trials are there"
            + (f", {lost} that were broken off are tried again" if lost else "")
        )
    else:
        changed = _changed_since(earlier, job.name, inputs)
        remarks.append(
            f"study {name} begins"
            + (f": {', '.join(changed)} changed since the last one" if changed else "")
        )
        study.set_user_attr("job", job.name)
        study.set_user_attr("inputs", dict(inputs))
        study.enqueue_trial(own_parameters(job), user_attrs={"source": SPEC}, skip_if_exists=True)
        remarks += _borrow(study, job, storage, earlier)
        study.set_user_attr("begun", time.time())
    return study, remarks


def _changed_since(
    earlier: Iterable[optuna.study.StudySummary], job: str, inputs: Mapping[str, str]
) -> list[str]:
    """Name the inputs that differ from those of the job's latest other study."""
    own = [s for s in earlier if s.user_attrs.get("job") == job and "begun" in s.user_attrs]
    if not own:
        return []
    latest = max(own, key=lambda summary: summary.user_attrs["begun"]).user_attrs["inputs"]
    return [name for name, digest in inputs.items() if latest.get(name) != digest]


def _borrow(
    study: Study,
    job: TrainingJob,
    storage: BaseStorage,
    earlier: Iterable[optuna.study.StudySummary],
) -> list[str]:
    """Queue the best trials of the latest study of every job that ``warm_start`` names."""
    tuning, remarks = job.tuning, []
    for lender in tuning.warm_start:
        theirs = [
            s for s in earlier if s.user_attrs.get("job") == lender and "begun" in s.user_attrs
        ]
        lent, outside = 0, 0
        for summary in sorted(theirs, key=lambda s: s.user_attrs["begun"], reverse=True):
            loaded = optuna.load_study(study_name=summary.study_name, storage=storage)
            best = ranked(completed(loaded))[: tuning.candidates]
            for trial in best:
                known = {key: trial.params[key] for key in tuning.space if key in trial.params}
                parameters = own_parameters(job) | known
                if not inside(known, tuning.space):
                    outside += 1
                    continue
                study.enqueue_trial(
                    parameters,
                    user_attrs={"source": f"{summary.study_name} trial {trial.number}"},
                    skip_if_exists=True,
                )
                lent += 1
            if best:
                break
        remarks.append(
            f"warm start: {lent} trials of {lender}"
            + (f", {outside} more lie outside tuning.space" if outside else "")
        )
    return remarks
