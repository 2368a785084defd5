"""Returns between decisions on a regular grid of steps: all that a CAViaR margin reacts to."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margincast.core.types import FloatArray
from margincast.models.caviar import exponential_means, magnitudes
from margincast.models.closes import ContractCloses


@dataclass(frozen=True)
class ReturnGrid:
    """One contract's returns on the grid, and which steps are decisions.

    Attributes:
        rows: rows of the n decisions in the frame.
        at: steps of the decisions, shape (n,).
        sizes: magnitudes of the returns of m steps, in units of the contract's volatility, with
            their expectation where a step has no return of its own; shape (m, columns).
        start: exponential means before the first step, shape (columns,).
    """

    rows: npt.NDArray[np.intp]
    at: npt.NDArray[np.int64]
    sizes: FloatArray
    start: FloatArray

    def means(self, persistence: float, start: FloatArray | None = None) -> FloatArray:
        """Return the exponential means at the decisions, shape (n, columns).

        Args:
            persistence: of the means.
            start: means before the first step, where they depend on the persistence.
        """
        begin = self.start if start is None else start
        return exponential_means(self.sizes, persistence, begin)[self.at]


def returns_per_step(
    contract: ContractCloses, step: int
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Return log returns between decisions and the steps each spans, shape (n - 1,).

    A return over k steps is divided by sqrt(k), which makes it as large as that of one.
    """
    steps = np.maximum(np.rint(np.diff(contract.decided) / step).astype(np.int64), 1)
    return np.diff(np.log(contract.close)) / np.sqrt(steps), steps


def return_grid(
    contract: ContractCloses, step: int, volatility: float, *, asymmetric: bool
) -> ReturnGrid:
    """Put a contract's returns on the grid.

    A missing stretch of k steps holds k - 1 expectations and then its return. The first decision's
    return is not known, unless :meth:`ContractCloses.after` has put one before it.

    Args:
        contract: m decisions, of which the last n are rows of the frame.
        step: length of a step, microseconds.
        volatility: the contract's mean absolute return a step.
        asymmetric: rises and falls apart.
    """
    returns, steps = returns_per_step(contract, step)
    if len(returns) < len(contract.rows):
        returns, steps = np.append(np.nan, returns), np.append(1, steps)
    at = np.cumsum(steps) - 1
    on_grid = np.full(int(at[-1]) + 1, np.nan)
    on_grid[at] = returns / volatility
    sizes = magnitudes(on_grid, asymmetric=asymmetric)
    # the mean size is 1 by the unit, and rises and falls have half of it each
    expected = 1.0 / sizes.shape[1]
    sizes[np.isnan(on_grid)] = expected
    return ReturnGrid(contract.rows, at, sizes, np.full(sizes.shape[1], expected))
