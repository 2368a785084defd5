"""From an option chain to constant maturities: what tail risk costs, snapshot by snapshot.

Each snapshot is fitted by itself, from the rows known then, so that nothing that comes later can
move it. Between expiries total variance is linear in time; beyond them it is not known.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.core.types import FloatArray
from margincast.data.quality import Finding
from margincast.data.schemas import TIMESTAMP
from margincast.features.implied_vol.smiles import (
    COUNTS,
    Quotes,
    Smiles,
    fit_snapshot,
)
from margincast.features.implied_vol.units import DAYS_PER_YEAR

MEASURES = ("atm_volatility", "skew_25_delta", "butterfly_25_delta")
"""Columns of a surface, each with its tenor: ``skew_25_delta_30d``."""

BEYOND = 0.1
"""Share of a tenor by which it may lie beyond the listed expiries; the nearest one's volatility
then stands for it."""

_NAME = re.compile(rf"({'|'.join(MEASURES)})_(\d+(?:\.\d+)?)d")
_MICROSECONDS_A_YEAR = DAYS_PER_YEAR * 86_400e6


def surface_column(measure: str, tenor_days: float) -> str:
    """Name of a surface's column.

    >>> surface_column("atm_volatility", 30)
    'atm_volatility_30d'
    """
    return f"{measure}_{tenor_days:g}d"


def tenors_in(columns: Iterable[str]) -> list[float]:
    """Tenors in days, rising, that columns of a surface name; other columns are passed over.

    >>> tenors_in(["close", "skew_25_delta_30d", "atm_volatility_7d", "atm_volatility_30d"])
    [7.0, 30.0]
    """
    return sorted({float(match[2]) for name in columns if (match := _NAME.fullmatch(name))})


def surface_states(chain: pl.DataFrame, tenors: Collection[float]) -> pl.DataFrame:
    """Fit every snapshot of a chain and read constant maturities off it.

    A snapshot is the rows of one ``ts``. Where some are received later than others, it is fitted
    again with each arrival; rows of a snapshot older than one already known change nothing.

    Args:
        chain: of one underlying, as :func:`margincast.data.option_chains.read_option_chains` gives
            it.
        tenors: in days.

    Returns:
        One row a snapshot, sorted by ``known_at``: ``known_at``, ``ts``; for each tenor of n days
        ``atm_volatility_{n}d`` (at the forward), ``skew_25_delta_{n}d`` (volatility of the 25-delta
        put less that of the 25-delta call) and ``butterfly_25_delta_{n}d`` (mean of the two less
        at-the-money), fractions a year, null where not known; ``largest_error`` and ``error``
        (largest, and root mean square over the smiles of the vega-weighted, distance of a quote
        from its smile, fraction a year); and the counts of
        :data:`~margincast.features.implied_vol.smiles.COUNTS`.
    """
    tenors = sorted(set(tenors))
    names = [surface_column(measure, tenor) for tenor in tenors for measure in MEASURES]
    rows = []
    for known_at, ts, quotes in _snapshots(chain):
        smiles = fit_snapshot(quotes)
        values = [value for tenor in tenors for value in at_tenor(smiles, tenor / DAYS_PER_YEAR)]
        error = np.sqrt(np.mean(smiles.error**2)) if len(smiles.error) else np.nan
        largest = smiles.largest_error.max() if len(smiles.error) else np.nan
        counts = [smiles.counts[name] for name in COUNTS]
        rows.append((known_at, ts, *values, float(error), float(largest), *counts))
    schema = {
        "known_at": pl.Int64(),
        "ts": pl.Int64(),
        **dict.fromkeys([*names, "error", "largest_error"], pl.Float64()),
        **dict.fromkeys(COUNTS, pl.Int64()),
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(
        pl.col("known_at", "ts")
        .cast(pl.Datetime("us"))
        .dt.replace_time_zone("UTC")
        .cast(TIMESTAMP),
        pl.col([*names, "error", "largest_error"]).fill_nan(None),
    )


def at_tenor(smiles: Smiles, years: float) -> tuple[float, float, float]:
    """At-the-money volatility, skew and butterfly of one tenor; NaN where not known."""
    center, put, call = (
        _interpolated(smiles.years, variance, years)
        for variance in (smiles.at_the_money, smiles.put, smiles.call)
    )
    return center, put - call, (put + call) / 2 - center


def _interpolated(years: FloatArray, variance: FloatArray, wanted: float) -> float:
    """Volatility of a tenor, from total variance linear in time between its neighbours."""
    if not len(years):
        return float("nan")
    after = int(np.searchsorted(years, wanted))
    if after == 0 or after == len(years):
        nearest = min(after, len(years) - 1)
        if abs(years[nearest] - wanted) > BEYOND * wanted:
            return float("nan")
        return float(np.sqrt(variance[nearest] / years[nearest]))
    share = (wanted - years[after - 1]) / (years[after] - years[after - 1])
    between = (
        variance[after]
        if share == 1
        else ((1 - share) * variance[after - 1] + share * variance[after])
    )
    return float(np.sqrt(between / wanted))


def _snapshots(chain: pl.DataFrame) -> Iterator[tuple[int, int, Quotes]]:
    """Each state of the newest snapshot: when it was known, its time, and its rows by then."""
    ordered = chain.sort("ts", "known_at", "expiry", "strike", "option_type", maintain_order=True)
    known_at = ordered["known_at"].dt.timestamp("us").to_numpy()
    ts = ordered["ts"].dt.timestamp("us").to_numpy()
    columns = _columns(ordered)
    starts = np.flatnonzero(np.append(True, ts[1:] != ts[:-1]))
    ends = np.append(starts[1:], len(ts))
    states = sorted(
        (arrived, int(ts[start]), int(start), int(start) + count)
        for start, end in zip(starts, ends, strict=True)
        for arrived, count in _arrivals(known_at[start:end])
    )
    newest = None
    for arrived, time, start, end in states:
        if newest is None or time >= newest:
            newest = time
            yield arrived, time, _quotes(columns, time, slice(start, end))


def _arrivals(known_at: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Each time at which more of a snapshot was known, and how many of its rows were by then."""
    times, counts = np.unique(known_at, return_counts=True)
    return zip(times.tolist(), np.cumsum(counts).tolist(), strict=True)


def _columns(ordered: pl.DataFrame) -> dict[str, npt.NDArray[Any]]:
    """A chain as arrays; null is NaN, and columns it does not have are not there."""
    numbers = ("strike", "underlying_price", "implied_volatility", "bid_price", "ask_price")
    columns = {
        name: ordered[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for name in numbers
        if name in ordered.columns
    }
    columns["expiry"] = ordered["expiry"].dt.timestamp("us").to_numpy()
    columns["is_call"] = (ordered["option_type"] == "call").to_numpy()
    return columns


def _quotes(columns: Mapping[str, npt.NDArray[Any]], ts: int, rows: slice) -> Quotes:
    """Rows of a snapshot in an order that does not hang on when each arrived."""
    part = {name: values[rows] for name, values in columns.items()}
    order = np.lexsort((part["is_call"], part["strike"], part["expiry"]))
    part = {name: values[order] for name, values in part.items()}
    return Quotes(
        (part["expiry"] - ts) / _MICROSECONDS_A_YEAR,
        part["strike"],
        part["underlying_price"],
        part["implied_volatility"],
        part["is_call"],
        part.get("bid_price"),
        part.get("ask_price"),
    )


_FOUND = {
    "quotes_expired": "option at or after its expiry",
    "quotes_unpriced": "option without forward or believable implied volatility",
    "quotes_without_bid": "out-of-the-money option without a bid",
    "quotes_crossed": "out-of-the-money option with bid above ask",
    "quotes_far_off": "volatility far from the smile of the others",
    "expiries_thin": "expiry with too few quotes for a smile",
    "expiries_badly_fitted": "expiry whose smile misses its quotes",
    "expiries_with_arbitrage": "expiry without a smile free of arbitrage",
    "butterflies_mended": "smile fitted again: a butterfly was free",
    "calendars_mended": "smile fitted again: a calendar spread was free",
}
_LEFT_OUT, _NOT_KNOWN, _MENDED = "left out of the smile", "its smile is not known", "mended"


def surface_findings(surface: pl.DataFrame, symbol: str) -> list[Finding]:
    """Say what was left out and mended over all snapshots of a surface.

    Args:
        surface: as of :func:`surface_states`.
        symbol: name of the chain.
    """
    findings = []
    for name, what in _FOUND.items():
        of_quotes = name.startswith("quotes")
        action = _LEFT_OUT if of_quotes else _NOT_KNOWN if "expiries" in name else _MENDED
        where = surface.filter(pl.col(name) > 0)
        findings.append(
            Finding(
                "options",
                symbol,
                what,
                int(surface[name].sum()),
                int(surface["quotes" if of_quotes else "expiries"].sum()),
                action,
                None if where.is_empty() else where["ts"].min(),  # type: ignore[arg-type]
            )
        )
    return findings
