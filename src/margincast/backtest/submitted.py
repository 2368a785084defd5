"""Forecasts that somebody else's model made, put beside what then happened.

Responsible for letting a venue validate its own margin model: a ``forecasts`` table and bars become
the same replay that our own backtests are judged on. Nothing about the forecasts is taken on trust:
whatever cannot be judged is refused, or counted and reported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import pyarrow as pa

from margincast.backtest.replay import Replay
from margincast.core.errors import InputError, did_you_mean
from margincast.core.time import format_minutes
from margincast.core.types import SIDES, BoolArray, FloatArray
from margincast.data.bars import BarTable
from margincast.data.quality import Finding
from margincast.models.protocol import Panel, TailForecast
from margincast.scoring.coverage import require_level
from margincast.training.targets import outcome_table

NEEDED = ("symbol", "ts", "horizon_minutes", "side", "level", "forecast")
KEY = ("model", "symbol", "ts", "horizon_minutes", "side", "level")
LEVEL_DIGITS = 6
FAR_ABOVE = 30.0
"""A median forecast so many times the outcomes' own quantile is per cent, not caution."""
UNNAMED = "submitted"
"""Name of the model where the table has no ``model`` column."""
_LARGEST_FRACTION = 1.0


@dataclass(frozen=True)
class Submitted:
    """Forecasts read, with the outcomes that followed.

    Attributes:
        replays: per horizon in minutes, increasing, the forecasts of every model at all decisions
            that any of them forecast; NaN where one did not.
        spacing: the most frequent time between a contract's decisions.
        first_decisions: first bar close of every contract, UTC.
        findings: what could not be judged, and how much of it there was.
    """

    replays: dict[int, Replay]
    spacing: timedelta
    first_decisions: dict[str, np.datetime64]
    findings: tuple[Finding, ...]


def read_submitted(path: Path, models: Sequence[str] = ()) -> pd.DataFrame:
    """Read and check a table of forecasts, Parquet or CSV.

    Columns ``symbol``, ``ts`` (decision time with time zone), ``horizon_minutes``, ``side`` (long
    or short), ``level``, ``forecast`` (fraction of the decision price), and if there are any
    ``expected_shortfall`` and ``model``.

    Args:
        path: the table.
        models: models to read; none named means all.

    Returns:
        The table with those columns; names are categories.

    Raises:
        InputError: a column, value or time breaks a rule; says which, where and what to do.
    """
    table = _read(path, models)
    absent = [name for name in NEEDED if name not in table]
    if absent:
        raise InputError(
            f"{path}: no column {', '.join(absent)}{did_you_mean(absent[0], table.columns)}; a "
            f"table of forecasts has {', '.join(NEEDED)}"
        )
    table = table.assign(
        model=_names(table["model"]) if "model" in table else UNNAMED,
        symbol=_names(table["symbol"]),
        side=_names(table["side"]),
        ts=_times(table["ts"], path),
        expected_shortfall=table.get("expected_shortfall", np.nan),
    ).astype({"model": "category"})
    for name in ("horizon_minutes", "level", "forecast", "expected_shortfall"):
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise InputError(f"{path}: column {name} holds no numbers, found {table[name].dtype}")
        table[name] = table[name].astype(np.float64)
    table["level"] = table["level"].round(LEVEL_DIGITS)  # 0.99 may come as 0.9900000095
    _require_known(table, path)
    _require_fractions(table, path)
    codes = {name: table[name].cat.codes for name in ("model", "symbol", "side")}
    twice = table[list(KEY)].assign(**codes).duplicated(keep=False).to_numpy()
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"{path}: {int(twice.sum()):,} rows forecast the same thing, first {row['symbol']} at "
            f"{row['ts']:%Y-%m-%d %H:%M} {row['side']} {row['level']:g} of {row['model']}; a "
            "decision has one forecast: keep the one that was in force"
        )
    columns = [*KEY, "forecast", "expected_shortfall"]
    return table[columns]


def join_outcomes(
    forecasts: pd.DataFrame,
    bars: BarTable,
    *,
    kind: Literal["path", "terminal"] = "path",
    gap_tolerance: timedelta = timedelta(0),
) -> Submitted:
    """Put outcomes beside forecasts.

    Args:
        forecasts: of :func:`read_submitted`.
        bars: regular bars; a decision is the close of one.
        kind: extremes along the path, or the end point.
        gap_tolerance: see :func:`margincast.training.targets.outcome_table`.

    Raises:
        InputError: no forecast's time is the close of a bar of its contract.
    """
    findings: list[Finding] = []
    close = _closes_at(forecasts, bars)
    unknown = np.isnan(close)
    findings += _findings_of_times(forecasts, unknown, bars)
    judged = forecasts.assign(close=close)[~unknown]
    replays: dict[int, Replay] = {}
    of_outcomes: list[Finding] = []
    for minutes, own in judged.groupby("horizon_minutes", sort=True):
        horizon_minutes = round(float(cast("float", minutes)))
        horizon = timedelta(minutes=horizon_minutes)
        if horizon % bars.interval:
            raise InputError(
                f"a horizon of {format_minutes(horizon_minutes)} is not a whole number of bars of "
                f"{bars.interval}; give finer bars"
            )
        outcomes, found = outcome_table(bars, horizon, gap_tolerance, kind)
        of_outcomes = found if not replays else of_outcomes
        made = _replay(own, outcomes)
        findings += _findings_of_models(made, horizon_minutes)
        replays[horizon_minutes] = made
    findings += of_outcomes
    first = {symbol: _first_close(frame, bars.interval) for symbol, frame in bars.frames.items()}
    return Submitted(replays, _spacing(replays), first, tuple(findings))


def _read(path: Path, models: Sequence[str]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} is no file; give a table of forecasts (.parquet or .csv)")
    try:
        if path.suffix == ".csv":
            table = pd.read_csv(path)
        else:
            # a backtest of twenty models has tens of millions of rows: only what is asked for
            table = pd.read_parquet(path, filters=[("model", "in", models)] if models else None)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as a table of forecasts: {error}") from None
    if models and "model" in table:
        table = table[table["model"].isin(models)].reset_index(drop=True)
        absent = sorted({*models} - {*table["model"].unique()})
        if absent:
            raise InputError(f"{path}: no forecast of {', '.join(absent)}")
    if table.empty:
        raise InputError(f"{path} holds no forecast")
    return table


def _names(names: pd.Series) -> pd.Series:
    """Return names as categories of text: tables of forecasts have millions of rows."""
    found = names.astype("category")
    return cast("pd.Series", found.cat.rename_categories(list(map(str, found.cat.categories))))


def _times(ts: pd.Series, path: Path) -> pd.Series:
    """Return times in UTC, microseconds; times without a zone are refused."""
    if pd.api.types.is_string_dtype(ts):
        zoned = ts.str.contains(r"(?:Z|[+-]\d\d:?\d\d)$")
        if zoned.all():
            try:
                ts = pd.to_datetime(ts, format="ISO8601", utc=True)
            except ValueError as error:
                raise InputError(f"{path}: ts cannot be read as times: {error}") from None
    if not isinstance(ts.dtype, pd.DatetimeTZDtype):
        raise InputError(
            f"{path}: ts is {ts.dtype}, without a time zone; write decision times in UTC with "
            "their zone (2024-01-01T08:00:00Z)"
        )
    return cast("pd.Series", ts.dt.tz_convert("UTC").dt.as_unit("us"))


def _require_known(table: pd.DataFrame, path: Path) -> None:
    for name in ("model", "symbol", "side", "ts", "horizon_minutes", "level"):
        missing = table[name].isna().to_numpy()
        if missing.any():
            raise InputError(
                f"{path}: {name} is not known in {int(missing.sum()):,} of {len(table):,} rows, "
                f"first in row {int(missing.argmax()):,}; drop them"
            )
    for level in table["level"].unique():
        require_level(float(level))
    wrong = ~table["side"].isin(SIDES).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{path}: side is {table['side'].iloc[row]!r} in row {row:,}; "
            f"it is one of {', '.join(SIDES)}: the side of the position that loses"
        )
    horizon = table["horizon_minutes"].to_numpy()
    if not (horizon > 0).all() or not (horizon == np.rint(horizon)).all():
        raise InputError(f"{path}: horizon_minutes must be whole and positive")


def _require_fractions(table: pd.DataFrame, path: Path) -> None:
    for name in ("forecast", "expected_shortfall"):
        values = table[name].to_numpy()
        wrong = np.isinf(values) | (values < 0.0)
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(
                f"{path}: {name} is {values[row]:g} in row {row:,} ({int(wrong.sum()):,} such "
                "rows); it is a loss, a fraction of the decision price, zero or more"
            )
    for (model, level), own in table.groupby(["model", "level"])["forecast"]:
        if own.median() > _LARGEST_FRACTION:
            raise InputError(
                f"{path}: the median forecast of {model} at {level:g} is {own.median():g}, more "
                "than the whole price: this looks like per cent; divide by 100"
            )


def _instants(ts: pl.Series) -> npt.NDArray[np.int64]:
    return ts.dt.epoch("us").to_numpy()


def _first_close(frame: pl.DataFrame, interval: timedelta) -> np.datetime64:
    return np.datetime64(int(_instants(frame.drop_nulls("close")["ts"] + interval)[0]), "us")


def _closes_at(forecasts: pd.DataFrame, bars: BarTable) -> FloatArray:
    """Return the decision price of every forecast; NaN where no bar of its contract closes."""
    at = forecasts["ts"].dt.tz_localize(None).to_numpy(dtype="datetime64[us]").astype(np.int64)
    close = np.full(len(forecasts), np.nan)
    for symbol, rows in forecasts.groupby("symbol", observed=True).indices.items():
        if symbol not in bars.frames:
            continue
        frame = bars.frames[str(symbol)].drop_nulls("close")
        closes_at = _instants(frame["ts"] + bars.interval)
        wanted = at[rows]
        place = np.minimum(np.searchsorted(closes_at, wanted), len(closes_at) - 1)
        there = closes_at[place] == wanted
        close[np.asarray(rows)[there]] = frame["close"].to_numpy()[place[there]]
    return close


def _findings_of_times(
    forecasts: pd.DataFrame, unknown: BoolArray, bars: BarTable
) -> list[Finding]:
    if unknown.all():
        first = forecasts.iloc[0]
        raise InputError(
            f"none of {len(forecasts):,} forecasts is of a time at which a bar of its contract "
            f"closes (first: {first['symbol']} at {first['ts']:%Y-%m-%d %H:%M}); bars "
            f"of {bars.interval} are there of {', '.join(sorted(bars.frames)[:5])}; a bar's ts is "
            "its open, a decision is taken at its close"
        )
    if not unknown.any():
        return []
    lost = forecasts[unknown].groupby("symbol", sort=True, observed=True)
    total = forecasts.groupby("symbol", observed=True).size()
    return [
        Finding(
            "forecasts",
            str(symbol),
            "forecast at a time at which no bar of the contract closes",
            len(own),
            int(total[symbol]),
            "not judged",
            own["ts"].min().to_pydatetime(),
            severity="warning",
        )
        for symbol, own in lost
    ]


def _findings_of_models(made: Replay, horizon_minutes: int) -> list[Finding]:
    """Say where a model has fewer levels, sides or expected shortfalls than others, or per cents.

    Raises:
        InputError: a model's forecasts are far above all outcomes: per cents.
    """
    findings = []
    labelled = made.panel.labelled
    for name, forecast in made.forecasts.items():
        known = np.isfinite(forecast.quantiles)
        some = known.any(axis=(1, 2))
        partly = int((some & ~known.all(axis=(1, 2))).sum())
        if partly:
            findings.append(
                Finding(
                    "forecasts",
                    name,
                    f"decision without every level and side, {format_minutes(horizon_minutes)}",
                    partly,
                    int(some.sum()),
                    "not judged",
                    severity="warning",
                )
            )
        beyond = forecast.expected_shortfall
        if beyond is not None and (
            lacking := int((np.isnan(beyond) & known).any(axis=(1, 2)).sum())
        ):
            findings.append(
                Finding(
                    "forecasts",
                    name,
                    "decision with a forecast and no expected shortfall",
                    lacking,
                    int(some.sum()),
                    "expected shortfall not judged",
                    severity="warning",
                )
            )
        for i, side in enumerate(forecast.sides):
            for j, level in enumerate(forecast.levels):
                own = forecast.quantiles[labelled & known[:, i, j], i, j]
                outcome = made.panel.outcomes[side][labelled & known[:, i, j]]
                if own.size and (far := float(np.quantile(outcome, level))) > 0.0:
                    median = float(np.median(own))
                    if median > FAR_ABOVE * far:
                        raise InputError(
                            f"the median forecast of {name} at {level:g}, {side}, is {median:g}, "
                            f"and {level:g} of the outcomes lie below {far:g}: this looks like "
                            "per cent; divide by 100"
                        )
    return findings


def _replay(forecasts: pd.DataFrame, outcomes: pl.DataFrame) -> Replay:
    """Arrange one horizon's forecasts by decision, and join its outcomes."""
    symbols = forecasts["symbol"].cat
    at = forecasts["ts"].dt.tz_localize(None).to_numpy(dtype="datetime64[us]").astype(np.int64)
    # by time, then by name; one number a decision
    rank = np.argsort(np.argsort(np.asarray(symbols.categories, dtype=str)))
    key = at * len(rank) + rank[symbols.codes.to_numpy()]
    _, first, row_of = np.unique(key, return_index=True, return_inverse=True)
    decisions = forecasts[["symbol", "ts", "close"]].iloc[first].reset_index(drop=True)
    decisions["symbol"] = decisions["symbol"].astype(str)
    sides = tuple(side for side in SIDES if (forecasts["side"] == side).any())
    levels = tuple(sorted(float(level) for level in forecasts["level"].unique()))
    shape = (len(decisions), len(sides), len(levels))
    side_of = np.zeros(len(forecasts), dtype=np.intp)
    for number, side in enumerate(sides):
        side_of[(forecasts["side"] == side).to_numpy()] = number
    level_of = np.searchsorted(levels, forecasts["level"].to_numpy())
    by_model: dict[str, TailForecast] = {}
    for model, rows in forecasts.groupby("model", sort=False, observed=True).indices.items():
        place = (row_of[rows], side_of[rows], level_of[rows])
        own = forecasts.iloc[rows]
        by_model[str(model)] = TailForecast(
            sides, levels, _placed(own["forecast"], place, shape), _shortfall(own, place, shape)
        )
    joined = decisions.merge(
        outcomes.to_pandas(), on=["symbol", "ts"], how="left", validate="one_to_one"
    )
    panel = Panel(
        frame=decisions[["symbol", "ts", "close"]],
        units={},
        outcomes={side: joined[f"outcome_{side}"].to_numpy(np.float64) for side in sides},
        log_range=joined["log_range"].to_numpy(np.float64),
        label_end=joined["label_end"].dt.tz_localize(None).to_numpy(dtype="datetime64[us]"),
    )
    return Replay(panel, (), np.zeros(len(decisions), dtype=np.intp), by_model)


def _placed(
    values: pd.Series, place: tuple[npt.NDArray[np.intp], ...], shape: tuple[int, int, int]
) -> FloatArray:
    array = np.full(shape, np.nan)
    array[place] = values.to_numpy(np.float64)
    return array


def _shortfall(
    own: pd.DataFrame, place: tuple[npt.NDArray[np.intp], ...], shape: tuple[int, int, int]
) -> FloatArray | None:
    if own["expected_shortfall"].isna().all():
        return None
    return _placed(own["expected_shortfall"], place, shape)


def _spacing(replays: Mapping[int, Replay]) -> timedelta:
    """Return the most frequent time between neighbouring decisions of a contract."""
    steps = []
    for made in replays.values():
        frame = made.panel.frame
        steps.append(frame.groupby("symbol", sort=False)["ts"].diff().dropna())
    every = pd.concat(steps)
    if every.empty:
        raise InputError("every contract has one forecast only; a backtest needs a history of them")
    return cast("pd.Timedelta", every.mode().iloc[0]).to_pytimedelta()


def models_of(replays: Mapping[int, Replay]) -> list[str]:
    """Return the models that were submitted, in the order of the table."""
    return list(dict.fromkeys(name for made in replays.values() for name in made.forecasts))
