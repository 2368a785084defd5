"""The picture of the frontier: losses over cost, a dot a setting, and where the policy stands."""

import pandas as pd
from matplotlib.figure import Figure

from margincast.backtest._drawing import (
    MUTED,
    OURS_COLOUR,
    PEER_COLOUR,
    REFERENCE_COLOUR,
    new_panels,
)

AXES = (
    ("scaled_shortfall_bps", "loss beyond margin, bps a decision"),
    ("peak_to_trough", "peak over trough, median"),
    ("largest_1_day_rise", "largest one-day rise, median"),
)


def draw_frontier(table: pd.DataFrame, in_force: str) -> Figure:
    """Draw settings at one rate of exceedances: less is better on every axis.

    Args:
        table: ``setting``, ``kind`` (setting, policy or forecast), ``efficient``, ``scaled_mean``
            and the columns of :data:`AXES`.
        in_force: the setting that is the policy as it stands.
    """
    figure, panels = new_panels(len(AXES), 4.2, share_rows=False)
    settings = table["kind"] == "setting"
    for axes, (column, label) in zip(panels, AXES, strict=True):
        for chosen, marker, colour, name in (
            (settings & ~table["efficient"], ".", PEER_COLOUR, "setting"),
            (settings & table["efficient"], "o", MUTED, "efficient setting"),
            (table["kind"] == "forecast", "s", REFERENCE_COLOUR, "forecast without policy"),
            (table["setting"] == in_force, "*", OURS_COLOUR, "policy in force"),
        ):
            rows = table[chosen]
            axes.scatter(
                rows["scaled_mean"], rows[column], marker=marker, color=colour, label=name,
                s=90 if marker == "*" else 22,
            )  # fmt: skip
        for _, row in table[table["kind"] == "forecast"].iterrows():
            axes.annotate(
                row["setting"], (row["scaled_mean"], row[column]), fontsize=8, color=MUTED,
                xytext=(4, 3), textcoords="offset points",
            )  # fmt: skip
        axes.set_xlabel("mean margin at one exceedance rate")
        axes.set_title(label)
        axes.grid(visible=True)
        if table[column].max() > 20.0 * max(table[column].min(), 1e-9):
            axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    panels[0].legend(loc="upper right", fontsize=8)
    return figure
