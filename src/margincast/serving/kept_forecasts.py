"""Forecasts of decisions kept on disk: a night's score asks the model about new decisions only.

Responsible for the same forecasts, bit by bit, at the price of the new ones. What our model says of
a decision before it is corrected by what followed hangs on that decision alone, so it is kept a
piece of time each, under the SHA-256 of all that it hangs on: the decisions' own values, the
bundle, and the code. The correction goes through all of them each time; it is cheap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from margincast.core.digest import digest_of
from margincast.core.types import FloatArray, Times
from margincast.features.cache import FeatureCache, Known, Line
from margincast.features.code_version import Unkept, code_version
from margincast.features.column_digest import digest_of_frame
from margincast.models.checks import forecast_of
from margincast.models.horizons import rearranged
from margincast.models.margincast import MargincastForecaster
from margincast.models.protocol import Panel, TailForecast
from margincast.serving.bundle import Bundle

FAMILY = "forecasts"
_CODE = ("margincast.models.margincast",)
_DAY, _HOUR, _TICK = (np.timedelta64(1, unit) for unit in ("D", "h", "us"))


@dataclass
class KeptForecasts:
    """A bundle's model that reads back what it said before; any other model is asked anew.

    Attributes:
        bundle: the model.
        cache: where forecasts are kept; None keeps none.
        made: decisions the trees were run for, over all horizons.
        reused: decisions whose forecasts were read back.
    """

    bundle: Bundle
    cache: FeatureCache | None
    made: int = 0
    reused: int = 0

    def predict(self, panels: Mapping[int, Panel]) -> dict[int, TailForecast]:
        """Forecast decisions at every horizon.

        Args:
            panels: see :meth:`margincast.models.horizons.HorizonForecaster.predict`.
        """
        forecaster = self.bundle.forecaster
        found = {}
        for minutes in forecaster.horizons_minutes:
            model, panel = forecaster.forecasters[minutes], panels[minutes]
            if self.cache is not None and isinstance(model, MargincastForecaster):
                of_horizon = f"{self.bundle.manifest.digest} {minutes}"
                found[minutes] = forecast_of(_Asked(self, model, of_horizon), panel)
            else:
                found[minutes] = forecast_of(model, panel)
                self.made += len(panel)
        return rearranged(found) if forecaster.monotone else found

    def describe(self) -> str:
        """One line for a log."""
        return f"{self.reused:,} of {self.reused + self.made:,} forecasts read back"


@dataclass
class _Asked:
    """One horizon's model, asked through what was kept."""

    kept: KeptForecasts
    model: MargincastForecaster
    identity: str

    def predict(self, panel: Panel) -> TailForecast:
        base, quantiles = self._uncorrected(panel)
        return self.model.finished(panel, base, quantiles)

    def _uncorrected(self, panel: Panel) -> tuple[FloatArray, FloatArray]:
        cache = self.kept.cache
        assert cache is not None, "without one nothing is asked through it"
        pieces = pieces_of(panel.decided)
        known = cache.look_up([Line(FAMILY, None, key) for key in self._keys(panel, pieces)])
        parts = dict(known.found)
        missing = np.zeros(len(panel), dtype=bool)
        for number in known.missing:
            missing[pieces[number]] = True
        if missing.any():
            made = _as_frame(*self.model.uncorrected(panel.rows(missing)))
            start = 0
            for number, replaceable in known.missing.items():
                piece, line = pieces[number], known.wanted[number]
                own = made.slice(start, piece.stop - piece.start)
                start += len(own)
                (parts[number],) = cache.completed(Known((line,), {}, {0: replaceable}), own)
        self.kept.made += int(missing.sum())
        self.kept.reused += int((~missing).sum())
        values = pl.concat(parts[number] for number in range(len(pieces))).to_numpy()
        sides = len(self.model.sides)
        heads = len(self.model.head_levels)
        cube = values.reshape(len(panel), sides, -1)
        return np.ascontiguousarray(cube[:, :, :heads]), np.ascontiguousarray(cube[:, :, heads:])

    def _keys(self, panel: Panel, pieces: list[slice]) -> list[str | Unkept]:
        version = code_version(_CODE)
        if isinstance(version, Unkept):
            return [version] * len(pieces)
        decisions = decisions_frame(panel)
        return [
            digest_of(
                {
                    "model": self.identity,
                    "code": version,
                    "decisions": digest_of_frame(decisions[piece]),
                }
            )
            for piece in pieces
        ]


def pieces_of(decided: Times) -> list[slice]:
    """Cut decisions in order of time into days, and the last day into hours.

    A day that is over has the same decisions in every later score, and so has an hour.

    Args:
        decided: decision times, not falling; one at midnight ends its day.
    """
    if not len(decided):
        return []
    until = decided.astype("datetime64[us]").astype(np.int64) - 1
    day, hour = (until // int(length / _TICK) for length in (_DAY, _HOUR))
    # negative, so that no hour is taken for a day
    piece = np.where(day == day[-1], -hour, day)
    edges = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist(), len(decided)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def decisions_frame(panel: Panel) -> pl.DataFrame:
    """Return what a model is asked: ``symbol``, ``ts`` (UTC without a zone) and the features."""
    frame = panel.frame
    return pl.DataFrame(
        {
            "symbol": frame["symbol"].to_list(),
            "ts": panel.decided,
            **{name: frame[name].to_numpy(np.float64) for name in panel.units},
        },
        schema_overrides={"symbol": pl.String},
    )


def _as_frame(base: FloatArray, quantiles: FloatArray) -> pl.DataFrame:
    """Return both as a table, a row a decision; side by side, base before quantiles."""
    values = np.concatenate([base, quantiles], axis=2).reshape(len(base), -1)
    return pl.DataFrame({f"value_{i}": values[:, i] for i in range(values.shape[1])})
