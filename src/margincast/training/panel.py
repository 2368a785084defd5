"""Join features with outcomes: the panel of decisions every forecaster learns from."""

from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import pandas as pd
import polars as pl

from margincast.core.types import BoolArray, Side
from margincast.data.quality import Finding
from margincast.features.pipeline import FeatureTable
from margincast.models.protocol import Panel, Unit


def assemble_panel(
    table: FeatureTable,
    outcomes: pl.DataFrame,
    sides: tuple[Side, ...],
    *,
    stride: int,
    interval: timedelta,
) -> tuple[Panel, list[Finding]]:
    """Join features and the outcomes of one horizon; see :func:`assemble_panels`."""
    panels, findings = assemble_panels(
        table, {0: outcomes}, sides, stride=stride, interval=interval
    )
    return panels[0], [findings[0]]


def assemble_panels(
    table: FeatureTable,
    outcomes: Mapping[int, pl.DataFrame],
    sides: tuple[Side, ...],
    *,
    stride: int,
    interval: timedelta,
    with_newest: bool = False,
) -> tuple[dict[int, Panel], dict[int, Finding]]:
    """Join features and outcomes of several horizons at the decisions of a stride.

    Args:
        table: features at every decision.
        outcomes: per horizon; see :func:`margincast.training.targets.outcome_table`.
        sides: sides to keep.
        stride: keep decisions whose time is a multiple of ``stride`` bars since 1970, so that the
            grid of decisions does not hang on where the data starts.
        interval: bar length.
        with_newest: keep every contract's newest decision too, wherever it falls: the one a margin
            is asked for.

    Returns:
        A panel a horizon, all of the same decisions and sharing one frame, and how many of each
        have no outcome.
    """
    whole = table.frame
    kept = on_grid(whole["ts"], stride, interval)
    if with_newest:
        newest = whole.groupby("symbol", sort=False)["ts"].transform("max")
        kept |= whole["ts"].eq(newest).to_numpy()
    frame = whole.loc[kept, ["symbol", "ts", "close", *table.units]].reset_index(drop=True)
    panels = {
        horizon: _labelled(frame, table.units, found, sides) for horizon, found in outcomes.items()
    }
    return panels, {horizon: _unlabelled(panel) for horizon, panel in panels.items()}


def _labelled(
    frame: pd.DataFrame, units: Mapping[str, Unit], outcomes: pl.DataFrame, sides: tuple[Side, ...]
) -> Panel:
    joined = frame[["symbol", "ts"]].merge(
        outcomes.to_pandas(), on=["symbol", "ts"], how="left", validate="one_to_one"
    )
    return Panel(
        frame=frame,
        units=units,
        outcomes={side: joined[f"outcome_{side}"].to_numpy(np.float64) for side in sides},
        log_range=joined["log_range"].to_numpy(np.float64),
        label_end=joined["label_end"].dt.tz_localize(None).to_numpy(dtype="datetime64[us]"),
    )


def _unlabelled(panel: Panel) -> Finding:
    return Finding(
        "decisions",
        "(all)",
        "no outcome yet, or window too gappy",
        int((~panel.labelled).sum()),
        len(panel),
        "forecast, but neither trained on nor scored",
    )


def on_grid(ts: "pd.Series[pd.Timestamp]", stride: int, interval: timedelta) -> BoolArray:
    """Whether a decision time is a multiple of ``stride`` bars since 1970, shape (n,)."""
    since = ts.dt.tz_localize(None).to_numpy(dtype="datetime64[us]").astype(np.int64)
    steps = since // round(interval / timedelta(microseconds=1))
    return np.asarray(steps % stride == 0)
