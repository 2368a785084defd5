"""One forecast taken apart: the scale's terms, the head's SHAP values, calibration and tail.

The pieces of the number behind the margin, for :mod:`~margincast.models.attribution` to compare:
forecast = scale x head x calibration factor x tail multiplier. The head, a sum of trees, splits by
the SHAP values LightGBM computes (TreeSHAP: Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from margincast.core.errors import InputError
from margincast.core.types import FloatArray, Side
from margincast.models.head import QuantileHead
from margincast.models.protocol import Panel, TailForecast
from margincast.models.scale import HOUR_OF_WEEK, HarScale, hour_of_week

LOG_SCALE = "log_scale"
"""The scale as a feature of the head."""

CALIBRATION, ONLINE = "calibration", "online_calibration"
REARRANGEMENT = "rearrangement"

TOLERANCE = 1e-9
"""Largest error of a logarithm that parts may leave."""


@dataclass(frozen=True)
class Stages:
    """What a forecast is multiplied from, for n decisions, S sides, J head levels and L levels.

    Attributes:
        scale: fitted scale.
        head: fitted head, of the J levels.
        log_factors: what raises or lowers a row's calibration from the average, by name, in
            logarithms; shape (n, S, J) each.
        average_log_factors: of a contract nothing is known of, shape (S, J).
        anchors: head level (its position) that each of the L levels is taken from.
        log_multipliers: the same for what comes on top of the anchors, shape (n, S, L) each.
        average_log_multipliers: tail multiplier of each level on its anchor, 0 (in logarithms)
            where it has none; shape (S, L).
    """

    scale: HarScale
    head: QuantileHead
    log_factors: Mapping[str, FloatArray]
    average_log_factors: FloatArray
    anchors: tuple[int, ...]
    log_multipliers: Mapping[str, FloatArray]
    average_log_multipliers: FloatArray


class Staged(Protocol):
    """A forecaster that shows its stages."""

    @property
    def sides(self) -> tuple[Side, ...]:
        """Sides it forecasts."""
        ...

    @property
    def levels(self) -> tuple[float, ...]:
        """Increasing levels it forecasts."""
        ...

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast every decision."""
        ...

    def stages(self, panel: Panel) -> Stages:
        """Return what :meth:`predict` multiplies."""
        ...


@dataclass(frozen=True)
class Parts:
    """One forecast in parts, relative to average conditions.

    Average conditions: every term of the scale and the head at their means over the training
    decisions, a contract nothing is known of, the average tail.

    Attributes:
        label: contract, time, side and level, for people.
        forecast: the quantile forecast, a fraction above 0.
        worth: value of each feature in its own unit, NaN where not known; the factor of what
            ``rest`` names.
        scale: what each feature adds to log(scale / average scale).
        head: SHAP value of each feature, in units of the head.
        average_head: mean of the head over the training decisions.
        rest: what calibration adds to the logarithm; and rearrangement, where levels crossed and
            the forecast served is not what this level's own trees said.
    """

    label: str
    forecast: float
    worth: Mapping[str, float]
    scale: Mapping[str, float]
    head: Mapping[str, float]
    average_head: float
    rest: Mapping[str, float]


def parts_of(
    forecaster: Staged, panel: Panel, row: int, side: Side, level: float
) -> tuple[Parts, Parts]:
    """Return average conditions and one forecast in parts, for :func:`explain_change`.

    Args:
        forecaster: as in :func:`explain`, and so on.
        panel: decisions.
        row: which of them.
        side: side.
        level: level.

    Raises:
        InputError: no such row, side or level; the forecast is not known; or it, or what the trees
            of its level say, is 0, of which there is no logarithm.
    """
    if side not in forecaster.sides or level not in forecaster.levels:
        raise InputError(
            f"no forecast of side {side}, level {level:g} to explain; the model forecasts sides "
            f"{', '.join(forecaster.sides)} at levels "
            f"{', '.join(f'{known:g}' for known in forecaster.levels)}"
        )
    if not 0 <= row < len(panel):
        raise InputError(f"no row {row} to explain; the panel's rows are 0 to {len(panel) - 1}")
    i, k = forecaster.sides.index(side), forecaster.levels.index(level)
    frame = panel.rows(np.array([row])).frame
    label = f"{frame['symbol'][0]}, {frame['ts'][0]:%Y-%m-%d %H:%M %Z}, {side}, {level:g}"
    forecast = float(forecaster.predict(panel).quantiles[row, i, k])
    if not math.isfinite(forecast):
        raise InputError(
            f"the forecast of {label} is not known (a feature the scale needs is missing there), "
            "so there is nothing to explain; choose another decision"
        )
    stages = forecaster.stages(panel)
    width = stages.scale.predict(frame)
    shap = _shap(stages.head, frame, width, side)
    factors, multipliers = stages.average_log_factors[i], stages.average_log_multipliers[i]
    own = {name: logs[row, i] for name, logs in stages.log_factors.items()}
    beyond = {name: logs[row, i] for name, logs in stages.log_multipliers.items()}
    anchor = stages.anchors[k]

    average = stages.scale.average * shap[:, -1] * np.exp(factors)
    served, rearranged = _served(average, multipliers, stages.anchors, k, "average conditions")
    usual = Parts(
        label="average conditions",
        forecast=served,
        worth={},
        scale={},
        head={},
        average_head=float(shap[anchor, -1]),
        rest={REARRANGEMENT: rearranged},
    )
    calibrated = width[0] * shap.sum(axis=1) * np.exp(sum(own.values(), start=factors))
    multiplied = sum(beyond.values(), start=multipliers)
    served, rearranged = _served(calibrated, multiplied, stages.anchors, k, label)
    if not abs(math.log(served) - math.log(forecast)) <= TOLERANCE:
        raise RuntimeError(
            f"stages() of the forecaster make {served!r} of {label}, its predict() {forecast!r}: "
            "they do not describe one model"
        )
    rest = {name: float(logs[anchor]) for name, logs in own.items()}
    rest |= {name: float(logs[k]) for name, logs in beyond.items()}
    rest |= {REARRANGEMENT: rearranged}
    columns = dict.fromkeys([*stages.scale.columns, *stages.head.units])
    names = [*stages.head.units, LOG_SCALE]
    parts = Parts(
        label=label,
        forecast=forecast,
        worth={
            **{column: float(frame[column][0]) for column in columns},
            LOG_SCALE: math.log(width[0]),
            HOUR_OF_WEEK: float(hour_of_week(frame["ts"])[0]),
            **{name: math.exp(log) for name, log in rest.items()},
        },
        scale={name: float(v[0]) for name, v in stages.scale.contributions(frame).items()},
        head=dict(zip(names, shap[anchor, :-1].tolist(), strict=True)),
        average_head=float(shap[anchor, -1]),
        rest=rest,
    )
    return usual, parts


def _shap(head: QuantileHead, frame: pd.DataFrame, width: FloatArray, side: Side) -> FloatArray:
    """Return SHAP values of one decision, shape (head levels, features + 2); the average last."""
    matrix = head.design(frame, width)
    return np.concatenate(
        [
            np.asarray(
                head.boosters[side, level].predict(
                    matrix, pred_contrib=True, num_threads=head.threads
                )
            )
            for level in head.levels
        ]
    )


def _served(
    base: FloatArray, log_multipliers: FloatArray, anchors: tuple[int, ...], k: int, label: str
) -> tuple[float, float]:
    """Return the forecast served at level k, and log(served / what its own trees say).

    Args:
        base: calibrated forecasts of the head levels, before they are held at 0, shape (J,).
        log_multipliers: of each level on its anchor, shape (L,).
        anchors: head level each level is taken from.
        k: the level.
        label: of the decision, for people.
    """
    multipliers = np.exp(log_multipliers)
    served = float(np.sort(np.sort(np.maximum(base, 0.0))[list(anchors)] * multipliers)[k])
    own = float(base[anchors[k]] * multipliers[k])
    if not min(served, own) > 0.0:
        raise InputError(
            f"the forecast of {label} is held at 0 by its quantile head, of which there is no "
            "logarithm to split; choose a higher level or another decision"
        )
    return served, math.log(served / own)
