"""Notice: the time between the publication of a margin and the moment it is charged.

Responsible for the rate in force. A higher margin may come into force sooner than a lower one; a
publication that comes into force makes all before it void, also those whose time is still to come.
What waits follows later publications: an announced fall goes no lower, and an announced rise no
higher, than what is published since. So tiers keep their order while some of them wait.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from margincast.core.types import BoolArray, FloatArray, Times
from margincast.specs.serving import MarginPolicy

_TICK = np.timedelta64(1, "us")


@dataclass(frozen=True)
class InForce:
    """Rates in force and those announced; shape (k,) each.

    Attributes:
        mmr: rate in force; NaN before the first publication.
        announced: per publication, oldest first, when it comes into force and its rates; NaT where
            it is in force or void already.
    """

    mmr: FloatArray
    announced: tuple[tuple[Times, FloatArray], ...]

    @classmethod
    def blank(cls, rows: int) -> "InForce":
        """Return rows of which nothing has been published."""
        return cls(np.full(rows, np.nan), ())

    def rows(self, chosen: npt.NDArray[np.intp]) -> "InForce":
        """Return some rows."""
        announced = ((effective[chosen], rates[chosen]) for effective, rates in self.announced)
        return InForce(self.mmr[chosen], tuple(announced))

    def at(self, moment: np.datetime64) -> "InForce":
        """Return what is in force at a moment, not before any asked for earlier."""
        if not self.announced:
            return self
        mmr = self.mmr
        due = [effective <= moment for effective, _ in self.announced]  # False for NaT
        for now, (_, rates) in zip(due, self.announced, strict=True):
            mmr = np.where(now, rates, mmr)
        later = []
        overtaken = np.zeros(len(mmr), dtype=bool)
        for now, (effective, rates) in zip(reversed(due), reversed(self.announced), strict=True):
            overtaken |= now
            waiting = np.where(overtaken, np.datetime64("NaT"), effective)
            if not np.isnat(waiting).all():
                later.append((waiting, rates))
        return InForce(mmr, tuple(reversed(later)))

    def publish(
        self, rates: FloatArray, moment: np.datetime64, policy: MarginPolicy, *, at_once: BoolArray
    ) -> "InForce":
        """Announce rates; those that wait already come to lie between rate in force and new rate.

        Args:
            rates: published at ``moment``.
            moment: of publication, UTC.
            policy: says how long before it comes into force a rise or fall is announced.
            at_once: rows that wait for nothing (a first publication, a fallback), shape (k,).
        """
        effective = moment + self.waits(rates, moment, policy, at_once=at_once)
        now = self._following(rates, moment)
        return replace(now, announced=(*now.announced, (effective, rates))).at(moment)

    def waits(
        self, rates: FloatArray, moment: np.datetime64, policy: MarginPolicy, *, at_once: BoolArray
    ) -> npt.NDArray[np.timedelta64]:
        """Return how long after its publication each rate comes into force, shape (k,).

        Args:
            rates: see :meth:`publish`, and so on.
            moment: of publication, UTC.
            policy: says how long rises and falls wait.
            at_once: rows that wait for nothing.
        """
        now = self._following(rates, moment)
        notice = policy.publication
        rise = notice.notice_of_rise if notice is not None else None
        fall = notice.notice_of_fall if notice is not None else None
        first = np.isnan(now.mmr) | at_once
        waits = np.zeros(len(rates), dtype="timedelta64[us]")
        if rise is not None:
            waits[(rates > now.mmr) & ~first] = np.timedelta64(rise)
        if fall is not None:
            waits[(rates < now.mmr) & ~first] = np.timedelta64(fall)
        return waits

    def _following(self, rates: FloatArray, moment: np.datetime64) -> "InForce":
        """Return what is in force at a moment when rates are published: what waits follows them.

        Also what comes into force at this very moment.
        """
        if not self.announced:
            return self
        before = self.at(moment - _TICK)
        low, high = np.fmin(rates, before.mmr), np.fmax(rates, before.mmr)
        waiting = ((due, np.clip(earlier, low, high)) for due, earlier in before.announced)
        return replace(before, announced=tuple(waiting)).at(moment)
