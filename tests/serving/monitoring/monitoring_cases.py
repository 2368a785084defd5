"""Records with a known truth."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from margincast.serving.monitoring.record import Record

START = datetime(2026, 1, 1, tzinfo=UTC)
HORIZON = timedelta(hours=8)


def record_case(
    *, hours=240, contracts=3, levels=(0.9, 0.95), seed=1, ratio=1.0, every=1, subject="model/1"
):
    """Hourly decisions whose outcomes are uniform, so that a level is its own quantile.

    Outcomes of one horizon are the largest of independent draws, as excursions over overlapping
    windows are, put back to uniform.
    """
    generator = np.random.default_rng(seed)
    n, reach = hours // every, int(HORIZON / timedelta(hours=1))
    draws = generator.random((hours + reach, contracts, 2))
    windows = np.lib.stride_tricks.sliding_window_view(draws, reach, axis=0)[:hours:every]
    outcomes = windows.max(axis=3) ** reach
    promised = np.broadcast_to(
        1.0 - ratio * (1.0 - np.array(levels)), (n, contracts, 2, len(levels))
    )
    decided = np.datetime64("2026-01-01", "us") + np.arange(n) * np.timedelta64(every, "h")
    return Record(
        subject,
        HORIZON,
        ("long", "short"),
        tuple(levels),
        tuple(f"C{number}" for number in range(contracts)),
        np.tile(np.arange(contracts), n),
        np.repeat(decided, contracts),
        promised.reshape(n * contracts, 2, len(levels)).copy(),
        outcomes.reshape(n * contracts, 2).copy(),
    )


def with_outcomes(record, outcomes):
    return replace(record, outcomes=outcomes)


def after(hours):
    return START + timedelta(hours=hours)
