"""Figures of the backtest report: where a margin forecast held, where not, and at what price.

Drawing only; the figures' numbers come from ``evaluation`` and ``replay``. Matplotlib's figure
objects are used without pyplot, so nothing is left open and no global state changes. Every figure
becomes an SVG whose colours follow the reader's light or dark setting.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from margincast.backtest.evaluation import Evaluation
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray, Side

INK, MUTED, GRID = "#202122", "#6e7377", "#d5d8da"
OURS_COLOUR, REFERENCE_COLOUR, PEER_COLOUR = "#0072b2", "#d55e00", "#85898c"
SIDE_LOOKS = {"long": ("v", "#009e73"), "short": ("^", "#cc79a7")}
"""Blue and vermilion, green and purple of Okabe and Ito (2008), Color Universal Design; what
stands in one plot differs in shape too."""

_DARK = {
    INK: "#e8eaec",
    MUTED: "#a4a9ad",
    GRID: "#3c4144",
    OURS_COLOUR: "#56b4e9",
    REFERENCE_COLOUR: "#e69f00",
    PEER_COLOUR: "#92979b",
}
"""What each colour becomes on a dark page: sky blue and orange of the same palette."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "date.converter": "concise",
    "svg.hashsalt": "margincast",
    "text.parse_math": False,  # a contract may be called A$B
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],  # of one width, as laid out here
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
WIDTH_INCHES = 9.0
MOST_POINTS = 800
"""Points drawn along a time axis; a screen shows no more."""
MOST_CONTRACTS = 50
"""Contracts drawn in one figure: half of them the most, half the least exceeded."""
_BIN_NAMES = {
    "1min": "minute",
    "10min": "10 minutes",
    "1h": "hour",
    "6h": "6 hours",
    "1D": "day",
    "7D": "7 days",
    "28D": "28 days",
}


@dataclass(frozen=True)
class Excursions:
    """Decisions of one contract at one level, in time order.

    Attributes:
        symbol: the contract.
        level: of the forecasts.
        decided: decision times, UTC, shape (n,), strictly increasing.
        outcomes: realised adverse excursion per side, simple fractions, shape (n,).
        ours: our forecast per side, shape (n,).
        reference: the reference model's forecast per side, shape (n,).
    """

    symbol: str
    level: float
    decided: npt.NDArray[np.datetime64]
    outcomes: dict[Side, FloatArray]
    ours: dict[Side, FloatArray]
    reference: dict[Side, FloatArray]


@dataclass(frozen=True)
class Calendar:
    """Exceedances of all contracts and sides counted by calendar period.

    Attributes:
        unit: ``month``, ``day`` or ``hour``.
        starts: first instant of every period that has decisions, shape (p,).
        nominal: exceedances that exact coverage would have, shape (p,).
        counts: exceedances per model, each of shape (p,).
    """

    unit: str
    starts: npt.NDArray[np.datetime64]
    nominal: FloatArray
    counts: dict[str, npt.NDArray[np.int64]]


def calendar_unit(decided: npt.NDArray[np.datetime64]) -> str:
    """Return the period in which to count: months, or days or hours where there are few months."""
    span = decided.max() - decided.min()
    if span > np.timedelta64(100, "D"):
        return "month"
    return "day" if span > np.timedelta64(4, "D") else "hour"


def count_by_calendar(
    decided: npt.NDArray[np.datetime64],
    exceeded: dict[str, BoolArray],
    level: float,
) -> Calendar:
    """Count exceedances by calendar period.

    Args:
        decided: decision times, UTC, shape (n,), any order, not empty.
        exceeded: per model, whether each decision's outcome went beyond its forecast, shape (n,)
            or (n, sides).
        level: nominal exceedances are ``1 - level`` of the decisions.
    """
    unit = calendar_unit(decided)
    code = {"month": "M", "day": "D", "hour": "h"}[unit]
    starts, index = np.unique(decided.astype(f"datetime64[{code}]"), return_inverse=True)
    per_decision = {name: hits.reshape(len(decided), -1) for name, hits in exceeded.items()}
    copies = next(iter(per_decision.values())).shape[1]
    return Calendar(
        unit=unit,
        starts=starts.astype("datetime64[s]"),
        nominal=(1 - level) * copies * np.bincount(index).astype(np.float64),
        counts={
            name: np.bincount(index, weights=hits.sum(axis=1)).round().astype(np.int64)
            for name, hits in per_decision.items()
        },
    )


def largest_per_bin(
    decided: npt.NDArray[np.datetime64], columns: dict[str, FloatArray]
) -> tuple[str, pd.DataFrame]:
    """Thin series for drawing: keep the largest value of each time bin, so that no peak is lost.

    Args:
        decided: decision times, UTC, shape (n,), strictly increasing, not empty.
        columns: series by name, each of shape (n,).

    Returns:
        The bin in words (``day``), and one row a bin (bins without a decision are NaN), at most
        about ``MOST_POINTS`` rows where the period is shorter than 60 years.
    """
    frame = pd.DataFrame(columns, index=pd.DatetimeIndex(decided))
    gaps = np.diff(decided).astype("timedelta64[s]").astype(np.float64)
    shortest = max(float(np.median(gaps)), gaps.sum() / MOST_POINTS) if gaps.size else 0.0
    lengths = {name: pd.Timedelta(name).total_seconds() for name in _BIN_NAMES}
    chosen = next((name for name, length in lengths.items() if length >= shortest), "28D")
    return _BIN_NAMES[chosen], frame.resample(chosen).max()


def draw_exceedance_ratios(evaluation: Evaluation, ours: str) -> Figure:
    """Dots with intervals: observed over nominal exceedances, a panel a level, a row a model."""
    models = _models(evaluation)
    levels = _levels(evaluation)
    figure, panels = _panels(len(levels), 1.1 + 0.3 * len(models))
    for panel, level in zip(panels, levels, strict=True):
        panel.axvline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
        for row, model in enumerate(models):
            cell = evaluation.cell(model, "both", level)
            colour = _colour(model, ours, evaluation.reference)
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
    _name_rows(panels, models)
    return figure


def draw_pinball_ratios(evaluation: Evaluation, ours: str) -> Figure:
    """Bars: mean pinball loss relative to the reference, a panel a level, a row a model."""
    models = _models(evaluation)
    levels = _levels(evaluation)
    figure, panels = _panels(len(levels), 1.1 + 0.3 * len(models))
    for panel, level in zip(panels, levels, strict=True):
        panel.axvline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
        ratios = [evaluation.cell(model, "both", level).pinball_ratio for model in models]
        colours = [_colour(model, ours, evaluation.reference) for model in models]
        panel.barh(range(len(models)), ratios, height=0.62, color=colours)
        right = 1.32 * max(1.0, *ratios)
        for row, ratio in enumerate(ratios):
            panel.text(right, row, f"{ratio:.3f}", ha="right", va="center")
        panel.set_xlim(0.0, right)
        panel.set_title(f"level {level:g}")
        panel.set_xlabel(f"pinball loss / that of {evaluation.reference}")
    _name_rows(panels, models)
    return figure


def draw_excursions(data: Excursions, ours: str, reference: str) -> Figure:
    """Forecasts against realised adverse excursions of one contract over time, a panel a side."""
    figure = _figure(2.5 * len(data.outcomes))
    panels = figure.subplots(len(data.outcomes), 1, sharex=True, squeeze=False)[:, 0]
    for panel, side in zip(panels, data.outcomes, strict=True):
        outcome, forecast = data.outcomes[side], data.ours[side]
        unit, largest = largest_per_bin(
            data.decided,
            {
                "outcome": outcome,
                "ours": forecast,
                "reference": data.reference[side],
                "beyond": np.where(outcome > forecast, outcome, np.nan),
            },
        )
        times = largest.index.to_numpy()
        panel.fill_between(
            times,
            0.0,
            largest["outcome"],
            step="mid",
            color=PEER_COLOUR,
            alpha=0.55,
            linewidth=0,
            label="realised",
        )
        if reference != ours:
            panel.plot(
                times,
                largest["reference"],
                color=REFERENCE_COLOUR,
                linewidth=1.1,
                linestyle=(0, (3, 1.2)),
                label=f"{reference} forecast",
            )
        panel.plot(
            times, largest["ours"], color=OURS_COLOUR, linewidth=1.5, label=f"{ours} forecast"
        )
        panel.plot(
            times,
            largest["beyond"],
            "x",
            color=INK,
            markersize=4.5,
            markeredgewidth=1.2,
            label=f"realised beyond {ours}",
        )
        panel.set_ylim(bottom=0.0)
        panel.set_title(f"{data.symbol}, {side}, level {data.level:g}")
        panel.set_ylabel(f"adverse excursion,\nlargest per {unit}")
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        panel.grid(axis="y")
        panel.margins(x=0.01)
    panels[-1].set_xlabel("decision time (UTC)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def draw_calendar(calendar: Calendar, ours: str, reference: str, level: float) -> Figure:
    """Bars: exceedances per calendar period, all contracts and sides, against the nominal count."""
    figure = _figure(2.9)
    panel = figure.subplots()
    hours = {"month": 730, "day": 24, "hour": 1}[calendar.unit]
    half, width = np.timedelta64(30 * hours, "m"), np.timedelta64(46 * hours, "m")
    times = calendar.starts + half
    marks: list[Artist | BarContainer] = [
        panel.bar(times, calendar.counts[ours], width=width, color=OURS_COLOUR, label=ours),
        panel.hlines(
            calendar.nominal,
            times - half,
            times + half,
            color=INK,
            linewidth=1.6,
            label="nominal",
        ),
    ]
    if reference != ours:
        marks += panel.plot(
            times,
            calendar.counts[reference],
            "o",
            color=REFERENCE_COLOUR,
            markersize=4.5,
            markeredgecolor=INK,
            markeredgewidth=0.5,
            clip_on=False,
            label=reference,
        )
    panel.set_ylabel(f"exceedances per {calendar.unit},\nall contracts, level {level:g}")
    panel.set_xlabel("decision time (UTC)")
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(axis="y")
    panel.margins(x=0.01)
    figure.legend(handles=marks, loc="outside upper center", ncols=3)
    return figure


def draw_contracts(contracts: pd.DataFrame, model: str, level: float) -> Figure:
    """Dots: exceedance ratio of each contract and side, least exceeded contract at the bottom.

    Of more than ``MOST_CONTRACTS`` contracts, the most and the least exceeded are drawn.
    """
    own = contracts[(contracts["model"] == model) & (contracts["level"] == level)]
    table = own.pivot_table(index="symbol", columns="side", values="exceedance_ratio")
    table = table.loc[table.mean(axis=1).sort_values(kind="stable").index]
    if len(table) > MOST_CONTRACTS:
        half = MOST_CONTRACTS // 2
        table = pd.concat([table.iloc[:half], table.iloc[-half:]])
    figure = _figure(1.1 + 0.19 * max(len(table), 4))
    panel = figure.subplots()
    rows = np.arange(len(table))
    panel.axvline(1.0, color=INK, linewidth=1.0, linestyle=(0, (4, 2)), label="nominal")
    panel.hlines(rows, table.min(axis=1), table.max(axis=1), color=PEER_COLOUR, linewidth=1.0)
    for side in table.columns:
        marker, colour = SIDE_LOOKS[str(side)]
        panel.plot(table[side], rows, marker, color=colour, markersize=5.5, label=str(side))
    panel.set_yticks(rows, [str(symbol) for symbol in table.index], fontsize=8)
    panel.set_ylim(-0.7, len(table) - 0.3)
    panel.set_xlim(left=min(0.0, -0.02 * float(table.max().max())))
    panel.set_xlabel(f"observed / nominal exceedances of {model} at level {level:g}")
    panel.grid(axis="x")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def to_svg(draw: Callable[[], Figure]) -> str:
    """Draw a figure in the house style and write it as SVG; same figure, same text.

    Colours become custom properties, which a style element inside the SVG sets for light and dark.
    """
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A contract's name may hold letters that only the reader's fonts have.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        draw().savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for number, colour in enumerate(_DARK):
        text = text.replace(colour, f"var(--c{number})")
    light = "".join(f"--c{i}:{colour};" for i, colour in enumerate(_DARK))
    dark = "".join(f"--c{i}:{colour};" for i, colour in enumerate(_DARK.values()))
    style = (
        f"<style>:root{{{light}}}@media screen and (prefers-color-scheme:dark)"
        f"{{:root{{{dark}}}}}</style>"
    )
    opening = text.index(">") + 1
    return text[:opening] + style + text[opening:]


def _figure(height_inches: float) -> Figure:
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")


def _panels(count: int, height_inches: float) -> tuple[Figure, list[Axes]]:
    figure = _figure(height_inches)
    return figure, list(figure.subplots(1, count, sharey=True, squeeze=False)[0])


def _name_rows(panels: Sequence[Axes], models: Sequence[str]) -> None:
    """Name the rows of panels that share them; the first model stands on top."""
    panels[0].set_yticks(range(len(models)), list(models))
    panels[0].set_ylim(len(models) - 0.5, -0.5)


def _models(evaluation: Evaluation) -> list[str]:
    if not evaluation.models:
        raise InputError("the evaluation holds no model; nothing can be drawn")
    ranked = sorted(evaluation.models, key=lambda summary: summary.pinball_ratio)
    return [summary.model for summary in ranked]


def _levels(evaluation: Evaluation) -> list[float]:
    return sorted({cell.level for cell in evaluation.cells})


def _colour(model: str, ours: str, reference: str) -> str:
    if model == ours:
        return OURS_COLOUR
    return REFERENCE_COLOUR if model == reference else PEER_COLOUR
