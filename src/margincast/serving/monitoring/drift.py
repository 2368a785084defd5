"""Drift: whether the model is asked about markets that look like those it learnt from.

Responsible for saying it of single features, before exceedances can: they need months.
"""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from margincast.core.time import instant64
from margincast.core.types import BoolArray
from margincast.serving.monitoring.alarm import Check
from margincast.serving.monitoring.distribution import (
    Distribution,
    bin_counts,
    stability_index,
)
from margincast.specs.monitor import Drift


def feature_drift(
    distribution: Distribution, frame: pd.DataFrame, at: datetime, thresholds: Drift
) -> pd.DataFrame:
    """Compare features of the last window with those of training.

    Args:
        distribution: of training.
        frame: columns ``symbol``, ``ts`` (UTC) and features.
        at: end of the window.
        thresholds: from which on a feature counts as drifted.

    Returns:
        A row a feature of training: ``feature``, ``family``, ``stability_index`` and ``usual`` in
        training, ``drifted``, ``missing`` and ``missing_in_training`` (shares of values),
        ``missing_now`` (of contracts' newest decisions), ``out_of_range`` (share of known values
        outside of what training has seen). NaN where nothing can be said.
    """
    decided = frame["ts"].dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    moment = instant64(at)
    window = np.timedelta64(timedelta(days=distribution.window_days))
    recent = frame[(decided <= moment) & (decided > moment - window)]
    newest = recent.loc[recent.groupby("symbol")["ts"].idxmax()] if len(recent) else recent
    rows = []
    for name, trained in distribution.features.items():
        # a feature that is no longer built is not known anywhere
        values = recent.get(name, pd.Series(np.nan, recent.index)).to_numpy(np.float64)
        now = newest.get(name, pd.Series(np.nan, newest.index)).to_numpy(np.float64)
        known = values[~np.isnan(values)]
        index = stability_index(bin_counts(values, trained.edges), trained.shares)
        limit = max(thresholds.stability_index_max, trained.usual or 0.0)
        outside = float("nan")
        if len(known) and trained.lowest is not None and trained.highest is not None:
            outside = float(np.mean((known < trained.lowest) | (known > trained.highest)))
        rows.append(
            {
                "feature": name,
                "family": trained.family,
                "stability_index": index,
                "usual": float("nan") if trained.usual is None else trained.usual,
                "drifted": index > limit,
                "missing": _mean(np.isnan(values)),
                "missing_in_training": trained.missing,
                "missing_now": _mean(np.isnan(now)),
                "out_of_range": outside,
            }
        )
    return pd.DataFrame(rows)


def drift_checks(table: pd.DataFrame, subject: str, thresholds: Drift) -> list[Check]:
    """Return the checks of a table of :func:`feature_drift`.

    Args:
        table: a row a feature.
        subject: the model.
        thresholds: what raises an alarm.
    """
    compared = table["stability_index"].notna()
    drifted = table[table["drifted"]].sort_values("stability_index", ascending=False)
    share = len(drifted) / int(compared.sum()) if compared.any() else None
    rise = table["missing_now"] - table["missing_in_training"]
    families = rise.groupby(table["family"]).mean()
    outside, names = table["out_of_range"], table["feature"].tolist()
    return [
        Check(
            "features drifted",
            subject,
            share,
            thresholds.drifted_max,
            _drifted(drifted, int(compared.sum())),
        ),
        Check(
            "features missing",
            subject,
            float(families.max()) if families.notna().any() else None,
            thresholds.missing_rise_max,
            _worst(
                "the newest decisions lack more of family {} than training, by {:.1%}", families
            ),
        ),
        Check(
            "features out of range",
            subject,
            float(outside.max()) if outside.notna().any() else None,
            thresholds.out_of_range_max,
            _worst("{} is outside of what training has seen in {:.2%}", outside.set_axis(names)),
        ),
    ]


def _drifted(drifted: pd.DataFrame, compared: int) -> str:
    if compared == 0:
        return "no decision in the window"
    named = [
        f"{row['feature']} ({row['stability_index']:.2f})"
        for row in drifted.head(3).to_dict(orient="records")
    ]
    text = f"{len(drifted)} of {compared} features are not as they were in training"
    return f"{text}: {', '.join(named)}" if named else text


def _worst(text: str, values: pd.Series) -> str:
    known = values.dropna()
    if known.empty:
        return "no decision in the window"
    return text.format(known.idxmax(), float(known.max()))


def _mean(values: BoolArray) -> float:
    return float(values.mean()) if len(values) else float("nan")
