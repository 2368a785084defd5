"""The initial margin rate: what a position must have when it is opened.

Responsible for the rate of every row from its maintenance margin rate, from a forecast of a higher
level or a longer horizon, and from the base schedule; and for the leverage that it allows.
"""

import numpy as np
import numpy.typing as npt

from margincast.core.time import format_duration
from margincast.core.types import FloatArray
from margincast.margin.explanation import percent
from margincast.margin.rounding import exact, round_up, rounded_up
from margincast.specs.serving import MarginPolicy

Texts = npt.NDArray[np.object_]


def initial_margin_rates(
    mmr: FloatArray, base_imr: FloatArray, policy: MarginPolicy, need: FloatArray | None = None
) -> tuple[FloatArray, Texts]:
    """Return initial margin rates and their reasons.

    The largest of the policy's ratio times the MMR, the need of ``[initial.forecast]`` and the
    tier's base IMR, rounded up to the grid, at most 1. It lies above any MMR below 1, because the
    ratio is above 1. The product is exact in decimals.

    Args:
        mmr: maintenance margin rates, shape (k,).
        base_imr: the base schedule's rates, shape (k,).
        policy: the margin policy.
        need: forecast of ``[initial.forecast]`` plus the cost of closing, shape (k,); NaN where it
            is not known; None for a policy without one.
    """
    ratio, step = policy.initial.imr_over_mmr, policy.rounding.imr_step
    one = exact(1.0)
    rates, of_mmr = np.unique(mmr, return_inverse=True)
    bases, of_base = np.unique(base_imr, return_inverse=True)
    wanted = [exact(ratio) * exact(rate) for rate in rates.tolist()]
    # Validation has it that the step divides 1, so a rate up to 1 stays up to 1 when rounded;
    # and as rounding keeps the order, the larger of two rounded rates is the larger one rounded.
    rounded = np.array([round_up(min(rate, one), step) for rate in wanted])
    lowest = np.array([round_up(rate, step) for rate in bases.tolist()])
    said = np.array([f"{ratio:g} x MMR {percent(rate)}" for rate in rates], dtype=object)
    said_base = np.array([f"base IMR {percent(rate)}" for rate in bases], dtype=object)
    above = np.array([float(rate) for rate in wanted])[of_mmr] >= base_imr
    imr = np.maximum(rounded[of_mmr], lowest[of_base])
    reason = np.where(above, said[of_mmr], said_base[of_base])
    if policy.initial.forecast is None or need is None:
        return imr, reason
    covered = rounded_up(np.minimum(need, 1.0), step)
    higher = covered > imr  # False where the need is not known
    what = (
        f"{policy.initial.forecast.level:g} quantile of the adverse excursion over "
        f"{format_duration(policy.initial.forecast.horizon)}, plus cost:"
    )
    reason[higher] = [f"{what} {percent(value)}" for value in need[higher].tolist()]
    unknown = np.isnan(need)
    reason[unknown] += f"; the {what.removesuffix(', plus cost:')} is not known"
    return np.where(higher, covered, imr), reason


def whole_leverage(imr: FloatArray) -> npt.NDArray[np.int64]:
    """Return the largest whole leverage that rates allow, for venues that publish whole ones.

    The whole part of ``1 / imr``, exact in decimals: 10 at 0.1, 14 at 0.069.

    Args:
        imr: initial margin rates, fractions above 0 and up to 1, shape (k,).

    Raises:
        InputError: a rate is not finite.

    >>> whole_leverage(np.array([0.1, 0.069, 1.0])).tolist()
    [10, 14, 1]
    """
    return np.array([int(1 / exact(rate)) for rate in imr.tolist()], dtype=np.int64)
