"""From an option chain to constant maturities: what tail risk costs, snapshot by snapshot.

Each snapshot is fitted by itself, from the rows known then, so that nothing that comes later can
move it; one that arrives row by row counts when it has settled. Between expiries total variance is
linear in time; beyond them it is not known.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from heapq import heapify, heappop, heappush
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

SETTLING = timedelta(minutes=1)
"""Rows of a snapshot that arrive one after another count together, so long after the first."""

WHOLE = 0.75
"""Share of the rows of the snapshot that stands with which the first arrival of a newer one counts
at once. Fewer may be its beginning, which would blind the surface; that no more will come is known
only when it has settled. Chains change slowly: of 183 pairs of shared snapshots of either currency
none lost more than a tenth of its rows."""

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

    A snapshot is the rows of one ``ts``. Its first arrival counts at once if it may be all of it
    (``WHOLE``). What arrives within ``SETTLING`` counts together at the end of that time; a row
    that arrives later counts at its arrival, and those within ``SETTLING`` of it together at the
    end. Rows of a snapshot older than one that already counts change nothing.

    Args:
        chain: of one underlying, as :func:`margincast.data.option_chains.read_option_chains` gives
            it.
        tenors: in days.

    Returns:
        One row a state of a snapshot, sorted by ``known_at``: ``known_at`` (up to ``SETTLING``
        after the chain's last row: so it will be if no more come), ``ts``; for each tenor of n days
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
    _, starts = np.unique(ts, return_index=True)
    arrivals = np.split(known_at, starts)[1:]
    for time, number, rows in _states(arrivals):
        start = int(starts[number])
        yield time, int(ts[start]), _quotes(columns, int(ts[start]), slice(start, start + rows))


def _states(arrivals: Sequence[npt.NDArray[np.int64]]) -> Iterator[tuple[int, int, int]]:
    """Say when each state of the newest snapshot counts, and how many of its rows it has.

    What counts at a time hangs on the arrivals until then alone.

    Args:
        arrivals: of the rows of each snapshot, rising, in microseconds; snapshots by rising time.

    Yields:
        The time, the snapshot's number and the number of its rows that had arrived.
    """
    settling = SETTLING // timedelta(microseconds=1)
    events = [(int(times[0]), number, False) for number, times in enumerate(arrivals)]
    heapify(events)
    newest, rows_standing = -1, 0
    while events:
        time, number, settled = heappop(events)
        if number < newest:
            continue
        times = arrivals[number]
        rows = int(np.searchsorted(times, time, side="right"))
        counts = settled or rows >= WHOLE * rows_standing
        if counts:
            newest, rows_standing = number, rows
            yield time, number, rows
        following = int(times[rows]) if rows < len(times) else None
        if not counts or (not settled and following is not None and following <= time + settling):
            heappush(events, (time + settling, number, True))
        elif following is not None:
            heappush(events, (following, number, False))


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
    """Say what was left out and mended over all snapshots of a surface, each as it was last known.

    Args:
        surface: as of :func:`surface_states`.
        symbol: name of the chain.
    """
    surface = surface.unique("ts", keep="last", maintain_order=True)
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
