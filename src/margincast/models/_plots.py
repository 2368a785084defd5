"""Figures of what moves a forecast."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from margincast.models.importance import Importance

_SHOWN = 20
_COLOURS = {"scale": "#4c72b0", "head": "#dd8452"}


def draw_importances(importance: Importance) -> Figure:
    """Bars: mean absolute contribution to log(forecast), through scale and head."""
    table = importance.table().head(_SHOWN).iloc[::-1]
    figure = Figure(figsize=(8.0, 0.9 + 0.28 * len(table)), layout="constrained")
    axes = figure.subplots()
    height = 0.4
    places = np.arange(len(table))
    for offset, through in ((height / 2, "scale"), (-height / 2, "head")):
        values = table[f"through_{through}"].to_numpy()
        axes.barh(places + offset, values, height, color=_COLOURS[through], label=through)
    axes.set_yticks(places, table["feature"])
    axes.set_xlabel("mean absolute contribution to log(forecast / average)")
    axes.legend(frameon=False)
    axes.set_title(_title(importance))
    return figure


def draw_contributions(importance: Importance) -> Figure:
    """A point a decision and feature: what the feature adds, coloured by its value's rank."""
    names = importance.table()["feature"].head(_SHOWN).tolist()[::-1]
    figure = Figure(figsize=(8.0, 0.9 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots()
    spread = np.random.default_rng(0).uniform(-0.3, 0.3, importance.decisions)
    for place, name in enumerate(names):
        column = importance.features.index(name)
        worth, added = importance.worth[:, column], importance.contributions[:, column]
        known = np.isfinite(worth)
        axes.scatter(added[~known], place + spread[~known], s=3, color="lightgrey")
        if known.any():
            rank = worth[known].argsort().argsort() / max(1, int(known.sum()) - 1)
            axes.scatter(
                added[known], place + spread[known], s=3, c=rank, cmap="coolwarm", vmin=0, vmax=1
            )
    axes.axvline(0.0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"x{np.exp(value):.2f}"))
    axes.set_xlabel("multiplier of the forecast (red: the feature is high, grey: not known)")
    axes.set_title(_title(importance))
    return figure


def _title(importance: Importance) -> str:
    return f"{importance.side}, head at {importance.level:g}, {importance.decisions:,} decisions"
