"""Model confidence set: the models that history cannot tell from the best.

Responsible for the sentence "no model is better than this one by more than chance", for all models
at once: comparing twenty models two by two would find a winner in noise.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from arch.bootstrap import MCS

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_finite

SIZE = 0.10
"""The 90 % confidence set: it holds the best model with a probability of at least 0.9."""
REPLICATIONS = 1000
ALIKE = 1e-9
"""Losses that differ by less, relatively, come from one model written twice."""
NOISE = 1e-12
"""Relative size of what is added to losses to tell equal statistics apart."""

Statistic = Literal["R", "max"]


@dataclass(frozen=True)
class ConfidenceSet:
    """Who may be the best.

    Attributes:
        p_values: per model, the smallest size of the test at which the model is left out.
        size: the set's size; a model is in the set when its p-value is above it.
    """

    p_values: dict[str, float]
    size: float

    @property
    def members(self) -> tuple[str, ...]:
        """Models in the set, in the order given."""
        return tuple(name for name, p in self.p_values.items() if p > self.size)


def model_confidence_set(
    losses: pd.DataFrame,
    *,
    block_length: int,
    size: float = SIZE,
    statistic: Statistic = "R",
    replications: int = REPLICATIONS,
    seed: int = 0,
) -> ConfidenceSet:
    """Return the model confidence set of a table of losses.

    Models of equal losses throughout (but for rounding) share one p-value. A row should be a period
    that can be taken for one observation of a weakly dependent series (for margin: losses averaged
    per day over contracts and sides), and blocks should outlast that dependence.

    Args:
        losses: one column a model, one row a period in time order, shape (T, k).
        block_length: mean length of the stationary bootstrap's blocks, in periods.
        size: of the test, in (0, 1).
        statistic: ``R``, the largest t-statistic between any two models, or ``max``, that of any
            model against the average.
        replications: bootstrap resamples; a p-value near 0.1 is then known to about 0.01.
        seed: of the resamples.

    Raises:
        InputError: no model or fewer than two periods; NaN or infinite losses; block_length
            outside 1..T; size outside (0, 1).

    Source: Hansen, Lunde and Nason (2011), The Model Confidence Set, doi:10.3982/ECTA5771; computed
    by ``arch.bootstrap.MCS``.
    """
    values = require_finite(losses.to_numpy(dtype=np.float64), "losses")
    if len(values) < 2:
        raise InputError(f"found {len(values)} period(s) of losses; at least 2 are needed")
    if not 1 <= block_length <= len(values):
        raise InputError(f"block_length must lie in 1..{len(values)}, found {block_length}")
    if not 0.0 < size < 1.0:
        raise InputError(f"size must lie in (0, 1), found {size:g}")
    names = [str(name) for name in losses.columns]
    twin_of = [_first_alike(values, column) for column in range(len(names))]
    distinct = sorted(set(twin_of))
    if len(distinct) == 1:
        return ConfidenceSet(dict.fromkeys(names, 1.0), size)
    # two pairs of the same statistic (losses in proportion) make arch drop two models at once
    noise = np.random.default_rng(seed).uniform(-NOISE, NOISE, values.shape)
    tested = MCS(
        (values * (1.0 + noise))[:, distinct],
        size,
        reps=replications,
        block_size=block_length,
        method=statistic,
        bootstrap="stationary",
        seed=seed,
    )
    # two models whose losses differ by a constant: a statistic of infinity is the right answer
    with np.errstate(divide="ignore", invalid="ignore"):
        tested.compute()
    eliminated = tested.pvalues.index.to_numpy(dtype=np.intp)
    p_values = tested.pvalues["Pvalue"].to_numpy(dtype=np.float64)
    found = {distinct[i]: float(p) for i, p in zip(eliminated, p_values, strict=True)}
    return ConfidenceSet(
        {name: found[twin] for name, twin in zip(names, twin_of, strict=True)}, size
    )


def _first_alike(values: FloatArray, column: int) -> int:
    """Return the first column whose losses are the same to ``ALIKE``.

    Between such a pair there is no variance to divide by.
    """
    own = values[:, column]
    return next(
        i for i in range(column + 1) if np.allclose(values[:, i], own, rtol=ALIKE, atol=0.0)
    )
