"""The features a model was trained on, as few numbers: what drift is measured against.

Kept in the model's bundle, so that years later nobody has to find the data of its training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from margincast.core.errors import BundleError
from margincast.core.types import FloatArray, Times
from margincast.models.protocol import Panel

SPEC = "distribution"
"""Name under which a bundle keeps it."""
WINDOW = timedelta(days=30)
"""Length of the windows that training is cut into, and drift is looked for in."""
USUAL = 0.95
"""Of the windows of training this share had a smaller stability index than the usual one."""
FEWEST_WINDOWS = 5
"""With fewer whole windows there is no telling what was usual."""
_QUANTILES = np.arange(0.1, 0.95, 0.1)
_HALF = 0.5


@dataclass(frozen=True)
class FeatureDistribution:
    """One feature in training.

    Attributes:
        family: section of the feature set.
        edges: between its bins, increasing; the deciles, of which equal ones are one.
        shares: of values in each bin, one more than edges, and of those not known, last.
        lowest: value; None where none was known.
        highest: value; None likewise.
        usual: stability index that was usual within training; None where nobody can tell.
    """

    family: str
    edges: tuple[float, ...]
    shares: tuple[float, ...]
    lowest: float | None
    highest: float | None
    usual: float | None

    @property
    def missing(self) -> float:
        """Share of values that were not known."""
        return self.shares[-1]


@dataclass(frozen=True)
class Distribution:
    """All features in training.

    Attributes:
        decisions: trained on.
        window_days: length of the windows.
        features: by name.
    """

    decisions: int
    window_days: float
    features: Mapping[str, FeatureDistribution]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-like values."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` gave.

        Raises:
            BundleError: it is something else.
        """
        try:
            features = {
                name: FeatureDistribution(
                    one["family"],
                    tuple(one["edges"]),
                    tuple(one["shares"]),
                    one["lowest"],
                    one["highest"],
                    one["usual"],
                )
                for name, one in raw["features"].items()
            }
            return cls(int(raw["decisions"]), float(raw["window_days"]), features)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f"the distribution of training features is damaged: {error}"
            ) from error


def distribution_of(panel: Panel, families: Mapping[str, str]) -> Distribution:
    """Summarise the features of the decisions a model is trained on.

    Args:
        panel: the decisions.
        families: section of the feature set by feature.
    """
    windows = _windows(panel.decided)
    return Distribution(
        len(panel),
        WINDOW / timedelta(days=1),
        {
            name: _feature(panel.frame[name].to_numpy(np.float64), windows, families[name])
            for name in panel.units
        },
    )


def bin_counts(values: FloatArray, edges: Sequence[float]) -> FloatArray:
    """Count values by bin; those not known come last.

    Args:
        values: shape (n,).
        edges: increasing; a value equal to an edge lies above it.

    Returns:
        Counts, shape (edges + 2,).
    """
    known = values[~np.isnan(values)]
    places = np.searchsorted(np.asarray(edges, dtype=np.float64), known, side="right")
    counts = np.bincount(places, minlength=len(edges) + 1)
    return np.append(counts, len(values) - len(known)).astype(np.float64)


def stability_index(counts: FloatArray, shares: Sequence[float]) -> float:
    """Return the population stability index of counts against shares of training.

    ``sum (p - q) ln(p / q)`` over bins. Half a value is added to each bin, and as much to its share
    in training, so that an empty bin gives a number.

    Args:
        counts: by bin, shape (b,).
        shares: in training, shape (b,).

    Returns:
        A number from 0; NaN of no values at all.

    Source: Siddiqi (2006), Credit Risk Scorecards, ISBN 9780471754510; the symmetrised
    Kullback-Leibler divergence of Jeffreys (1946), doi:10.1098/rspa.1946.0056.
    """
    total = counts.sum()
    if total == 0.0:
        return float("nan")
    size = total + _HALF * len(counts)
    found = (counts + _HALF) / size
    before = (np.asarray(shares) * total + _HALF) / size
    return float(np.sum((found - before) * np.log(found / before)))


def _windows(decided: Times) -> list[npt.NDArray[np.intp]]:
    """Return the rows of every whole window, counted back from the last decision."""
    back = (decided.max() - decided) // np.timedelta64(WINDOW)
    whole = int((decided.max() - decided.min()) // np.timedelta64(WINDOW))
    order = np.argsort(back, kind="stable")
    cuts = np.searchsorted(back[order], np.arange(whole + 1))
    return [order[first:end] for first, end in pairwise(cuts) if end > first]


def _feature(
    values: FloatArray, windows: Sequence[npt.NDArray[np.intp]], family: str
) -> FeatureDistribution:
    known = values[np.isfinite(values)]
    edges = np.unique(np.quantile(known, _QUANTILES)) if len(known) else np.empty(0)
    shares = bin_counts(values, edges.tolist()) / len(values)
    of_windows = [
        stability_index(bin_counts(values[rows], edges.tolist()), shares.tolist())
        for rows in windows
    ]
    enough = len(of_windows) >= FEWEST_WINDOWS
    return FeatureDistribution(
        family,
        tuple(edges.tolist()),
        tuple(shares.tolist()),
        float(known.min()) if len(known) else None,
        float(known.max()) if len(known) else None,
        float(np.quantile(of_windows, USUAL)) if enough else None,
    )
