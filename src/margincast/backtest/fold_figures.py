"""How a model did refit by refit: whether its margin held all along, or on average only."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from margincast.backtest.replay import Replay
from margincast.backtest.scored import choose
from margincast.scoring.pinball import mean_pinball


def fold_figures(replays: Mapping[int, Replay], subject: str, reference: str) -> pd.DataFrame:
    """Return a model's figures per horizon and refit, on the decisions every model is scored on.

    Args:
        replays: forecasts, per horizon in minutes.
        subject: the model.
        reference: the model it is compared with.

    Returns:
        One row a horizon and refit: ``horizon_minutes``, ``start``, ``end`` (exclusive),
        ``training_decisions``, ``decisions`` (scored), ``pinball_ratio`` (both sides, mean over
        levels) and, by level, ``exceedance_ratio_<level>``, ``pinball_ratio_<level>``,
        ``mean_forecast_<level>`` (both sides). NaN where a refit has no scored decision, or the
        reference no loss.
    """
    return pd.DataFrame(
        [
            row
            for minutes, replay in replays.items()
            for row in _of_horizon(minutes, replay, subject, reference)
        ]
    )


def worst_and_latest(folds: pd.DataFrame, count: int) -> "pd.Index[pd.Timestamp]":
    """Choose the refits to look at first: half the worst by pinball ratio, half the latest.

    Args:
        folds: as :func:`fold_figures` returns them.
        count: how many starts; all where there are no more.

    Returns:
        Their starts, in order.
    """
    worst_first = folds.groupby("start")["pinball_ratio"].max().sort_values(ascending=False)
    latest = worst_first.index.sort_values()[::-1][: (count + 1) // 2]
    others = worst_first.drop(latest).index[: count - len(latest)]
    return latest.append(others).sort_values()


def _of_horizon(
    minutes: int, replay: Replay, subject: str, reference: str
) -> list[dict[str, object]]:
    scored = choose(replay).scored
    ours, other = replay.forecasts[subject], replay.forecasts[reference]
    rows = []
    for number, fold in enumerate(replay.folds):
        own = scored & (replay.fold_of == number)
        row: dict[str, object] = {
            "horizon_minutes": minutes,
            "start": fold.start,
            "end": fold.end,
            "training_decisions": int(fold.training.sum()),
            "decisions": int(own.sum()),
            "pinball_ratio": float("nan"),
        }
        ratios = []
        for column, level in enumerate(ours.levels):
            found = dict.fromkeys(("exceedance_ratio", "pinball_ratio", "mean_forecast"), np.nan)
            if own.any():
                outcomes = np.stack([replay.panel.outcomes[side][own] for side in ours.sides])
                forecast = ours.quantiles[own, :, column].T
                loss = mean_pinball(outcomes, forecast, level)
                theirs = mean_pinball(outcomes, other.quantiles[own, :, column].T, level)
                found = {
                    "exceedance_ratio": float((outcomes > forecast).mean() / (1 - level)),
                    "pinball_ratio": loss / theirs if theirs > 0 else float("nan"),
                    "mean_forecast": float(forecast.mean()),
                }
            ratios.append(found["pinball_ratio"])
            row |= {f"{name}_{level:g}": value for name, value in found.items()}
        row["pinball_ratio"] = float(np.mean(ratios))
        rows.append(row)
    return rows
