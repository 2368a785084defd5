"""A tuning study in MLflow: its best trials as runs, every trial in a table, figures beside it.

Thousands of runs make the MLflow pages crawl, and nobody compares the thousandth; the table keeps
what pruned, failed and unfinished trials were, with their state.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np
import optuna
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial
from optuna.visualization import matplotlib as plots

from margincast.training.tracking.run import Run
from margincast.training.tracking.tracker import PastRun, Tracker
from margincast.training.tuning.trials import completed, ranked

FOLDER = "tuning"
"""Where the study's files lie among the run's artifacts."""
_FEWEST_FOR_IMPORTANCE = 10


def log_study(
    tracker: Tracker,
    study: optuna.Study,
    parent: Run,
    objectives: Sequence[str],
    top: int,
) -> int:
    """Write a study below a run.

    Args:
        tracker: where runs are opened.
        study: of one objective or several, all minimised.
        parent: gets ``tuning/trials.csv`` with every trial and its state, the figures, and the
            child runs.
        objectives: their names, as metrics.
        top: at most this many finished trials become child runs: the best first, trials that break
            a constraint after all that keep them; of several objectives those of the Pareto front.

    Returns:
        How many child runs were written.
    """
    best = [trial for trial in _best(study) if _is_finite(trial)][:top]
    for trial in best:
        tracker.log_past_run(_past_run(trial, objectives), parent)
    parent.log_table(trials_table(study), f"{FOLDER}/trials")
    for name, figure in study_figures(study, objectives).items():
        parent.log_figure(figure, f"{FOLDER}/{name}")
        plt.close(figure)
    return len(best)


def _best(study: optuna.Study) -> list[FrozenTrial]:
    return ranked(study.best_trials if len(study.directions) > 1 else completed(study))


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """Return every trial: number, state, values, constraints, parameters, attributes, seconds."""
    table: pd.DataFrame = study.trials_dataframe(
        attrs=("number", "state", "value", "params", "user_attrs", "duration")
        if len(study.directions) == 1
        else ("number", "state", "values", "params", "user_attrs", "duration")
    )
    if "duration" in table:
        table["seconds"] = pd.to_timedelta(table.pop("duration")).dt.total_seconds()
    constraints = pd.DataFrame(
        [dict(trial.constraints) for trial in study.get_trials(deepcopy=False)]
    )
    return table.join(constraints.add_prefix("constraint_")) if len(constraints.columns) else table


def study_figures(study: optuna.Study, objectives: Sequence[str]) -> dict[str, Figure]:
    """Draw how the search went: history, slices, parallel coordinates, importances, Pareto front.

    What the study is too small for is left out: parameters of which one value was tried, and
    importances from fewer than ten trials.
    """
    finished = [trial for trial in completed(study) if _is_finite(trial)]
    varied = _varied(finished)
    if not varied:
        return {}
    drawn: dict[str, Callable[[], object]] = {}
    if len(objectives) == 1:
        name = objectives[0]
        drawn["history"] = lambda: plots.plot_optimization_history(study, target_name=name)
        drawn["slices"] = lambda: plots.plot_slice(study, varied, target_name=name)
        if len(varied) > 1:
            drawn["parallel"] = lambda: plots.plot_parallel_coordinate(
                study, varied, target_name=name
            )
    elif len(objectives) in {2, 3}:
        drawn["pareto_front"] = lambda: plots.plot_pareto_front(
            study, target_names=list(objectives)
        )
    outcomes = {tuple(_values(trial)) for trial in finished}
    if len(finished) >= _FEWEST_FOR_IMPORTANCE and len(varied) > 1 and len(outcomes) > 1:
        drawn["importances"] = lambda: plots.plot_param_importances(study, params=varied)
    with warnings.catch_warnings():
        # Optuna calls its matplotlib figures experimental; they are drawn and nothing hangs on them
        warnings.simplefilter("ignore", ExperimentalWarning)
        plt.switch_backend("agg")  # files, never windows
        return {name: _figure_of(draw()) for name, draw in drawn.items()}


def _varied(trials: Sequence[FrozenTrial]) -> list[str]:
    """Return the parameters of which more than one value was tried, in every trial."""
    tried: dict[str, set[object]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            tried.setdefault(name, set()).add(value)
    return [
        name
        for name, values in tried.items()
        if len(values) > 1 and all(name in trial.params for trial in trials)
    ]


def _figure_of(drawn: object) -> Figure:
    """Optuna returns axes, or an array of them."""
    axes = drawn if isinstance(drawn, Axes) else np.ravel(np.asarray(drawn, dtype=object))[0]
    assert isinstance(axes, Axes)
    assert isinstance(axes.figure, Figure)
    return axes.figure


def _past_run(trial: FrozenTrial, objectives: Sequence[str]) -> PastRun:
    started = _milliseconds(trial.datetime_start)
    metrics = dict(zip(objectives, _values(trial), strict=True))
    metrics |= {f"constraint_{key}": value for key, value in trial.constraints.items()}
    return PastRun(
        name=f"trial-{trial.number}",
        started=started,
        ended=_milliseconds(trial.datetime_complete),
        parameters=trial.params,
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        tags={
            "margincast.kind": "trial",
            "trial_number": str(trial.number),
            "trial_state": trial.state.name,
        },
    )


def _values(trial: FrozenTrial) -> list[float]:
    return list(trial.values)  # a trial is no data frame


def _is_finite(trial: FrozenTrial) -> bool:
    return all(map(math.isfinite, _values(trial)))


def _milliseconds(instant: datetime | None) -> int:
    """Optuna's times have no timezone and are local, as ``timestamp`` takes them."""
    assert instant is not None, "a finished trial has both times"
    return int(instant.timestamp() * 1000)
