"""The numbers of a policy as the chain computes with them, neutral where it leaves a step out.

Responsible for letting many policies be replayed beside one another: every number may be an array,
one a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import timedelta

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.specs.serving import MarginPolicy

_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Parameters:
    """Numbers of a policy, scalars or one a row, shape (k,).

    Attributes:
        largest_plausible: forecasts above it are not believed.
        buffer_rate: buffer when full.
        drawdown_starts_at, drawdown_span: forecast over long-run rate at which the buffer begins to
            be used, and from there to where it is used up.
        rebuild_per_hour: share of the buffer that grows back in an hour.
        stress_weight: of stressed observations.
        elasticity: power of the forecast over the long-run rate.
        long_run_floor, long_run_cap: multiples of the long-run rate.
        mmr_floor, mmr_cap, multiplier_floor, multiplier_cap: see
            :class:`~margincast.specs.serving.Limits`.
        rise_per_hour, rise_per_day: largest rises, fractions.
        fall_per_hour: largest fall in an hour, as a difference of logarithms.
        hold: a rate falls only by more than this share.
        mmr_step: the publication grid, one for all rows.
    """

    largest_plausible: FloatArray
    buffer_rate: FloatArray
    drawdown_starts_at: FloatArray
    drawdown_span: FloatArray
    rebuild_per_hour: FloatArray
    stress_weight: FloatArray
    elasticity: FloatArray
    long_run_floor: FloatArray
    long_run_cap: FloatArray
    mmr_floor: FloatArray
    mmr_cap: FloatArray
    multiplier_floor: FloatArray
    multiplier_cap: FloatArray
    rise_per_hour: FloatArray
    rise_per_day: FloatArray
    fall_per_hour: FloatArray
    hold: FloatArray
    mmr_step: float

    @classmethod
    def of(cls, policy: MarginPolicy) -> "Parameters":
        """Return the numbers of one policy, for any number of rows."""
        drawdown, band, speed = policy.buffer.drawdown, policy.long_run, policy.speed
        limits, publication = policy.limits, policy.publication
        numbers = {
            "largest_plausible": policy.forecast.largest_plausible,
            "buffer_rate": policy.buffer.rate,
            "drawdown_starts_at": drawdown.starts_at if drawdown else np.inf,
            "drawdown_span": drawdown.ends_at - drawdown.starts_at if drawdown else 1.0,
            "rebuild_per_hour": _HOUR / drawdown.rebuild if drawdown else np.inf,
            "stress_weight": policy.stress.weight if policy.stress else 0.0,
            "elasticity": band.elasticity if band else 1.0,
            "long_run_floor": band.floor if band else 0.0,
            "long_run_cap": band.cap if band else np.inf,
            "mmr_floor": limits.mmr_floor,
            "mmr_cap": limits.mmr_cap,
            "multiplier_floor": limits.multiplier_floor,
            "multiplier_cap": limits.multiplier_cap,
            "rise_per_hour": speed.rise_per_hour if speed else np.inf,
            "rise_per_day": speed.rise_per_day if speed else np.inf,
            "fall_per_hour": np.log(2.0) * (_HOUR / speed.fall_half_life) if speed else np.inf,
            "hold": publication.hold if publication else 0.0,
        }
        arrays = {name: np.asarray(number, dtype=np.float64) for name, number in numbers.items()}
        return cls(**arrays, mmr_step=policy.rounding.mmr_step)

    @classmethod
    def side_by_side(cls, policies: Sequence[MarginPolicy], rows: int) -> "Parameters":
        """Return the numbers of several policies, each for as many rows, one policy after another.

        Raises:
            InputError: they publish on different grids.
        """
        each = [cls.of(policy) for policy in policies]
        steps = {one.mmr_step for one in each}
        if len(steps) != 1:
            raise InputError(
                f"policies side by side need one rounding.mmr_step, found {sorted(steps)}"
            )
        names = [field.name for field in fields(cls) if field.name != "mmr_step"]
        arrays = {
            name: np.repeat(np.array([getattr(one, name) for one in each]), rows) for name in names
        }
        return cls(**arrays, mmr_step=steps.pop())
