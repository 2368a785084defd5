"""What rows bring along to the moment their margin is made: the policy's memory and references.

Responsible for the part of a margin that is not tonight's forecast.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margincast.core.types import BoolArray, FloatArray
from margincast.margin.chain import Memory
from margincast.margin.notice import InForce


@dataclass(frozen=True)
class Remembered:
    """What a publication leaves behind for the next one; shape (k,) each.

    Attributes:
        memory: what the policy remembers.
        in_force: rates in force and announced.
        fee_multiplier: in force; NaN where there is none.
    """

    memory: Memory
    in_force: InForce
    fee_multiplier: FloatArray

    @classmethod
    def nothing(cls, rows: int) -> "Remembered":
        """Return that of rows that have never been published."""
        return cls(Memory.blank(rows), InForce.blank(rows), np.full(rows, np.nan))

    def rows(self, chosen: npt.NDArray[np.intp]) -> "Remembered":
        """Return some rows; -1 stands for one that has never been published."""
        known = Remembered(
            self.memory.rows(chosen), self.in_force.rows(chosen), self.fee_multiplier[chosen]
        )
        return known if (chosen >= 0).all() else known.blanked(chosen < 0)

    def blanked(self, rows: BoolArray) -> "Remembered":
        """Return the same without what is remembered of some rows."""
        never = np.datetime64("NaT", "us")

        def forgotten(values: FloatArray) -> FloatArray:
            return np.where(rows, np.nan, values)

        memory = Memory(
            self.memory.at,
            np.where(rows, 1.0, self.memory.buffer),
            forgotten(self.memory.limited),
            np.where(rows, never, self.memory.limited_at),
            forgotten(self.memory.published),
            tuple((at, forgotten(rates)) for at, rates in self.memory.recent),
        )
        announced = (
            (np.where(rows, never, effective), forgotten(rates))
            for effective, rates in self.in_force.announced
        )
        in_force = InForce(forgotten(self.in_force.mmr), tuple(announced))
        return Remembered(memory, in_force, forgotten(self.fee_multiplier))


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
    def of(
        cls, at: np.datetime64, past: Remembered, long_run: FloatArray, stressed: FloatArray
    ) -> "Background":
        """Return what is remembered, beside the references of the moment."""
        return cls(at, past.memory, past.in_force, long_run, stressed, past.fee_multiplier)

    def rows(self, chosen: npt.NDArray[np.intp]) -> "Background":
        """Return that of some rows."""
        return Background.of(
            self.at, self.remembered.rows(chosen), self.long_run[chosen], self.stressed[chosen]
        )

    @property
    def remembered(self) -> Remembered:
        """What the last publication left behind."""
        return Remembered(self.memory, self.in_force, self.fee_multiplier)

    @classmethod
    def none(cls, rows: int, at: np.datetime64) -> "Background":
        """Return that of rows nothing is known of: no memory, no history."""
        unknown = np.full(rows, np.nan)
        return cls(at, Memory.blank(rows), InForce.blank(rows), unknown, unknown, unknown)
