"""Headline metrics of a model in MLflow: the few figures by which models are compared."""

from margincast.backtest.evaluation import Evaluation
from margincast.jobs.backtest_record import Backtest
from margincast.training.tracking import MAXIMUM_METRICS

HEADLINE_LEVELS = 6
"""Levels with metrics of their own; tables hold all."""


def headline_metrics(result: Backtest, name: str, levels: tuple[float, ...]) -> dict[str, float]:
    """Return one model's metrics; of several horizons each with a suffix such as ``_480m``."""
    if len(result.evaluations) == 1:
        return _of_one_horizon(next(iter(result.evaluations.values())), name, levels)
    return _of_several(result, name, levels)


def _of_one_horizon(
    evaluation: Evaluation, name: str, levels: tuple[float, ...]
) -> dict[str, float]:
    """Headline metrics of one model where there is one horizon."""
    summary = next(model for model in evaluation.models if model.model == name)
    metrics = {
        "pinball_ratio": summary.pinball_ratio,
        "crossings": float(summary.crossings),
        "kupiec_failed": summary.kupiec_failed,
        "largest_one_day_rise": summary.largest_one_day_rise,
        "peak_to_trough": summary.peak_to_trough,
    }
    for cell in evaluation.cells:
        if cell.model != name:
            continue
        if cell.side != "both":
            # sides of the other levels stand in the tables; too many metrics crawl in the UI
            if cell.level == levels[0]:
                at = f"{cell.level:g}_{cell.side}"
                metrics[f"exceedance_ratio_{at}"] = cell.exceedance_ratio
                metrics[f"pinball_ratio_{at}"] = cell.pinball_ratio
        elif cell.level in levels[:HEADLINE_LEVELS]:
            at = f"{cell.level:g}"
            metrics[f"exceedance_ratio_{at}"] = cell.exceedance_ratio
            metrics[f"pinball_bps_{at}"] = cell.pinball * 1e4
            metrics[f"pinball_ratio_{at}"] = cell.pinball_ratio
            metrics[f"mean_forecast_{at}"] = cell.mean_forecast
            metrics[f"mean_shortfall_bps_{at}"] = cell.mean_shortfall * 1e4
    return metrics


def _of_several(result: Backtest, name: str, levels: tuple[float, ...]) -> dict[str, float]:
    """Headline metrics of one model at several horizons: as many levels as a run has room for."""
    metrics = {"horizon_crossings": float(result.crossings[name])}
    room = (MAXIMUM_METRICS - len(metrics)) // len(result.evaluations)
    shown = levels[: max(0, min(HEADLINE_LEVELS, (room - 2) // 3))]
    for minutes, evaluation in result.evaluations.items():
        summary = next(model for model in evaluation.models if model.model == name)
        own = {"pinball_ratio": summary.pinball_ratio, "crossings": float(summary.crossings)}
        for level in shown:
            cell = evaluation.cell(name, "both", level)
            own[f"exceedance_ratio_{level:g}"] = cell.exceedance_ratio
            own[f"pinball_ratio_{level:g}"] = cell.pinball_ratio
            own[f"mean_forecast_{level:g}"] = cell.mean_forecast
        metrics |= {f"{key}_{minutes}m": own[key] for key in list(own)[:room]}
    return metrics
