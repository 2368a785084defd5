"""Superior predictive ability: does any model beat the one in use, after looking at all of them.

Responsible for the sentence "nothing tried is better than the champion": the best of twenty
challengers beats any champion in some sample, and this test knows how many were tried.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from arch.bootstrap import SPA

from margincast.core.errors import InputError, did_you_mean
from margincast.scoring.coverage import require_finite

REPLICATIONS = 1000
SIZE = 0.10
"""As that of the model confidence set."""
ALIKE = 1e-9
"""Differences from the benchmark's losses that vary by less, relatively, do not vary."""


@dataclass(frozen=True)
class SuperiorAbility:
    """Hansen's test of one benchmark against all other models.

    Attributes:
        benchmark: the model in question; the hypothesis is that none has a smaller mean loss.
        p_value: Hansen's consistent one, which decides.
        lower: p-value if hopeless models are taken out of the null law (rejects more).
        upper: p-value of White's reality check, with all models at the boundary (rejects less).
        superior: models found better by Romano and Wolf's stepwise test, in the order given.
        alike: models of the benchmark's own losses, left out.
        size: probability that any of ``superior`` is there wrongly.
    """

    benchmark: str
    p_value: float
    lower: float
    upper: float
    superior: tuple[str, ...]
    alike: tuple[str, ...]
    size: float


def superior_ability(
    losses: pd.DataFrame,
    benchmark: str,
    *,
    block_length: int,
    size: float = SIZE,
    replications: int = REPLICATIONS,
    seed: int = 0,
) -> SuperiorAbility:
    """Test whether any model has a smaller mean loss than the benchmark, and name those that do.

    A row should be a period that can be taken for one observation of a weakly dependent series (for
    margin: losses averaged per day over contracts and sides), and blocks should outlast that
    dependence. Loss differences are studentised.

    Args:
        losses: one column a model, one row a period in time order, shape (T, k).
        benchmark: name of the column in question.
        block_length: mean length of the stationary bootstrap's blocks, in periods.
        size: of the stepwise test, in (0, 1).
        replications: bootstrap resamples; a p-value near 0.1 is then known to about 0.01.
        seed: of the resamples.

    Returns:
        The result. A model whose difference from the benchmark never changes needs no test: it is
        the benchmark under another name, certainly better (p-values 0) or certainly no better.

    Raises:
        InputError: the benchmark is not a column; no other model; fewer than two periods; NaN or
            infinite losses; block_length outside 1..T; size outside (0, 1).

    Source: Hansen (2005), doi:10.1198/073500105000000063; Romano and Wolf (2005),
    doi:10.1111/j.1468-0262.2005.00615.x; resampled by ``arch.bootstrap.SPA``.
    """
    names = [str(name) for name in losses.columns]
    if benchmark not in names:
        raise InputError(
            f"there is no model {benchmark!r} among {names}{did_you_mean(benchmark, names)}"
        )
    values = require_finite(losses.to_numpy(dtype=np.float64), "losses")
    if len(values) < 2 or len(names) < 2:
        raise InputError(
            f"found {len(values)} period(s) of {len(names)} model(s); at least 2 of each are needed"
        )
    if not 1 <= block_length <= len(values):
        raise InputError(f"block_length must lie in 1..{len(values)}, found {block_length}")
    if not 0.0 < size < 1.0:
        raise InputError(f"size must lie in (0, 1), found {size:g}")
    own = values[:, names.index(benchmark)]
    gains = own[:, np.newaxis] - values
    noise = ALIKE * float(np.max(np.abs(own)))
    others = [position for position, name in enumerate(names) if name != benchmark]
    fixed = np.ptp(gains, axis=0) <= noise
    challengers = [position for position in others if not fixed[position]]
    found = {position for position in others if fixed[position] and gains[0, position] > noise}
    p_values = dict.fromkeys(("lower", "consistent", "upper"), 0.0 if found else 1.0)
    if challengers:
        tested = SPA(
            own,
            values[:, challengers],
            block_size=block_length,
            reps=replications,
            bootstrap="stationary",
            studentize=True,
            seed=seed,
        )
        tested.compute()
        if not found:
            p_values = {name: float(tested.pvalues[name]) for name in p_values}
        found.update(challengers[position] for position in _stepwise(tested, challengers, size))
    return SuperiorAbility(
        benchmark=benchmark,
        p_value=p_values["consistent"],
        lower=p_values["lower"],
        upper=p_values["upper"],
        superior=tuple(names[position] for position in sorted(found)),
        alike=tuple(names[i] for i in others if fixed[i] and abs(gains[0, i]) <= noise),
        size=size,
    )


def _stepwise(tested: SPA, challengers: list[int], size: float) -> set[int]:
    """Return the places of the models found better: those found are removed, the rest retested."""
    found: set[int] = set()
    better = tested.better_models(size).tolist()
    while better and len(found) + len(better) < len(challengers):
        found.update(better)
        tested.subset(~np.isin(np.arange(len(challengers)), list(found)))
        tested.compute()
        better = tested.better_models(size).tolist()
    return found.union(better)
