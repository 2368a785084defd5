"""One forecaster a liquidation horizon, and no crossing between them: what a bundle holds.

An excursion along a path cannot shrink when there is more time, so at one decision, side and level
the margin for a longer horizon must not lie below that for a shorter one. Models of single horizons
know nothing of each other and may cross; rearrangement (Chernozhukov, Fernandez-Val and Galichon
2010, doi:10.3982/ECTA7880) puts their forecasts in order.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from margincast.core.types import BoolArray, FloatArray
from margincast.models.checks import forecast_of
from margincast.models.protocol import Forecaster, Panel, TailForecast

RECORD = "horizons.json"
_FOLDER = re.compile(r"([1-9][0-9]*)m")


@dataclass
class HorizonForecaster:
    """One model for every horizon of a job.

    Attributes:
        name: the name of the models.
        forecasters: one a horizon, by its minutes, increasing.
        monotone: whether forecasts must not fall with the horizon: true of excursions along the
            path, not of end points, which are not ordered by their nature.
    """

    name: str
    forecasters: Mapping[int, Forecaster]
    monotone: bool

    @property
    def horizons_minutes(self) -> tuple[int, ...]:
        """The horizons, increasing."""
        return tuple(sorted(self.forecasters))

    def fit(self, panels: Mapping[int, Panel]) -> Self:
        """Fit every horizon on its own panel, by minutes, whose rows are all labelled.

        Raises:
            InsufficientHistoryError: too few independent exceedances for a level.
            InputError: a column the models need is absent.
        """
        for minutes in self.horizons_minutes:
            self.forecasters[minutes].fit(panels[minutes])
        return self

    def predict(self, panels: Mapping[int, Panel]) -> dict[int, TailForecast]:
        """Forecast the same decisions at every horizon, in order between horizons.

        Args:
            panels: one a horizon, by minutes, all of the same n decisions; they differ in what is
                known to have followed. See :meth:`~margincast.models.protocol.Forecaster.predict`.

        Raises:
            InputError: a column the models need is absent.
        """
        found = {
            minutes: forecast_of(self.forecasters[minutes], panels[minutes])
            for minutes in self.horizons_minutes
        }
        return rearranged(found) if self.monotone else found

    def parameters(self) -> dict[str, Any]:
        """Return what every horizon's model chose and estimated, JSON-like, for the record."""
        return {
            _folder(minutes): self.forecasters[minutes].parameters()
            for minutes in self.horizons_minutes
        }

    def save(self, directory: Path) -> None:
        """Write every horizon's model into a folder of its own, such as ``480m``."""
        record = {"name": self.name, "monotone": self.monotone}
        text = json.dumps(record, indent=1) + "\n"
        (directory / RECORD).write_text(text, encoding="utf-8")
        for minutes in self.horizons_minutes:
            folder = directory / _folder(minutes)
            folder.mkdir()
            self.forecasters[minutes].save(folder)

    @classmethod
    def load(cls, directory: Path, loader: type[Forecaster]) -> Self:
        """Read what :meth:`save` wrote; predictions are bit-identical.

        Args:
            directory: the folder.
            loader: class of the models.
        """
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        found = [_FOLDER.fullmatch(path.name) for path in directory.iterdir() if path.is_dir()]
        minutes = sorted(int(match[1]) for match in found if match)
        forecasters = {each: loader.load(directory / _folder(each)) for each in minutes}
        return cls(record["name"], forecasters, record["monotone"])


def rearranged(forecasts: Mapping[int, TailForecast]) -> dict[int, TailForecast]:
    """Put forecasts in order along the horizon; they stay in order along the level.

    At every decision, side and level the values are sorted over the horizons (sorting the columns
    of a matrix keeps its rows sorted), expected shortfalls likewise. A horizon with a level it
    cannot tell takes no part at that decision and side; the others are sorted among themselves.

    Args:
        forecasts: per horizon in minutes, forecasts of the same n decisions, sides and levels.

    Returns:
        The same, by increasing horizon.
    """
    minutes = sorted(forecasts)
    if len(minutes) == 1:
        return dict(forecasts)
    quantiles = _sorted_over_horizons(np.stack([forecasts[each].quantiles for each in minutes]))
    shortfalls = [forecasts[each].expected_shortfall for each in minutes]
    known = [shortfall for shortfall in shortfalls if shortfall is not None]
    beyond: list[FloatArray | None] = list(shortfalls)
    if len(known) == len(minutes):
        # where other horizons take part than in the quantiles, order alone might not keep this
        beyond = list(np.maximum(_sorted_over_horizons(np.stack(known)), quantiles))
    return {
        each: TailForecast(
            forecasts[each].sides, forecasts[each].levels, quantiles[place], beyond[place]
        )
        for place, each in enumerate(minutes)
    }


def horizon_crossings(forecasts: Mapping[int, TailForecast]) -> int:
    """Count quantile forecasts that lie below that of a shorter horizon at the same decision.

    Args:
        forecasts: per horizon in minutes, forecasts of the same n decisions, sides and levels;
            those of a horizon with a level it cannot tell at a decision and side do not count.
    """
    quantiles = np.stack([forecasts[each].quantiles for each in sorted(forecasts)])
    known = _told(quantiles)[..., None]
    highest = np.maximum.accumulate(np.where(known, quantiles, -np.inf), axis=0)
    return int(np.count_nonzero((quantiles[1:] < highest[:-1]) & known[1:]))


def _sorted_over_horizons(values: FloatArray) -> FloatArray:
    """Sort along the first axis what takes part; shape (horizons, n, sides, levels)."""
    told = _told(values)
    ordered = np.sort(np.where(told[..., None], values, np.inf), axis=0)
    place = np.maximum(np.cumsum(told, axis=0) - 1, 0)[..., None]
    return np.where(told[..., None], np.take_along_axis(ordered, place, axis=0), values)


def _told(values: FloatArray) -> BoolArray:
    """Whether a horizon tells every level, shape (horizons, n, sides)."""
    return np.asarray(~np.isnan(values).any(axis=-1))


def _folder(minutes: int) -> str:
    return f"{minutes}m"
