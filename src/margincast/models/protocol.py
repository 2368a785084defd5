"""The one protocol every forecaster follows, ours and the peers: fit, predict, save, load.

A forecaster answers one question, the number everything downstream multiplies: by how much, as a
fraction of the decision price, may the price move against a side within the horizon, at a level?
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.errors import InputError
from margincast.core.types import FloatArray, Side

Unit = Literal["fraction", "number"]
"""``fraction``: scales with volatility (returns, volatilities); ``number``: does not."""

Columns = pd.DataFrame | Mapping[str, npt.NDArray[Any]]
"""Columns of n decisions by name, each of shape (n,): a frame, or what was read off it once."""


@dataclass(frozen=True)
class Panel:
    """Decisions of many contracts with what was known and, for fitting, what followed.

    Attributes:
        frame: columns ``symbol``, ``ts`` (decision time, UTC) and the features; n rows sorted by
            ``ts`` then ``symbol``, default index.
        units: unit of every feature column.
        outcomes: adverse excursion per side, shape (n,), simple fractions; NaN where no label.
        log_range: log(highest high / lowest low) over the horizon, shape (n,).
        label_end: time at which the label became known, shape (n,), ``datetime64[us]`` in UTC.
    """

    frame: pd.DataFrame
    units: Mapping[str, Unit]
    outcomes: Mapping[Side, FloatArray]
    log_range: FloatArray
    label_end: npt.NDArray[np.datetime64]

    @classmethod
    def of_decisions(
        cls, frame: pd.DataFrame, units: Mapping[str, Unit], sides: tuple[Side, ...]
    ) -> Self:
        """Make a panel of decisions whose outcomes nobody knows yet.

        Args:
            frame: as :attr:`frame`; sorted here.
            units: unit of every feature column.
            sides: sides a model forecasts.
        """
        ordered = frame.sort_values(["ts", "symbol"], kind="stable", ignore_index=True)
        unknown = np.full(len(frame), np.nan)
        return cls(
            ordered,
            units,
            dict.fromkeys(sides, unknown),
            unknown,
            np.full(len(frame), np.datetime64("NaT", "us")),
        )

    def __len__(self) -> int:
        return len(self.frame)

    def rows(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "Panel":
        """Return the panel restricted to a boolean mask or to row numbers."""
        return Panel(
            frame=self.frame.iloc[
                np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
            ].reset_index(drop=True),
            units=self.units,
            outcomes={side: values[keep] for side, values in self.outcomes.items()},
            log_range=self.log_range[keep],
            label_end=self.label_end[keep],
        )

    def thinned(self, stride: int, minimum_rows: int) -> "Panel":
        """Keep every ``stride``-th decision of each contract, in order.

        Neighbouring labels share most of their horizon, so thinning costs little evidence. A
        smaller stride is taken where fewer than ``minimum_rows`` rows would be left.
        """
        step = max(1, min(stride, len(self) // minimum_rows))
        order = self.frame.groupby("symbol", sort=False).cumcount().to_numpy()
        return self.rows(np.asarray(order % step == 0))

    @cached_property
    def decided(self) -> npt.NDArray[np.datetime64]:
        """Decision times as ``datetime64[us]`` in UTC, shape (n,)."""
        return np.asarray(self.frame["ts"].to_numpy(dtype="datetime64[us]"))

    @cached_property
    def columns(self) -> Mapping[str, npt.NDArray[Any]]:
        """Decision times as ``ts`` and the features that are there, as float64; not to be written.

        Read off the frame once: of a live decision's few rows, that is most of the work.
        """
        present = [name for name in self.units if name in self.frame]
        return {
            "ts": self.decided,
            **{name: self.frame[name].to_numpy(np.float64) for name in present},
        }

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Rows whose outcome is known on every side, shape (n,)."""
        known = np.isfinite(self.log_range)
        for values in self.outcomes.values():
            known &= np.isfinite(values)
        return known


@dataclass(frozen=True)
class TailForecast:
    """Forecasts for n decisions.

    Attributes:
        sides: S sides, in the order of axis 1.
        levels: L increasing levels, in the order of axis 2.
        quantiles: shape (n, S, L), simple fractions, non-decreasing along axis 2; NaN where the
            model cannot tell.
        expected_shortfall: same shape, or None for a model that has none.
    """

    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    quantiles: FloatArray
    expected_shortfall: FloatArray | None = None

    def rows(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "TailForecast":
        """Return the forecasts of a boolean mask or of row numbers."""
        beyond = self.expected_shortfall
        return TailForecast(
            self.sides,
            self.levels,
            self.quantiles[keep],
            None if beyond is None else beyond[keep],
        )

    def at(self, side: Side, level: float) -> FloatArray:
        """Return the quantile forecasts of one side and level, shape (n,)."""
        return self.quantiles[:, self.sides.index(side), self.levels.index(level)]


class Predictor(Protocol):
    """What can be asked for forecasts."""

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast every decision of a panel; see :meth:`Forecaster.predict`."""
        ...


class Forecaster(Protocol):
    """What training, backtest and serving need of a model."""

    name: str

    def fit(self, panel: Panel) -> Self:
        """Learn from a panel whose rows are all labelled; returns the fitted model.

        Raises:
            InsufficientHistoryError: too few independent exceedances for a level.
            InputError: a column the model needs is absent.
        """
        ...

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast every decision of a panel, as it would have been forecast at its time.

        A forecast hangs on the row's own features, on rows decided before it, and on outcomes whose
        ``label_end`` is not after its decision: on nothing later. Models with a memory (a GARCH
        filter, online calibration) go on from the last row they were fitted on, so the panel should
        start right after it; what lies in between and is missing is bridged by expectation.
        """
        ...

    def parameters(self) -> dict[str, Any]:
        """Return what was chosen and estimated, JSON-like, for the record."""
        ...

    def save(self, directory: Path) -> None:
        """Write the fitted model into an empty folder as text and JSON, never as pickle."""
        ...

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote; predictions are bit-identical."""
        ...


def require_features(table: Container[str], columns: tuple[str, ...], model: str) -> None:
    """Check that a table holds the columns a model was made for.

    Raises:
        InputError: names the missing columns.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(
            f"model {model} needs the feature(s) {', '.join(missing)}, which the table lacks; "
            "build the features with the feature set the model was trained on"
        )
