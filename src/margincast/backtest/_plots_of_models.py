"""Figures of all models side by side: coverage, sharpness and reliability.

Drawing only; the figures' numbers come from ``evaluation``.
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from margincast.backtest._drawing import INK, colour_of, name_rows, new_panels
from margincast.backtest.evaluation import Evaluation
from margincast.core.errors import InputError


def draw_exceedance_ratios(evaluation: Evaluation, ours: str) -> Figure:
    """Dots with intervals: observed over nominal exceedances, a panel a level, a row a model."""
    models = _models(evaluation)
    levels = _levels(evaluation)
    figure, panels = new_panels(len(levels), 1.1 + 0.3 * len(models))
    for panel, level in zip(panels, levels, strict=True):
        panel.axvline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
        for row, model in enumerate(models):
            cell = evaluation.cell(model, "both", level)
            colour = colour_of(model, ours, evaluation.reference)
            known = np.isfinite([cell.exceedance_ratio_low, cell.exceedance_ratio_high]).all()
            if known:
                ends = (cell.exceedance_ratio_low, cell.exceedance_ratio_high)
                panel.plot(ends, (row, row), color=colour, linewidth=2.2, solid_capstyle="butt")
            marker = "D" if model == ours else "o"
            panel.plot(cell.exceedance_ratio, row, marker, color=colour, markersize=6)
        panel.set_xlim(left=0.0)
        panel.set_title(f"level {level:g}")
        panel.set_xlabel("observed / nominal exceedances")
        panel.grid(axis="x")
    name_rows(panels, models)
    return figure


def draw_pinball_ratios(evaluation: Evaluation, ours: str) -> Figure:
    """Bars: pinball loss relative to the reference with its standard error, a panel a level."""
    models = _models(evaluation)
    levels = _levels(evaluation)
    figure, panels = new_panels(len(levels), 1.1 + 0.3 * len(models))
    for panel, level in zip(panels, levels, strict=True):
        panel.axvline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
        ratios = [evaluation.cell(model, "both", level).pinball_ratio for model in models]
        colours = [colour_of(model, ours, evaluation.reference) for model in models]
        errors = [evaluation.cell(model, "both", level).pinball_ratio_error for model in models]
        panel.barh(
            range(len(models)),
            ratios,
            height=0.62,
            color=colours,
            xerr=None if np.isnan(errors).any() else errors,
            ecolor=INK,
        )
        right = 1.32 * max(1.0, *ratios)
        for row, ratio in enumerate(ratios):
            panel.text(right, row, f"{ratio:.3f}", ha="right", va="center")
        panel.set_xlim(0.0, right)
        panel.set_title(f"level {level:g}")
        panel.set_xlabel(f"pinball loss / that of {evaluation.reference}")
    name_rows(panels, models)
    return figure


def draw_reliability(evaluation: Evaluation, ours: str) -> Figure:
    """Lines: observed against nominal share of exceedances over the levels, a panel a side.

    Both axes are logarithmic. A model without an exceedance at a level has no point there.
    """
    levels = _levels(evaluation)
    nominal = [1.0 - level for level in levels]
    sides = sorted({cell.side for cell in evaluation.cells if cell.side != "both"})
    figure, panels = new_panels(len(sides), 3.6)
    # ours and the reference last, on top of the grey of the rest
    marked = (evaluation.reference, ours)
    drawn = sorted(
        _models(evaluation), key=lambda name: marked.index(name) if name in marked else -1
    )
    for panel, side in zip(panels, sides, strict=True):
        ends = (0.7 * min(nominal), 1.4 * max(nominal))
        panel.plot(ends, ends, color=INK, linewidth=1.0, linestyle=(0, (4, 2)), label="exact")
        for model in drawn:
            cells = [evaluation.cell(model, side, level) for level in levels]
            observed = [c.exceedances / c.decisions if c.exceedances else np.nan for c in cells]
            peer = model not in {ours, evaluation.reference}
            panel.plot(
                nominal,
                observed,
                marker="D" if model == ours else "o",
                color=colour_of(model, ours, evaluation.reference),
                linewidth=0.9 if peer else 1.8,
                markersize=3.5 if peer else 5.5,
                label=model if not peer else None,
            )
        panel.set_xscale("log")
        panel.set_yscale("log")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(FixedLocator(nominal))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        panel.set_title(side)
        panel.set_xlabel("promised share of outcomes beyond the forecast")
        panel.grid()
    panels[0].set_ylabel("observed share")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _models(evaluation: Evaluation) -> list[str]:
    if not evaluation.models:
        raise InputError("the evaluation holds no model; nothing can be drawn")
    ranked = sorted(evaluation.models, key=lambda summary: summary.pinball_ratio)
    return [summary.model for summary in ranked]


def _levels(evaluation: Evaluation) -> list[float]:
    return sorted({cell.level for cell in evaluation.cells})
