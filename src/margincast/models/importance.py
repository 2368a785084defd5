"""Which features move the forecast: its logarithm split over them, at many decisions at once.

Explained is log(scale x head / average): the scale splits exactly, the head by the SHAP values
LightGBM computes, made logarithms as in :mod:`~margincast.models.attribution`. Calibration and tail
multiply on top and hang on no feature.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from margincast.core.types import FloatArray, Side
from margincast.models.parts import LOG_SCALE, Staged
from margincast.models.protocol import Panel
from margincast.models.scale import HOUR_OF_WEEK, hour_of_week


@dataclass(frozen=True)
class Importance:
    """What features add to the logarithm of the forecasts of one side and head level.

    Attributes:
        side: of the forecasts.
        level: of the head.
        decisions: how many, n.
        left_out: decisions without a forecast above 0, of which there is no logarithm.
        features: names, m.
        worth: value of each feature, NaN where not known, shape (n, m).
        scale: what it adds through the scale, logarithms, shape (n, m).
        head: what it adds through the head, shape (n, m).
    """

    side: Side
    level: float
    decisions: int
    left_out: int
    features: tuple[str, ...]
    worth: FloatArray
    scale: FloatArray
    head: FloatArray

    @property
    def contributions(self) -> FloatArray:
        """What each feature adds in all, shape (n, m); rows sum to log(forecast / average)."""
        return self.scale + self.head

    def table(self) -> pd.DataFrame:
        """Return mean absolute contributions, largest first.

        Columns: ``feature``, ``side``, ``level``, ``mean_absolute`` (of scale and head together),
        ``through_scale``, ``through_head``, ``known`` (share of decisions).
        """
        frame = pd.DataFrame(
            {
                "feature": self.features,
                "side": self.side,
                "level": self.level,
                "mean_absolute": np.abs(self.contributions).mean(axis=0),
                "through_scale": np.abs(self.scale).mean(axis=0),
                "through_head": np.abs(self.head).mean(axis=0),
                "known": np.isfinite(self.worth).mean(axis=0),
            }
        )
        return frame.sort_values("mean_absolute", ascending=False, ignore_index=True)


def importances(forecaster: Staged, panel: Panel) -> list[Importance]:
    """Split the forecasts of every side and head level.

    Args:
        forecaster: fitted.
        panel: the decisions; a sample of the latest ones, as a rule.

    Returns:
        One a side and head level, empty where no decision has a forecast above 0.
    """
    stages = forecaster.stages(panel)
    width = stages.scale.predict(panel.frame)
    known = np.isfinite(width)
    if not known.any():
        return []
    frame = panel.rows(known).frame
    matrix = stages.head.design(frame, width[known])
    terms = stages.scale.contributions(frame)
    names = (*dict.fromkeys([*terms, *stages.head.units, LOG_SCALE]),)
    place = {name: number for number, name in enumerate(names)}
    scale = np.zeros((len(frame), len(names)))
    for name, values in terms.items():
        scale[:, place[name]] = values
    worth = np.column_stack(
        [
            np.log(width[known])
            if name == LOG_SCALE
            else hour_of_week(frame["ts"])
            if name == HOUR_OF_WEEK
            else frame[name].to_numpy(np.float64)
            for name in names
        ]
    )
    positions = [place[name] for name in (*stages.head.units, LOG_SCALE)]
    found = []
    for (side, level), booster in stages.head.boosters.items():
        shap = np.asarray(
            booster.predict(matrix, pred_contrib=True, num_threads=stages.head.threads)
        )
        value, average = shap.sum(axis=1), shap[:, -1]
        positive = (value > 0.0) & (average > 0.0)
        if not positive.any():
            continue
        head = np.zeros((int(positive.sum()), len(names)))
        head[:, positions] = (
            shap[positive, :-1] / logarithmic_means(value[positive], average[positive])[:, None]
        )
        found.append(
            Importance(
                side,
                level,
                int(positive.sum()),
                len(panel) - int(positive.sum()),
                names,
                worth[positive],
                scale[positive],
                head,
            )
        )
    return found


def logarithmic_means(left: FloatArray, right: FloatArray) -> FloatArray:
    """Return :func:`margincast.models.attribution.logarithmic_mean` of pairs, shape (n,)."""
    distance = np.log(left / right)
    near = np.abs(distance) < 1e-5
    safe = np.where(near, 1.0, distance)
    far = np.expm1(distance) / safe
    result: FloatArray = right * np.where(near, 1.0 + distance / 2.0 + distance**2 / 6.0, far)
    return result
