"""Read bars onto a regular grid: the prices from which volatility and outcomes are computed.

A bar's ``ts`` is its open. A missing bar becomes a row of nulls, and so does a stale one (no
trade, no change): a delisted contract must produce neither features nor outcomes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.data.files import TableFile, find_table_files, readable, scan_parquet
from margincast.data.quality import Finding
from margincast.data.schemas import (
    BARS,
    check_bar_consistency,
    check_sorted_unique,
    check_values,
    require_columns,
    with_canonical_names,
    with_utc_timestamp,
)

PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class BarTable:
    """Bars of several contracts on one grid.

    Attributes:
        frames: per symbol, one row a grid step from the contract's first to its last bar; null
            where the bar is missing or stale.
        interval: grid step.
        findings: what was irregular.
    """

    frames: dict[str, pl.DataFrame]
    interval: timedelta
    findings: tuple[Finding, ...]


def read_bars(
    root: Path, entries: Sequence[str], symbols: Sequence[str], interval: timedelta
) -> BarTable:
    """Read and check the bars of every contract.

    Raises:
        InputError: a file, column, value or time breaks a rule; says which, where and what to do.
    """
    files, findings = find_table_files(root, entries, symbols, "bars")
    frames = {}
    for file in files:
        frame = checked_bars(file, interval)
        if is_stale(frame).all():
            findings.append(
                Finding(
                    "bars",
                    file.symbol,
                    "nothing but stale bars (zero volume, no change)",
                    len(frame),
                    len(frame),
                    "contract left out",
                    frame["ts"][0],
                )
            )
            continue
        frames[file.symbol], more = regular_bars(frame, file.symbol, interval)
        findings += more
    if not frames:
        raise InputError(
            f"data.bars: every contract ({', '.join(file.symbol for file in files)}) is stale, "
            "without volume or change throughout; give contracts that trade"
        )
    return BarTable(frames, interval, tuple(findings))


def checked_bars(file: TableFile, interval: timedelta) -> pl.DataFrame:
    """Read one contract's bars and hold them against the schema.

    Raises:
        InputError: see :func:`read_bars`.
    """
    source = str(file)
    scanned = with_canonical_names(file.scan())
    require_columns(scanned, BARS, source)
    timed = with_utc_timestamp(scanned, source)
    with readable(source):
        frame = timed.collect()
    if frame.is_empty():
        raise InputError(f"{source}: the table has no rows")
    check_values(frame, BARS, source)
    check_bar_consistency(frame, source)
    check_sorted_unique(frame, source)
    usual = _usual(frame["ts"])
    if usual is not None and usual != interval:
        raise InputError(
            f"{source}: bars are {format_duration(usual)} apart, but the feature set's "
            f"grid.interval is {format_duration(interval)}; choose a feature set made for "
            "these bars"
        )
    off_grid = frame["ts"].dt.truncate(interval) != frame["ts"]
    if off_grid.any():
        row = int(off_grid.arg_max() or 0)
        raise InputError(
            f"{source}: {int(off_grid.sum())} bar(s) open off the {format_duration(interval)} "
            f"grid, first at row {row} ({frame['ts'][row]}); a bar's ts is its open"
        )
    return frame.with_columns(pl.col(*PRICES, "volume").cast(pl.Float64))


def usual_step(path: Path) -> timedelta | None:
    """Return the commonest distance between the rows of a bar file; None with fewer than two."""
    frame = with_canonical_names(scan_parquet(path))
    require_columns(frame, BARS, str(path))
    times = with_utc_timestamp(frame, str(path)).select("ts")
    with readable(str(path)):
        return _usual(times.collect()["ts"])


def interval_of(root: Path, entries: Sequence[str]) -> timedelta:
    """Return the commonest distance between the bars of the first contract that entries hold.

    Raises:
        InputError: there is no bar file, or it has a single row.
    """
    files, _ = find_table_files(root, entries, (), "bars")
    frame = with_utc_timestamp(with_canonical_names(files[0].scan()), str(files[0]))
    with readable(str(files[0])):
        found = _usual(frame.select("ts").collect()["ts"])
    if found is None:
        raise InputError(f"{files[0]}: a single bar has no interval; give bars of a longer time")
    return found


def _usual(ts: pl.Series) -> timedelta | None:
    step = ts.diff().drop_nulls().mode().min()
    assert step is None or isinstance(step, timedelta)
    return step


def is_stale(frame: pl.DataFrame) -> pl.Series:
    """Say which bars show no trade and no change."""
    return (frame["volume"] == 0) & (frame["high"] == frame["low"])


def regular_bars(
    frame: pl.DataFrame, symbol: str, interval: timedelta
) -> tuple[pl.DataFrame, list[Finding]]:
    """Put bars on their full grid, nulls where a bar is missing or stale.

    Returns:
        The regular frame (columns of the input, ``symbol`` set) and what was found.
    """
    stale = is_stale(frame)
    live = frame.filter(~stale)
    if live.is_empty():
        raise InputError(
            f"{symbol}: all {len(frame)} bars are stale (no volume, no change); "
            "leave this contract out with data.symbols"
        )
    opens = live["ts"]
    steps = pl.datetime_range(opens[0], opens[-1], interval, eager=True, time_unit="us")
    grid = steps.alias("ts").to_frame()
    regular = grid.join(live.drop("symbol", strict=False), on="ts", how="left").with_columns(
        pl.lit(symbol).alias("symbol")
    )
    absent = regular["close"].is_null()
    stale_inside = int((stale & frame["ts"].is_in(grid["ts"].implode())).sum())
    missing = int(absent.sum()) - stale_inside
    return regular, [
        Finding(
            "bars",
            symbol,
            "stale bars (zero volume, no change)",
            int(stale.sum()),
            len(frame),
            "treated as missing: no features, no targets",
            frame["ts"][int(stale.arg_max() or 0)] if stale.any() else None,
        ),
        Finding(
            "bars",
            symbol,
            "missing bars",
            missing,
            len(regular),
            "left unknown; windows that need them have no value",
            regular["ts"][int(absent.arg_max() or 0)] if missing else None,
        ),
    ]
