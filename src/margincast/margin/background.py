"""What rows bring along to the moment their margin is made: the policy's memory and references.

Responsible for the part of a margin that is not tonight's forecast.
"""

from dataclasses import dataclass

import numpy as np

from margincast.core.types import FloatArray
from margincast.margin.chain import Memory
from margincast.margin.notice import InForce


@dataclass(frozen=True)
class Background:
    """What is known of k rows before their margin is made; shape (k,) each.

    Attributes:
        at: the moment, UTC.
        memory: what the policy remembers.
        in_force: rates in force and announced before the moment.
        long_run: long-run rates; NaN where they are not known.
        stressed: rates of the worst period; NaN likewise.
        fee_multiplier: in force; NaN where there is none.
    """

    at: np.datetime64
    memory: Memory
    in_force: InForce
    long_run: FloatArray
    stressed: FloatArray
    fee_multiplier: FloatArray

    @classmethod
    def none(cls, rows: int, at: np.datetime64) -> "Background":
        """Return that of rows nothing is known of: no memory, no history."""
        unknown = np.full(rows, np.nan)
        return cls(at, Memory.blank(rows), InForce.blank(rows), unknown, unknown, unknown)
