"""The trials of a study: which count, which were broken off, which is best, when there are enough.

User attributes of a trial that others may read:

=====================  ===========================================================================
``source``             ``spec``: the file's own head; ``JOB trial N``: lent by an earlier study
``retry_of``           number of the trial that was broken off and is tried again here
``process``            host, process id and start of who runs it
``alive_at``           when that process was last seen (seconds since 1970)
``error``              why it failed
``loss``, ``coverage_error``, ``procyclicality``, ``mean_margin``, ``exceedance_ratios``
                       see :class:`~margincast.training.tuning.objective.Figures`
=====================  ===========================================================================
"""

import os
import socket
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from margincast.specs.tuning import Tuning

Owner = dict[str, str | int]
"""What tells a process from all others: host, process id, when it began."""
SILENT_SECONDS = 300.0
"""A process of another host that was not seen for so long is taken for dead."""
SPEC = "spec"


def abandoned(trials: Iterable[FrozenTrial]) -> set[int]:
    """Return the numbers of trials that were broken off and stand in the queue again."""
    return {trial.user_attrs["retry_of"] for trial in trials if "retry_of" in trial.user_attrs}


def counted(study: Study) -> list[FrozenTrial]:
    """Return the trials that count: begun or finished, and not broken off."""
    trials = study.get_trials(deepcopy=False)
    broken_off = abandoned(trials)
    return [
        trial
        for trial in trials
        if trial.state != TrialState.WAITING and trial.number not in broken_off
    ]


def completed(study: Study) -> list[FrozenTrial]:
    """Return the trials that did all steps."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def violation(trial: FrozenTrial) -> float:
    """Return by how much a trial's exceedance ratios leave the band, summed over levels."""
    return float(sum(max(0.0, value) for value in trial.constraints.values()))


def ranked(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Order completed trials by the first objective, those within the band first."""
    return sorted(trials, key=lambda trial: (violation(trial), value_of(trial), trial.number))


def value_of(trial: FrozenTrial) -> float:
    """Return a completed trial's value of the first objective."""
    return float(next(iter(trial.values)))


def outcome_of(trial: FrozenTrial) -> str:
    """Say in a word or a number how a trial ended."""
    if trial.state == TrialState.COMPLETE:
        return f"{value_of(trial):.4f}"
    reason = trial.user_attrs.get("error")
    return trial.state.name.lower() + (f": {reason}" if reason else "")


def converged(study: Study, tuning: Tuning) -> bool:
    """Say whether the last ``patience_trials`` finished trials brought nothing.

    With one objective a trial brings something when it lies within the band (or nearer to it than
    any before) and betters the best by the share ``least_gain``; with several, when it is on the
    Pareto front.
    """
    if tuning.patience_trials == 0:
        return False
    finished = [
        trial for trial in counted(study) if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}
    ]
    if len(finished) <= tuning.patience_trials:
        return False
    latest = finished[-tuning.patience_trials :]
    if len(tuning.objectives) > 1:
        front = {trial.number for trial in study.best_trials}
        return not any(trial.number in front for trial in latest)
    earlier = [t for t in finished[: -tuning.patience_trials] if t.state == TrialState.COMPLETE]
    later = [trial for trial in latest if trial.state == TrialState.COMPLETE]
    if not earlier or not later:
        return bool(earlier)
    before, after = ranked(earlier)[0], ranked([*earlier, *later])[0]
    if violation(after) < violation(before):
        return False
    return value_of(after) >= value_of(before) * (1 - tuning.least_gain)


def this_process() -> Owner:
    """Return what tells this process from all others, also after a restart of its container."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "began": began(os.getpid())}


def announce(study: Study) -> None:
    """Say that this process works on a study, before it takes its first trial."""
    here = this_process()
    study.set_user_attr(f"process {here['host']} {here['pid']} {here['began']}", here)


def has_live_owner(trial: FrozenTrial, announced: Iterable[Owner] = ()) -> bool:
    """Say whether whoever runs a trial is still there.

    Between taking a trial and signing it a process draws its parameters: a trial without signature
    may be anybody's who announced himself and lives.

    Args:
        trial: one under way.
        announced: processes that work, or worked, on its study.
    """
    owner = trial.user_attrs.get("process")
    if owner is None:
        begun, here = trial.datetime_start, this_process()
        young = begun is not None and time.time() - begun.timestamp() < SILENT_SECONDS
        return young and any(_may_live(one) for one in announced if one != here)
    if owner["host"] != socket.gethostname():
        return bool(time.time() - trial.user_attrs.get("alive_at", 0.0) < SILENT_SECONDS)
    return _may_live(owner)


def take_back(study: Study, number: int) -> None:
    """Put a trial that was broken off into the queue again and close it; not a finished one."""
    trials = study.get_trials(deepcopy=False)
    trial = trials[number]
    if trial.state.is_finished():
        return
    if number not in abandoned(trials):
        # queued before it is closed: a kill in between leaves a trial that is taken back again
        study.enqueue_trial(
            {**trial.system_attrs.get("fixed_params", {}), **trial.params},
            user_attrs={
                "retry_of": number,
                **{key: trial.user_attrs[key] for key in ("source",) if key in trial.user_attrs},
            },
        )
    study.tell(number, state=TrialState.FAIL)


def recover(study: Study) -> int:
    """Take back every trial whose process is gone; returns how many there were."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    announced = [value for name, value in study.user_attrs.items() if name.startswith("process ")]
    dead = [trial.number for trial in running if not has_live_owner(trial, announced)]
    for number in dead:
        take_back(study, number)
    return len(dead)


def causes_of_failure(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the distinct reasons why trials failed."""
    return sorted(
        {str(trial.user_attrs["error"]) for trial in trials if "error" in trial.user_attrs}
    )


def _may_live(owner: Owner) -> bool:
    """Say whether a process lives, or lies on a host where that cannot be seen."""
    if owner["host"] != socket.gethostname():
        return True
    pid = int(owner["pid"])
    return _exists(pid) and began(pid) == owner["began"]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def began(pid: int) -> str:
    """Return when a process began, in ticks since boot; empty where the system does not tell."""
    try:
        # the name of the program, in brackets, may hold spaces
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
