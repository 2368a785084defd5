"""Join features with outcomes: the panel of decisions every forecaster learns from."""

from datetime import timedelta

import numpy as np
import pandas as pd
import polars as pl

from margincast.core.types import BoolArray, Side
from margincast.data.quality import Finding
from margincast.features.pipeline import FeatureTable
from margincast.models.protocol import Panel


def assemble_panel(
    table: FeatureTable,
    outcomes: pl.DataFrame,
    sides: tuple[Side, ...],
    *,
    stride: int,
    interval: timedelta,
    with_newest: bool = False,
) -> tuple[Panel, list[Finding]]:
    """Join features and outcomes at the decisions of a stride.

    Args:
        table: features at every decision.
        outcomes: see :func:`margincast.training.targets.outcome_table`.
        sides: sides to keep.
        stride: keep decisions whose time is a multiple of ``stride`` bars since 1970, so that the
            grid of decisions does not hang on where the data starts.
        interval: bar length.
        with_newest: keep every contract's newest decision too, wherever it falls: the one a margin
            is asked for.

    Returns:
        The panel and the number of decisions without an outcome.
    """
    joined = table.frame.merge(
        outcomes.to_pandas(), on=["symbol", "ts"], how="left", validate="one_to_one"
    )
    kept = on_grid(joined["ts"], stride, interval)
    if with_newest:
        kept |= (
            joined["ts"].eq(joined.groupby("symbol", sort=False)["ts"].transform("max")).to_numpy()
        )
    joined = joined.loc[kept].reset_index(drop=True)
    panel = Panel(
        frame=joined[["symbol", "ts", "close", *table.units]],
        units=table.units,
        outcomes={side: joined[f"outcome_{side}"].to_numpy(np.float64) for side in sides},
        log_range=joined["log_range"].to_numpy(np.float64),
        label_end=joined["label_end"].dt.tz_localize(None).to_numpy(dtype="datetime64[us]"),
    )
    unlabelled = int((~panel.labelled).sum())
    return panel, [
        Finding(
            "decisions",
            "(all)",
            "no outcome yet, or window too gappy",
            unlabelled,
            len(panel),
            "forecast, but neither trained on nor scored",
        )
    ]


def on_grid(ts: "pd.Series[pd.Timestamp]", stride: int, interval: timedelta) -> BoolArray:
    """Whether a decision time is a multiple of ``stride`` bars since 1970, shape (n,)."""
    since = ts.dt.tz_localize(None).to_numpy(dtype="datetime64[us]").astype(np.int64)
    steps = since // round(interval / timedelta(microseconds=1))
    return np.asarray(steps % stride == 0)
