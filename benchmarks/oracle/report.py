"""Tables of what the oracle studies showed, as Markdown."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
from benchmarks.oracle.recovery import LOOKED_AT, Recovery
from benchmarks.oracle.study import Score

from margincast.models.catalogue import OURS

HIGHEST_RATIO: Final = {0.99: 1.03, 0.995: 1.05, 0.999: 1.10}
"""Pinball over the oracle's that our forecaster may have, by level."""

MOST_DECISIONS: Final = 250
"""Decisions within which our forecaster should have found a threefold volatility."""


def score_table(scores: Sequence[Score]) -> str:
    """One row a process and level: ours against the oracle and the bar, beside the others."""
    others = [name for name in _in_order(score.model for score in scores) if name != OURS]
    lines = _head(
        ["process", "level", f"{OURS} / oracle", "bar", "kept", "realised", "exceedance ratio"]
        + ["log error", "log bias"]
        + [f"{name} / oracle (exceedance)" for name in others]
    )
    for process in _in_order(score.process for score in scores):
        for level in sorted({score.level for score in scores}):
            own = [s for s in scores if (s.process, s.level) == (process, level)]
            ours = [s for s in own if s.model == OURS]
            bar = HIGHEST_RATIO.get(level, math.nan)
            ratio = float(np.mean([s.pinball_ratio for s in ours]))
            cells = [
                process,
                f"{level:g}",
                _mean(ours, lambda s: s.pinball_ratio, 3),
                f"{bar:.2f}",
                "yes" if ratio <= bar else f"**no**, {ratio / bar - 1:+.1%}",
                _mean(ours, lambda s: s.realised_pinball_ratio, 3),
                _mean(ours, lambda s: s.exceedance_ratio, 2),
                _mean(ours, lambda s: s.log_error, 3),
                _mean(ours, lambda s: s.log_bias, 3),
            ]
            for name in others:
                theirs = [s for s in own if s.model == name]
                cells.append(
                    f"{np.mean([s.pinball_ratio for s in theirs]):.3f} "
                    f"({np.mean([s.exceedance_ratio for s in theirs]):.2f})"
                )
            lines.append(_row(cells))
    return "\n".join(lines)


def recovery_table(recoveries: Sequence[Recovery]) -> str:
    """One row a process and model: decisions until a threefold volatility is found."""
    lines = _head(
        ["process", "model", "decisions to quantile", "decisions to coverage", "bar", "before"]
        + [f"after {at}" for at in LOOKED_AT]
    )
    for process in _in_order(recovery.process for recovery in recoveries):
        for model in _in_order(recovery.model for recovery in recoveries):
            own = [r for r in recoveries if (r.process, r.model) == (process, model)]
            after = np.mean([recovery.after for recovery in own], axis=0)
            cells = [
                process,
                model,
                _count([r.decisions_to_quantile for r in own], own[0].followed),
                _count([r.decisions_to_coverage for r in own], own[0].followed),
                f"{MOST_DECISIONS}",
                f"{np.mean([r.before for r in own]):.2f}",
                *(f"{value:.2f}" for value in after),
            ]
            lines.append(_row(cells))
    return "\n".join(lines)


def _mean(scores: Sequence[Score], value: Callable[[Score], float], digits: int) -> str:
    """Mean over seeds with its standard error, where there are several."""
    values = np.array([value(score) for score in scores])
    text = f"{values.mean():.{digits}f}"
    if len(values) < 2:
        return text
    return f"{text} ± {values.std(ddof=1) / math.sqrt(len(values)):.{digits}f}"


def _count(values: Sequence[float], followed: int) -> str:
    """Mean number of decisions over seeds; says in how many it was not seen."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return f"not within {followed}"
    text = f"{np.mean(known):.0f}"
    missed = len(values) - len(known)
    return text if not missed else f"{text}, not within {followed} in {missed} of {len(values)}"


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _head(names: Sequence[str]) -> list[str]:
    return [_row(names), _row(["---"] * len(names))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
