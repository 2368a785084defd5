"""Headline metrics of a model in MLflow: the few figures by which models are compared.

A name is ``metric/horizon/level/side``, of which the parts that tell nothing are left out: the
horizon where there is one, level and side where all are meant. MLflow's charts make a section of
everything before the first slash, so a metric's levels stand side by side.
"""

import math
from collections.abc import Mapping

from margincast.backtest.evaluation import Evaluation
from margincast.core.time import format_minutes
from margincast.jobs.backtest_record import Backtest
from margincast.training.tracking import MAXIMUM_METRICS

SIGNIFICANT_DIGITS = 5
"""Of a metric: beyond its error by far, and a column of the MLflow pages shows all of it. The
summary and the daily losses hold every digit."""

PRIMARY_METRIC = "pinball_ratio"
"""By which models are ranked: over all levels, sides and horizons."""

_Shelf = dict[str, float]


def headline_metrics(result: Backtest, name: str) -> dict[str, float]:
    """Return one model's metrics, the same names for ours and every peer.

    The most telling come first; those that would exceed what a run holds stand in the tables alone.
    A figure that is not known (NaN) is left out.
    """
    chosen: _Shelf = {}
    for shelf in _shelves(result, name):
        if len(chosen) + len(shelf) <= MAXIMUM_METRICS:
            chosen |= shelf
    return as_shown(chosen)


def as_shown(metrics: Mapping[str, float]) -> dict[str, float]:
    """Round metrics to what a column shows, and leave out those that are not known (NaN)."""
    return {
        metric: float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        for metric, value in metrics.items()
        if math.isfinite(value)
    }


def metric_name(metric: str, horizon: str = "", level: float | None = None, side: str = "") -> str:
    """Name a metric; see the module.

    >>> metric_name("exceedance_ratio", level=0.99)
    'exceedance_ratio/0.99'
    """
    parts = (metric, horizon, "" if level is None else f"{level:g}", side)
    return "/".join(part for part in parts if part)


def _shelves(result: Backtest, name: str) -> list[_Shelf]:
    """Return metrics that belong together, in the order of what they tell."""
    several = len(result.evaluations) > 1
    horizons = {
        format_minutes(minutes) if several else "": evaluation
        for minutes, evaluation in result.evaluations.items()
    }
    summaries = {
        horizon: next(model for model in evaluation.models if model.model == name)
        for horizon, evaluation in horizons.items()
    }
    levels = sorted({cell.level for cell in next(iter(horizons.values())).cells})
    ratios = [summary.pinball_ratio for summary in summaries.values()]
    overall = {
        PRIMARY_METRIC: math.fsum(ratios) / len(ratios),
        "crossings": float(sum(summary.crossings for summary in summaries.values())),
    }
    if several:
        overall["crossings_between_horizons"] = float(result.crossings[name])
    errors: _Shelf = {}
    steadiness: _Shelf = {}
    for horizon, summary in summaries.items():
        if several:
            errors[metric_name("pinball_ratio", horizon)] = summary.pinball_ratio
        errors[metric_name("pinball_ratio_error", horizon)] = summary.pinball_ratio_error
        steadiness |= {
            metric_name("largest_one_day_rise", horizon): summary.largest_one_day_rise,
            metric_name("peak_to_trough", horizon): summary.peak_to_trough,
            metric_name("kupiec_failed", horizon): summary.kupiec_failed,
            metric_name("contracts_within", horizon): summary.contracts_within,
        }
    first, *others = levels
    return [
        overall,
        errors,
        _coverage(horizons, name, first),
        steadiness,
        *(_coverage(horizons, name, level) for level in others),
        *(_losses(horizons, name, level) for level in levels),
        _sides(horizons, name, first),
    ]


def _coverage(horizons: dict[str, Evaluation], name: str, level: float) -> _Shelf:
    shelf: _Shelf = {}
    for horizon, evaluation in horizons.items():
        cell = evaluation.cell(name, "both", level)
        shelf |= {
            metric_name("exceedance_ratio", horizon, level): cell.exceedance_ratio,
            metric_name("pinball_ratio", horizon, level): cell.pinball_ratio,
            metric_name("mean_forecast_bps", horizon, level): cell.mean_forecast * 1e4,
        }
    return shelf


def _losses(horizons: dict[str, Evaluation], name: str, level: float) -> _Shelf:
    shelf: _Shelf = {}
    for horizon, evaluation in horizons.items():
        cell = evaluation.cell(name, "both", level)
        shelf |= {
            metric_name("pinball_bps", horizon, level): cell.pinball * 1e4,
            metric_name("mean_shortfall_bps", horizon, level): cell.mean_shortfall * 1e4,
        }
    return shelf


def _sides(horizons: dict[str, Evaluation], name: str, level: float) -> _Shelf:
    return {
        metric_name("exceedance_ratio", horizon, level, cell.side): cell.exceedance_ratio
        for horizon, evaluation in horizons.items()
        for cell in evaluation.cells
        if (cell.model, cell.level) == (name, level) and cell.side != "both"
    }
