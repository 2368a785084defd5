"""Figures of the validation: who fails what, and what each margin costs for how steady it is.

Drawing only; the figures' numbers come from ``validation``.
"""

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from margincast.backtest._drawing import (
    GRID,
    INK,
    OURS_COLOUR,
    PEER_COLOUR,
    REFERENCE_COLOUR,
    colour_of,
    new_figure,
    new_panels,
)
from margincast.backtest.battery import FALSE_DISCOVERY_RATE, TRAFFIC_LIGHT

MOST_SERIES = 60
"""Contracts and sides drawn; of more, those with most failures."""
SHADES = {
    "pass": (OURS_COLOUR, ""),
    "no power": (GRID, ""),
    "fails alone": (PEER_COLOUR, "/"),
    "fail": (REFERENCE_COLOUR, "\N{MULTIPLICATION SIGN}"),
}
"""Colour and mark of each answer: readable without colour."""


def draw_heat_map(tests: pd.DataFrame, level: float) -> Figure:
    """Cells: the answer of every test at one level, a row a contract and side.

    Args:
        tests: of :func:`~margincast.backtest.battery.run_battery`.
        level: whose tests are drawn.
    """
    own = tests[tests["level"] == level]
    answers = list(SHADES)
    number = own["verdict"].map({name: i for i, name in enumerate(answers)}).astype(float)
    alone = (own["verdict"] == "fail") & ~(own["adjusted_p"] < FALSE_DISCOVERY_RATE)
    alone &= own["test"] != TRAFFIC_LIGHT
    number[alone] = answers.index("fails alone")
    names = own["symbol"].astype(str) + " " + own["side"].astype(str)
    matrix = (
        own.assign(series=names, answer=number)
        .pivot_table(index="series", columns="test", values="answer", sort=False)
        .astype(float)
    )
    worst = (matrix >= answers.index("fails alone")).sum(axis=1)
    matrix = matrix.loc[worst.sort_values(ascending=False, kind="stable").index[:MOST_SERIES]]
    figure = new_figure(2.4 + 0.17 * len(matrix))
    panel = figure.subplots()
    colours = ListedColormap([colour for colour, _ in SHADES.values()])
    panel.imshow(matrix, cmap=colours, vmin=-0.5, vmax=len(answers) - 0.5, aspect="auto")
    cells = matrix.to_numpy(np.float64)
    for row, column in zip(*np.nonzero(cells >= answers.index("fails alone")), strict=True):
        mark = SHADES[answers[int(cells[row, column])]][1]
        panel.text(column, row, mark, ha="center", va="center", fontsize=8)
    panel.set_xticks(range(matrix.shape[1]), list(matrix.columns), rotation=55, ha="right")
    panel.set_yticks(range(len(matrix)), list(matrix.index), fontsize=7)
    panel.set_xticks(np.arange(-0.5, matrix.shape[1]), minor=True)
    panel.set_yticks(np.arange(-0.5, len(matrix)), minor=True)
    panel.grid(which="minor", linewidth=0.6)
    panel.tick_params(which="minor", length=0)
    handles = [
        panel.plot([], [], "s", color=colour, markersize=8, label=f"{name} {mark}".strip())[0]
        for name, (colour, mark) in SHADES.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def draw_frontier(procyclicality: pd.DataFrame, ours: str, reference: str) -> Figure:
    """Dots: what each model's margin costs against how it moves, a model a dot.

    Left: the largest rise within a day; right: the largest within 30 days.

    Args:
        procyclicality: of :class:`~margincast.backtest.validation.Validation`.
        ours: the model on trial.
        reference: the one it is compared with.
    """
    measures = {"largest_1_day_rise": "in a day", "largest_30_day_rise": "in 30 days"}
    figure, panels = new_panels(len(measures), 3.8)
    for panel, (column, words) in zip(panels, measures.items(), strict=True):
        for row in procyclicality.to_dict("records"):
            name = str(row["model"])
            marker = "D" if name == ours else "o"
            colour = colour_of(name, ours, reference)
            panel.plot(row[column], row["mean_margin"], marker, color=colour, markersize=6)
            panel.annotate(
                name,
                (row[column], row["mean_margin"]),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=6.5,
                color=INK if name in {ours, reference} else PEER_COLOUR,
            )
        panel.set_xscale("symlog", linthresh=0.1)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"+{100 * value:.0f} %"))
        panel.set_xlabel(f"largest rise {words}")
        panel.grid()
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.1f} %"))
    panels[0].set_ylabel("mean forecast")
    return figure
