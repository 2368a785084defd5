"""What no margin may be learned or forecast from, whichever the model: asked once, here.

Whoever fits calls :func:`require_trainable` first, and whoever forecasts calls
:func:`forecast_of`, so that every forecaster meets bad input the same way.

===============================  ==================================================================
bad input                        what happens
===============================  ==================================================================
too few exceedances for a level  refused, says how much history is needed (each model counts)
constant outcomes of a side      refused
outcome unknown, infinite, < 0   refused; so is the log range
feature infinite in training     refused
feature infinite in a forecast   that row has no forecast (NaN), others are as they were; counted
feature never known in training  nothing is learned from it; counted
feature absent                   refused (by each model that needs it)
levels not increasing            refused
contract never seen              forecast from all contracts together
===============================  ==================================================================
"""

from collections.abc import Iterator

import numpy as np
from pydantic import TypeAdapter, ValidationError

from margincast.core.errors import InputError, InsufficientHistoryError
from margincast.core.types import BoolArray, FloatArray, Side
from margincast.data.quality import Finding
from margincast.models.protocol import Panel, Predictor, TailForecast
from margincast.specs.base import Levels

LARGEST = float(np.finfo(np.float32).max)
"""Features enter the training matrix as float32, where anything larger is infinite."""

_LEVELS = TypeAdapter[tuple[float, ...]](Levels)


def require_levels(levels: tuple[float, ...]) -> None:
    """Check levels by the rule of the training spec: strictly increasing, between 0.5 and 1.

    Raises:
        InputError: they are not, or there is none.
    """
    try:
        _LEVELS.validate_python(levels)
    except ValidationError as error:
        detail = error.errors()[0]
        message = detail["msg"].removeprefix("Value error, ")
        raise InputError(
            f"levels {list(levels)}: {message}; write for example (0.99, 0.995, 0.999)"
        ) from None


def require_exceedance(rows: int, level: float) -> None:
    """Refuse a level that so many rows expect not to be exceeded once.

    Raises:
        InsufficientHistoryError: says how many are needed.
    """
    if rows * (1 - level) < 1:
        raise InsufficientHistoryError(
            f"level {level:g} needs at least {1 / (1 - level):,.0f} training decisions, "
            f"found {rows:,}; use more history, more contracts or a lower level"
        )


def require_trainable(panel: Panel, sides: tuple[Side, ...], levels: tuple[float, ...]) -> None:
    """Check a panel before a model is fitted on it.

    A log range of 0 is allowed: over a short horizon a contract may trade at one price.

    Args:
        panel: labelled decisions only.
        sides: sides to be forecast.
        levels: levels to be forecast.

    Raises:
        InsufficientHistoryError: the panel has no row.
        InputError: levels do not increase; outcomes of a side are absent, or all the same; an
            outcome or log range is not a finite number of at least 0; a feature is infinite.
    """
    require_levels(levels)
    absent = [side for side in sides if side not in panel.outcomes]
    if absent:
        raise InputError(
            f"the panel has no outcomes of side {', '.join(absent)} (it has "
            f"{', '.join(panel.outcomes) or 'none'}); add them, or leave the side out of "
            "target.sides"
        )
    if not len(panel):
        raise InsufficientHistoryError(
            f"level {max(levels):g} needs at least {1 / (1 - max(levels)):,.0f} labelled "
            "decisions, found 0; use more history, or start the test period later"
        )
    for side in sides:
        _require_measured(panel, panel.outcomes[side], f"the outcome of side {side}")
        _require_varied(panel, side)
    _require_measured(panel, panel.log_range, "the log range")
    _require_finite_features(panel)


def forecast_of(forecaster: Predictor, panel: Panel) -> TailForecast:
    """Forecast a panel; a row with an infinite feature has no forecast (NaN).

    One broken contract must not stop the margins of all others: its rows fall back to the base
    schedule, and models see the infinite values as not known.

    Args:
        forecaster: a fitted model.
        panel: as of :meth:`~margincast.models.protocol.Forecaster.predict`.
    """
    infinite = infinite_features(panel)
    if not infinite:
        return forecaster.predict(panel)
    unknown = {
        column: panel.frame[column].mask(rows).astype(np.float64)
        for column, rows in infinite.items()
    }
    seen = Panel(
        panel.frame.assign(**unknown),
        panel.units,
        panel.outcomes,
        panel.log_range,
        panel.label_end,
    )
    forecast = forecaster.predict(seen)
    broken: BoolArray = np.logical_or.reduce(list(infinite.values()))[:, None, None]
    beyond = forecast.expected_shortfall
    return TailForecast(
        forecast.sides,
        forecast.levels,
        np.where(broken, np.nan, forecast.quantiles),
        None if beyond is None else np.where(broken, np.nan, beyond),
    )


def infinite_features(panel: Panel) -> dict[str, BoolArray]:
    """Return the features with an infinite value and the rows it stands in, each of shape (n,).

    Values that float32 cannot hold count as infinite. Absent columns are left to the models, which
    know whether they need them.
    """
    found = {}
    for column in panel.units:
        if column in panel.columns:
            rows = np.abs(panel.columns[column]) > LARGEST
            if rows.any():
                found[column] = rows
    return found


def learning_findings(panel: Panel) -> list[Finding]:
    """Count what models can learn nothing from, over all decisions of a panel.

    Features that no decision knows; infinite features; contracts whose outcomes are all the same
    (a pinned price), for which models that learn each contract by itself forecast just that.
    """
    frame, units = panel.frame, panel.units
    never = [column for column in units if frame[column].isna().all()]
    findings = [
        Finding(
            "features",
            "(all)",
            f"never known: {', '.join(never)}",
            len(never),
            len(units),
            "no model learns from them",
            severity="warning",
        )
    ]
    findings += [
        Finding(
            "decisions",
            "(all)",
            f"feature {column} is infinite",
            int(rows.sum()),
            len(panel),
            "no forecast; refused in training",
            severity="warning",
        )
        for column, rows in infinite_features(panel).items()
    ]
    findings += [
        Finding(
            "targets",
            symbol,
            f"every outcome of side {side} is {value:g}",
            count,
            count,
            "trained on; has no tail of its own",
            severity="warning",
        )
        for side, outcomes in panel.outcomes.items()
        for symbol, value, count in _pinned(panel, outcomes)
    ]
    return findings


def _pinned(panel: Panel, outcomes: FloatArray) -> Iterator[tuple[str, float, int]]:
    """Contracts with several labelled decisions and one outcome: its value and their number."""
    known = panel.labelled
    symbols, values = panel.frame["symbol"].to_numpy(dtype=str)[known], outcomes[known]
    for symbol in np.unique(symbols):
        own = values[symbols == symbol]
        if len(own) > 1 and own.min() == own.max():
            yield str(symbol), float(own[0]), len(own)


def _require_measured(panel: Panel, values: FloatArray, what: str) -> None:
    wrong = ~(np.isfinite(values) & (values >= 0.0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{what} is {values[row]:g} for {_place(panel, row)} ({_share(wrong)}); a model learns "
            "from finite numbers of at least 0: mend the bars there, or leave the rows out"
        )


def _require_varied(panel: Panel, side: Side) -> None:
    values = panel.outcomes[side]
    if len(values) > 1 and values.min() == values.max():
        symbols = panel.frame["symbol"]
        first, last = _place(panel, 0), _place(panel, len(panel) - 1)
        raise InputError(
            f"every outcome of side {side} is {values[0]:g} ({len(values):,} decisions of "
            f"{symbols.nunique():,} contracts, {first} to {last}): a price that stands still has "
            "no tail to learn; outcomes must differ: check high, low and close of the bars, use "
            "more history, or leave the side out of target.sides"
        )


def _require_finite_features(panel: Panel) -> None:
    infinite = infinite_features(panel)
    if not infinite:
        return
    column, *others = infinite
    rows = infinite[column]
    row = int(np.argmax(rows))
    also = f"; so are {', '.join(others)}" if others else ""
    raise InputError(
        f"feature {column} is {panel.frame[column].iloc[row]:g} for {_place(panel, row)} "
        f"({_share(rows)}{also}); a feature is a number of at most {LARGEST:.1e} in size, or NaN "
        "where it is not known: mend what it is computed from, or take it out of the feature set"
    )


def _place(panel: Panel, row: int) -> str:
    """Name a row as a user can find it: contract and decision time."""
    symbol, ts = panel.frame["symbol"].iloc[row], panel.frame["ts"].iloc[row]
    return f"{symbol} at {ts:%Y-%m-%d %H:%M} UTC"


def _share(rows: BoolArray) -> str:
    return f"{int(rows.sum()):,} of {len(rows):,} rows"
