"""Jumps of the simulated market: the part of the tail that no volatility announces.

Jumps excite themselves (Hawkes 1971, doi:10.1093/biomet/58.1.83; for prices Ait-Sahalia,
Cacho-Diaz and Laeven 2015, doi:10.1016/j.jfineco.2015.03.002): each raises the intensity at once
by branching x decay rate, which then dies out exponentially. They are drawn exactly, in continuous
time, as clusters: immigrants at the baseline's rate, and each jump's own offspring (Hawkes and
Oakes 1974, doi:10.2307/3212693). Sizes are double exponential (Kou 2002,
doi:10.1287/mnsc.48.8.1086.166).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from margincast.core.types import FloatArray


@dataclass(frozen=True)
class HawkesKernel:
    """How a jump raises the intensity of the next ones.

    Attributes:
        branching: mean number of jumps that one sets off directly, below 1.
        half_life_minutes: half-life of the excitation, minutes.
    """

    branching: float
    half_life_minutes: float

    @property
    def decay_per_minute(self) -> float:
        """Rate at which excitation dies out, per minute."""
        return math.log(2.0) / self.half_life_minutes


@dataclass(frozen=True)
class Jumps:
    """Jumps in rows of time.

    Attributes:
        unit_sizes: sum of the signed sizes in each substep, in units of the mean absolute size,
            shape (rows, minutes, substeps).
        counts: number of jumps in each substep, same shape.
        expected: integral of the intensity over each substep, given the jumps before each
            instant, same shape.
        excitation: intensity above the baseline at each minute's open, jumps per minute, shape
            (rows, minutes + 1).
    """

    unit_sizes: FloatArray
    counts: FloatArray
    expected: FloatArray
    excitation: FloatArray


def simulate_jumps(
    baseline: FloatArray,
    initial_excitation: FloatArray,
    kernel: HawkesKernel,
    *,
    downward_share: float,
    substeps: int,
    generator: np.random.Generator,
) -> Jumps:
    """Draw self-exciting jumps.

    Args:
        baseline: intensity of jumps not set off by others, jumps per minute, shape
            (rows, minutes).
        initial_excitation: intensity above it at the start, jumps per minute, shape (rows,).
        kernel: how jumps excite jumps.
        downward_share: probability that a jump is downward.
        substeps: substeps of a minute.
        generator: the source of randomness.

    Returns:
        The jumps, summed into substeps.
    """
    row_count, minute_count = baseline.shape
    row, time = _jump_times(baseline, initial_excitation, kernel, generator)
    sign = np.where(generator.random(len(row)) < downward_share, -1.0, 1.0)
    sizes = sign * generator.standard_exponential(len(row))

    cell_count = minute_count * substeps
    cell = np.minimum((time * substeps).astype(np.int64), cell_count - 1)
    flat = row * cell_count + cell

    def summed(weights: FloatArray) -> FloatArray:
        total = np.bincount(flat, weights=weights, minlength=row_count * cell_count)
        return total.astype(np.float64).reshape(row_count, cell_count)

    rate, branching = kernel.decay_per_minute, kernel.branching
    fading = np.exp(-rate * ((cell + 1) / substeps - time))
    kept = math.exp(-rate / substeps)
    first = initial_excitation[:, np.newaxis]
    at_end, _ = lfilter(
        [1.0], [1.0, -kept], summed(branching * rate * fading), axis=-1, zi=kept * first
    )
    at_open = np.concatenate([first, at_end], axis=-1)
    expected = (
        np.repeat(baseline, substeps, axis=1) / substeps
        + at_open[:, :-1] * ((1.0 - kept) / rate)
        + summed(branching * (1.0 - fading))
    )
    shape = (row_count, minute_count, substeps)
    return Jumps(
        summed(sizes).reshape(shape),
        summed(np.ones(len(row))).reshape(shape),
        expected.reshape(shape),
        at_open[:, ::substeps],
    )


def _jump_times(
    baseline: FloatArray,
    initial_excitation: FloatArray,
    kernel: HawkesKernel,
    generator: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return row and time (minutes from the start) of every jump, in no order."""
    row_count, minute_count = baseline.shape
    rate = kernel.decay_per_minute
    counts = generator.poisson(baseline).ravel()
    cell = np.repeat(np.arange(counts.size), counts)
    rows = [cell // minute_count]
    times = [cell % minute_count + generator.random(cell.size)]
    # Offspring of jumps before the start: the excitation that is left of them says how many.
    reached = -math.expm1(-rate * minute_count)
    inherited = generator.poisson(initial_excitation / rate * reached)
    rows.append(np.repeat(np.arange(row_count), inherited))
    times.append(-np.log1p(-reached * generator.random(len(rows[-1]))) / rate)
    parent_row, parent_time = np.concatenate(rows), np.concatenate(times)
    while len(parent_row):
        offspring = generator.poisson(kernel.branching, size=len(parent_row))
        child_row = np.repeat(parent_row, offspring)
        lag = generator.standard_exponential(len(child_row)) / rate
        child_time = np.repeat(parent_time, offspring) + lag
        within = child_time < minute_count
        parent_row, parent_time = child_row[within], child_time[within]
        rows.append(parent_row)
        times.append(parent_time)
    return np.concatenate(rows), np.concatenate(times)
