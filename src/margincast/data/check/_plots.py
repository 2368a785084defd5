"""Figures of the quality report. Drawing only; the numbers come from ``survey``.

Matplotlib's figure objects are used without pyplot, so nothing stays open and no global state
changes. Figures are PNG: a calendar of years by contract has more cells than an SVG should hold.
"""

import base64
import io
import warnings
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from margincast.core.types import FloatArray
from margincast.data.check.finding import CheckFinding
from margincast.data.check.survey import TableSurvey
from margincast.data.check.time_zones import HourlyPrices

INK, MUTED, MARK, LINE = "#202122", "#6e7377", "#d55e00", "#0072b2"
"""Vermilion and blue of Okabe and Ito (2008), Color Universal Design."""

WIDTH_INCHES = 9.0
MOST_DAYS = 1500
"""Days drawn one by one; of more, a column is the mean of several."""
MOST_POINTS = 4000

LONGEST_BRIDGE = 3.0
"""Usual steps over which a line of prices goes on; it breaks over longer ones."""

LOG_FROM = 3.0
"""Ratio of highest to lowest price from which the axis is logarithmic."""

STYLE: dict[Any, Any] = {
    "date.converter": "concise",
    "text.parse_math": False,  # a contract may be called A$B
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def draw_calendar(surveys: Sequence[TableSurvey]) -> Figure:
    """Coverage by contract and day: share of expected rows, or whether there were any."""
    first = min(min(one.coverage.days) for one in surveys)
    last = max(max(one.coverage.days) for one in surveys)
    days = (last - first).days + 1
    width = max(1, -(-days // MOST_DAYS))
    shares = np.full((len(surveys), -(-days // width) * width), np.nan)
    for row, one in enumerate(surveys):
        for date_of_day, day in one.coverage.days.items():
            share = float(day.rows > 0) if day.share is None else day.share
            shares[row, (date_of_day - first).days] = share
    cells = shares.reshape(len(surveys), -1, width)
    known = np.isfinite(cells)
    means = np.where(known, cells, 0).sum(axis=2) / np.maximum(known.sum(axis=2), 1)
    means[~known.any(axis=2)] = np.nan
    figure = _figure(0.9 + 0.19 * len(surveys))
    axes = figure.subplots()
    end = _midnight(first) + timedelta(days=cells.shape[1] * width)
    image = axes.imshow(
        means,
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=0.0,
        vmax=1.0,
        extent=(
            _on_axis(_midnight(first)),
            _on_axis(end),
            len(surveys) - 0.5,
            -0.5,
        ),
    )
    axes.xaxis_date()
    axes.set_yticks(range(len(surveys)), [one.table.name for one in surveys], fontsize=7)
    figure.colorbar(image, ax=axes, label="share of expected rows", shrink=0.8)
    return figure


def draw_gaps(surveys: Sequence[TableSurvey]) -> Figure:
    """Gaps by contract: when, and how long (the size of the mark)."""
    figure = _figure(0.9 + 0.24 * len(surveys))
    axes = figure.subplots()
    for row, one in enumerate(surveys):
        gaps = sorted(one.coverage.gaps, key=lambda gap: -gap[1])[:MOST_POINTS]
        hours = np.array([length.total_seconds() / 3600 for _, length in gaps])
        axes.scatter(
            np.array([_on_axis(start) for start, _ in gaps]),
            np.full(len(gaps), row),
            s=np.clip(12 + 12 * np.log10(hours), 3, 60),
            color=MARK,
            alpha=0.6,
            linewidths=0,
        )
    axes.set_yticks(range(len(surveys)), [one.table.name for one in surveys], fontsize=7)
    axes.xaxis_date()
    axes.set_ylim(len(surveys) - 0.5, -0.5)
    axes.grid(axis="x", color="#d5d8da", linewidth=0.7)
    return figure


def draw_books(survey: TableSurvey) -> Figure:
    """Locked share by hour, spread and depth of one book."""
    assert survey.books is not None
    hours = survey.books["hour"].to_list()
    figure = _figure(4.6)
    panels = figure.subplots(3, 1, sharex=True)
    lines = (
        ("locked_share", "locked share"),
        ("spread_bps", "mean spread (bps)"),
        ("depth_usd", "mean depth (USD)"),
    )
    for axes, (column, label) in zip(panels, lines, strict=True):
        values = survey.books[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        axes.plot(hours, values, color=LINE, linewidth=1.2, marker=".", markersize=3)
        axes.set_title(label)
        axes.set_ylim(bottom=0)
    return figure


def draw_prices(survey: TableSurvey, flagged: Sequence[CheckFinding]) -> Figure:
    """Prices of one contract with what was flagged in them.

    The line breaks where hours are missing; at a flagged time the lowest to the highest price of
    its hour is drawn.
    """
    prices = survey.hourly[""]
    hours, values = broken_line(prices)
    figure = _figure(2.6)
    axes = figure.subplots()
    axes.plot(hours.astype("datetime64[h]"), values, color=LINE, linewidth=0.9)
    axes.set_ylabel("last price of the hour")
    for run in survey.stale:
        axes.axvspan(
            _on_axis(run.first),
            _on_axis(run.last),
            color=MUTED,
            alpha=0.25,
            linewidth=0,
        )
    for finding in flagged:
        for time, _ in finding.examples:
            axes.axvline(_on_axis(time), color=MARK, linewidth=0.5, linestyle="--", alpha=0.6)
            row = int(np.searchsorted(prices.hours, time.timestamp() // 3600))
            known = row < len(prices.hours) and prices.hours[row] == time.timestamp() // 3600
            if known and prices.lows is not None and prices.highs is not None:
                low, high = prices.lows[row], prices.highs[row]
                axes.vlines(_on_axis(time), low, high, color=MARK, linewidth=2.0)
    scale_prices(axes)
    return figure


def broken_line(prices: HourlyPrices) -> tuple[FloatArray, FloatArray]:
    """Thin prices for a line that breaks over missing stretches.

    Returns:
        Hours since 1970 and prices; NaN stands in each stretch without a price that is longer than
        :data:`LONGEST_BRIDGE` usual steps.
    """
    hours = prices.hours.astype(np.float64)
    steps = np.diff(hours)
    usual = float(np.median(steps)) if steps.size else 1.0
    breaks = np.flatnonzero(steps > LONGEST_BRIDGE * usual)
    # both ends of a stretch are kept, whatever is thinned out
    kept = np.unique(
        np.concatenate(
            [np.arange(0, len(hours), max(1, len(hours) // MOST_POINTS)), breaks, breaks + 1]
        )
    )
    at = np.searchsorted(kept, breaks + 1)
    return (
        np.insert(hours[kept], at, hours[breaks] + usual),
        np.insert(prices.prices[kept], at, np.nan),
    )


def scale_prices(axes: Axes) -> None:
    """Logarithmic over a wide range; plain numbers at the ticks in any case."""
    low, high = axes.dataLim.intervaly
    if low > 0 and high > LOG_FROM * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def to_data_address(figure: Figure) -> str:
    """Write a figure as a PNG inside a data address; same figure, same text."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # a contract's name may hold letters that only the reader's fonts have
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure(height_inches: float) -> Figure:
    return Figure(figsize=(WIDTH_INCHES, min(height_inches, 40.0)), layout="constrained")


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _on_axis(time: datetime) -> float:
    # matplotlib counts days since 1970
    return time.timestamp() / 86400
