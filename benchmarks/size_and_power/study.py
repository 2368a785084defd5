"""Counting rejections: one batch of series at a time, with simulations of its own.

Monte-Carlo p-values of one batch share their simulations, and so their luck; a share of rejections
is a mean over batches, and its standard error the spread of the batches.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from benchmarks.size_and_power.catalogue import TESTS, Simulations, Studied
from benchmarks.size_and_power.panel import draw_panel
from benchmarks.size_and_power.series import Truth, draw_series

from margincast.backtest.verdicts import TestResult
from margincast.core.types import BoolArray, FloatArray

SIGNIFICANCE: Final = 0.05
SIZES: Final = (250, 500, 1000, 5000)
LEVELS: Final = (0.95, 0.99)
SIZE: Final[Truth] = "true margin"
WRONG: Final[tuple[Truth, ...]] = ("1.5x exceedances", "2x exceedances", "clusters", "deeper")
POWER_EFFORT: Final = 0.25
"""Share of the replications that each wrong margin gets: power needs no tenth of a point."""


@dataclass(frozen=True)
class Batch:
    """What one process does at a time: one sample size and level, all truths and tests."""

    sample_size: int
    level: float
    replications: int
    seed: int
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Rejections:
    """How often one test rejected the series of one batch.

    Attributes:
        test: its name.
        sample_size: decisions of a series.
        level: of the margin.
        truth: what the margin was.
        series: how many.
        undefined: of them without a statistic, which is no rejection.
        asymptotic: rejected by the asymptotic, or exact, p-value.
        monte_carlo: rejected by the Monte-Carlo one; None for a test without.
    """

    test: str
    sample_size: int
    level: float
    truth: Truth
    series: int
    undefined: int
    asymptotic: int
    monte_carlo: int | None


@dataclass(frozen=True)
class Share:
    """A share of rejections over batches, with its standard error; NaN where there is none."""

    share: float
    standard_error: float


@dataclass(frozen=True)
class Cell:
    """All batches of one test, sample size, level and truth."""

    test: str
    sample_size: int
    level: float
    truth: Truth
    series: int
    undefined: float
    asymptotic: Share
    monte_carlo: Share | None

    @property
    def decisive(self) -> Share:
        """By Monte Carlo where there is one."""
        return self.monte_carlo or self.asymptotic

    def record(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


def rejected(p_values: FloatArray) -> BoolArray:
    """Return which p-values reject; NaN, no statistic, does not."""
    return np.asarray(np.nan_to_num(p_values, nan=1.0) < SIGNIFICANCE)


def count(
    test: str, sample_size: int, level: float, truth: Truth, results: Sequence[TestResult]
) -> Rejections:
    """Count the rejections of one batch."""
    asymptotic = np.array([result.p_value for result in results])
    simulated = np.array([result.monte_carlo_p_value for result in results])
    return Rejections(
        test,
        sample_size,
        level,
        truth,
        len(results),
        int(np.isnan([result.statistic for result in results]).sum()),
        int(rejected(asymptotic).sum()),
        None if np.isnan(simulated).all() else int(rejected(simulated).sum()),
    )


def run(batch: Batch) -> list[Rejections]:
    """Draw the series of a batch, run its tests, and count."""
    simulations = Simulations(batch.seed)
    found = []
    for number, truth in enumerate((SIZE, *WRONG)):
        key = (batch.seed, batch.sample_size, round(batch.level * 1000), number)
        replications = batch.replications if truth == SIZE else _some(batch, POWER_EFFORT)
        for pooled in (False, True):
            tests = {
                name: TESTS[name]
                for name in batch.tests
                if TESTS[name].pooled == pooled and (truth != "deeper" or TESTS[name].judges_size)
            }
            if not tests:
                continue
            generator = np.random.default_rng((*key, pooled))
            most = _least(max(test.effort for test in tests.values()), replications)
            samples: Sequence[Any]
            if pooled:
                samples = [
                    draw_panel(batch.sample_size, batch.level, truth, generator)
                    for _ in range(most)
                ]
            else:
                samples = draw_series(most, batch.sample_size, batch.level, truth, generator)
            for name, test in tests.items():
                results = _results(test, samples[: _least(test.effort, replications)], simulations)
                found.append(count(name, batch.sample_size, batch.level, truth, results))
    return found


def _some(batch: Batch, effort: float) -> int:
    return _least(effort, batch.replications)


def _least(effort: float, replications: int) -> int:
    return max(1, round(effort * replications))


def _results(test: Studied, samples: Sequence[Any], simulations: Simulations) -> list[TestResult]:
    return [test.run(sample, simulations) for sample in samples]


def summarise(counts: Iterable[Rejections]) -> list[Cell]:
    """Put the batches of each test, sample size, level and truth together."""
    groups: dict[tuple[str, int, float, Truth], list[Rejections]] = {}
    for one in counts:
        groups.setdefault((one.test, one.sample_size, one.level, one.truth), []).append(one)
    cells = []
    for (test, sample_size, level, truth), batches in groups.items():
        series = np.array([batch.series for batch in batches])
        simulated = [batch.monte_carlo for batch in batches if batch.monte_carlo is not None]
        cells.append(
            Cell(
                test,
                sample_size,
                level,
                truth,
                int(series.sum()),
                sum(batch.undefined for batch in batches) / int(series.sum()),
                share_of([batch.asymptotic for batch in batches], series),
                share_of([batch.monte_carlo or 0 for batch in batches], series)
                if simulated
                else None,
            )
        )
    return cells


def share_of(rejections: Sequence[int], series: Sequence[int] | FloatArray) -> Share:
    """Return the share of rejections over batches of equal size, and its standard error."""
    shares = np.asarray(rejections) / np.asarray(series)
    error = float(np.std(shares, ddof=1) / np.sqrt(shares.size)) if shares.size > 1 else np.nan
    return Share(float(shares.mean()), error)
