"""Figures over time and contracts: when and where a margin forecast was exceeded.

Drawing only; the figures' numbers come from ``evaluation`` and ``replay``.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from margincast.backtest._drawing import (
    INK,
    OURS_COLOUR,
    PEER_COLOUR,
    REFERENCE_COLOUR,
    SIDE_LOOKS,
    new_figure,
)
from margincast.core.types import BoolArray, FloatArray, Side

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


def draw_excursions(data: Excursions, ours: str, reference: str) -> Figure:
    """Forecasts against realised adverse excursions of one contract over time, a panel a side."""
    figure = new_figure(2.5 * len(data.outcomes))
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
    figure = new_figure(2.9)
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
    own = own[own["side"] != "both"]
    table = own.pivot_table(index="symbol", columns="side", values="exceedance_ratio")
    table = table.loc[table.mean(axis=1).sort_values(kind="stable").index]
    if len(table) > MOST_CONTRACTS:
        half = MOST_CONTRACTS // 2
        table = pd.concat([table.iloc[:half], table.iloc[-half:]])
    figure = new_figure(1.1 + 0.19 * max(len(table), 4))
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
