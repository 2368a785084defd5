"""A fitted model that goes on from one decision to the next, as margins are made live.

Responsible for the same forecast as :meth:`~margincast.models.protocol.Forecaster.predict` gives
when it is asked about the whole past, without asking about it each time: our model keeps what it
has learnt, any other is asked about all decisions again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.types import FloatArray, Side, Times
from margincast.models.checks import forecast_of
from margincast.models.horizons import HorizonForecaster, rearranged
from margincast.models.margincast import MargincastForecaster
from margincast.models.online import YEAR, Standing
from margincast.models.protocol import Forecaster, Panel, TailForecast


@dataclass(frozen=True)
class Followed:
    """What followed the n decisions of one time, at one horizon.

    Attributes:
        outcomes: adverse excursion per side, shape (n,); NaN where there is none.
        log_range: log(highest high / lowest low), shape (n,).
        label_end: when it became known, shape (n,), UTC.
    """

    outcomes: Mapping[Side, FloatArray]
    log_range: FloatArray
    label_end: Times

    @classmethod
    def of(cls, panel: Panel) -> "Followed":
        """Read it off a panel of one time."""
        return cls(panel.outcomes, panel.log_range, panel.label_end)


class Follower(Protocol):
    """One horizon's model as it stands."""

    def replay(self, past: Panel) -> None:
        """Go through a past, in order of time, as if it had been followed."""
        ...

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast decisions of one time, later than any before; their outcomes are not read."""
        ...

    def learn(self, decided: np.datetime64, followed: Followed) -> None:
        """Take in what followed the decisions of a time, in the order of their rows.

        Times are given in order, each before the first forecast that could have known it.
        """
        ...


@dataclass(frozen=True)
class _Held:
    codes: npt.NDArray[np.intp]
    forecasts: FloatArray
    made: FloatArray


class MargincastFollower:
    """Our model as it stands: its parts hang on a row alone, but for the online correction.

    Args:
        model: the fitted model.
    """

    def __init__(self, model: MargincastForecaster) -> None:
        self._model = model
        self._codes: dict[str, int] = {}
        self._standing = Standing(model.tracking, model.levels, len(model.sides), 0)
        self._held: dict[np.datetime64, _Held] = {}

    def replay(self, past: Panel) -> None:
        """Go through a past; see :class:`Follower`."""
        _, quantiles = self._model.uncorrected(past)
        codes, decided = self._codes_of(past), past.decided
        times, start = np.unique(decided, return_index=True)
        stop = np.append(start[1:], len(decided))
        ready = np.maximum.reduceat(past.label_end, start) if len(times) else times
        used = 0
        for k, time in enumerate(times):
            while used < k and not ready[used] > time:
                rows = np.arange(start[used], stop[used])
                self.learn(times[used], Followed.of(past.rows(rows)))
                used += 1
            now = slice(start[k], stop[k])
            self._hold(time, codes[now], quantiles[now])

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast decisions of one time; see :class:`Follower`."""
        base, quantiles = self._model.uncorrected(panel)
        made = self._hold(panel.decided[0], self._codes_of(panel), quantiles)
        return self._model.corrected(base, quantiles, made)

    def _codes_of(self, panel: Panel) -> npt.NDArray[np.intp]:
        symbols = panel.frame["symbol"].to_list()
        return np.array(
            [self._codes.setdefault(name, len(self._codes)) for name in symbols], dtype=np.intp
        )

    def _hold(
        self, at: np.datetime64, codes: npt.NDArray[np.intp], quantiles: FloatArray
    ) -> FloatArray:
        """Return the corrections, and remember what they were made of until outcomes come."""
        made = self._standing.corrections(codes)
        if at > self._model.until:  # what the fit has seen teaches nothing twice
            self._held[at] = _Held(codes, quantiles, made)
        return made

    def learn(self, decided: np.datetime64, followed: Followed) -> None:
        """Take in what followed; see :class:`Follower`."""
        held = self._held.pop(decided, None)
        if held is None:
            return
        outcomes = np.stack([followed.outcomes[side] for side in self._model.sides], axis=1)
        scores = outcomes[:, :, None] / np.maximum(held.forecasts, np.finfo(np.float64).tiny)
        known = np.asarray(np.isfinite(scores).all(axis=(1, 2)))
        if not known.any():
            return
        with np.errstate(divide="ignore"):
            logs = np.log(scores[known])
        share = (followed.label_end[known].max() - decided) / YEAR / self._model.overlap
        self._standing.learn(held.codes[known], logs, held.made[known], float(share))


@dataclass
class _Decisions:
    panel: Panel
    followed: Followed


class Replayer:
    """Any model: asked about all decisions since its fit, each time.

    Args:
        model: the fitted model.
    """

    def __init__(self, model: Forecaster) -> None:
        self._model = model
        self._past: dict[np.datetime64, _Decisions] = {}

    def replay(self, past: Panel) -> None:
        """Go through a past; see :class:`Follower`."""
        decided = past.decided
        for time in np.unique(decided):
            panel = past.rows(decided == time)
            self._past[time] = _Decisions(panel, Followed.of(panel))

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast decisions of one time; see :class:`Follower`."""
        self._past[panel.decided[0]] = _Decisions(panel, Followed.of(panel))
        told = list(self._past.values())
        whole = Panel(
            pd.concat([one.panel.frame for one in told], ignore_index=True),
            panel.units,
            {
                side: np.concatenate([one.followed.outcomes[side] for one in told])
                for side in panel.outcomes
            },
            np.concatenate([one.followed.log_range for one in told]),
            np.concatenate([one.followed.label_end for one in told]),
        )
        return self._model.predict(whole).rows(np.arange(len(whole) - len(panel), len(whole)))

    def learn(self, decided: np.datetime64, followed: Followed) -> None:
        """Take in what followed; see :class:`Follower`."""
        if decided in self._past:
            self._past[decided].followed = followed


@dataclass
class Following:
    """All horizons of a model, as they stand.

    Attributes:
        forecaster: the fitted models.
    """

    forecaster: HorizonForecaster
    _followers: dict[int, Follower] = field(init=False)

    def __post_init__(self) -> None:
        self._followers = {
            minutes: MargincastFollower(model)
            if isinstance(model, MargincastForecaster)
            else Replayer(model)
            for minutes, model in self.forecaster.forecasters.items()
        }

    def predict(self, panel: Panel) -> dict[int, TailForecast]:
        """Forecast decisions of one time at every horizon, in order between horizons."""
        found = {
            minutes: forecast_of(self._followers[minutes], panel)
            for minutes in self.forecaster.horizons_minutes
        }
        return rearranged(found) if self.forecaster.monotone else found

    def replay(self, past: Mapping[int, Panel]) -> None:
        """Go through the decisions since the fit; per horizon in minutes the same ones."""
        for minutes, panel in past.items():
            self._followers[minutes].replay(panel)

    def learn(self, minutes: int, decided: np.datetime64, followed: Followed) -> None:
        """Take in what followed decisions within a horizon; see :meth:`Follower.learn`."""
        self._followers[minutes].learn(decided, followed)
