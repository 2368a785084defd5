"""The champion as it stands: what it forecasts at the next decision.

Responsible for giving it what followed its earlier decisions as soon as that is known, so that its
live forecast is the one that a batch over the whole past would hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import pandas as pd

from margincast.core.types import FloatArray, Side, Times
from margincast.features.stream import FeatureStream
from margincast.models.following import Followed, Following
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Panel, TailForecast, Unit
from margincast.specs.training import Target
from margincast.training.targets import adverse_excursions, bars_in

LONGEST_PAUSE = 2
"""Horizons after a decision for which bars are kept: a feed that was silent that long leaves the
decisions before without an outcome."""


@dataclass
class LiveModel:
    """A fitted model, followed decision by decision.

    Attributes:
        version: which it is, such as ``demo/3``.
        feature_set_hash: digest of the set it was trained on.
        forecaster: the fitted models.
        target: what they forecast.
        units: of their features.
        interval: of the bars.
    """

    version: str
    feature_set_hash: str
    forecaster: HorizonForecaster
    target: Target
    units: Mapping[str, Unit]
    interval: timedelta
    _following: Following = field(init=False)
    _waiting: dict[int, dict[np.datetime64, tuple[str, ...]]] = field(init=False)

    def __post_init__(self) -> None:
        self._following = Following(self.forecaster)
        self._waiting = {minutes: {} for minutes in self.forecaster.horizons_minutes}

    @property
    def bars_kept(self) -> int:
        """Bars of a contract that outcomes are made of."""
        longest = bars_in(self.target.horizons[-1], self.interval)
        return LONGEST_PAUSE * longest + self.target.stride + 1

    def is_decision(self, at: np.datetime64) -> bool:
        """Say whether the model is asked at a bar's close: at every ``stride``-th since 1970."""
        step = self.target.stride * (self.interval // timedelta(microseconds=1))
        return bool(at.astype("datetime64[us]").astype(np.int64) % step == 0)

    def replay(self, past: Mapping[int, Panel]) -> None:
        """Go through the decisions since the fit; per horizon in minutes the same ones."""
        self._following.replay(past)
        for minutes, panel in past.items():
            times = np.unique(panel.decided)
            if not len(times):
                continue
            horizon = np.timedelta64(minutes, "m")
            for time in times[times + horizon > times[-1]]:
                symbols = panel.frame["symbol"][panel.decided == time]
                self._waiting[minutes][time] = tuple(symbols.to_list())

    def decide(self, frame: pd.DataFrame, stream: FeatureStream) -> dict[int, TailForecast]:
        """Forecast the decisions of a time at every horizon.

        Args:
            frame: ``symbol``, ``ts`` and the features, as the stream gives them; at least a row.
            stream: that gave them, as it stands after this decision.
        """
        # of one time and by contract already: nothing is to be sorted
        unknown = np.full(len(frame), np.nan)
        never = np.full(len(frame), np.datetime64("NaT", "us"))
        outcomes = dict.fromkeys(self.target.sides, unknown)
        panel = Panel(frame, self.units, outcomes, unknown, never)
        at, symbols = panel.decided[0], tuple(frame["symbol"].to_list())
        for minutes, waiting in self._waiting.items():
            due = [time for time in waiting if time + np.timedelta64(minutes, "m") <= at]
            for time in due:
                self._following.learn(minutes, time, self._followed(minutes, time, at, stream))
                del waiting[time]
            waiting[at] = symbols
        return self._following.predict(panel)

    def _followed(
        self, minutes: int, time: np.datetime64, at: np.datetime64, stream: FeatureStream
    ) -> Followed:
        """Read what followed the decisions of a time off the bars."""
        symbols = self._waiting[minutes][time]
        horizon = np.timedelta64(minutes, "m")
        bars = int(horizon / np.timedelta64(self.interval))
        ago = int((at - time) / np.timedelta64(self.interval))
        tolerated = max(0, -(-self.target.gap_tolerance // self.interval) - 1)
        outcomes: dict[Side, FloatArray] = {
            side: np.full(len(symbols), np.nan) for side in self.target.sides
        }
        log_range = np.full(len(symbols), np.nan)
        for place, symbol in enumerate(symbols):
            held = stream.last_bars(symbol, ago + 1)
            if held is None or len(held["close"]) < ago + 1:
                continue  # let go, or younger than the decision: no outcome is known
            high, low, close = (held[name][: bars + 1] for name in ("high", "low", "close"))
            found = adverse_excursions(high, low, close, bars, tolerated, kind=self.target.kind)
            for side in self.target.sides:
                outcomes[side][place] = found.outcomes[side][0]
            log_range[place] = found.log_range[0]
        ends: Times = np.full(len(symbols), time + horizon)
        return Followed(outcomes, log_range, ends)
