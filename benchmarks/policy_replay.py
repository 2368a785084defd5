"""How long a policy takes over 50 contracts and 20,000 decisions of each, both sides, one tier.

Every moment of publication goes through the chain with all its sections: elasticity, buffer with
drawdown, weight on stress, long-run band, speed limits and hold. Beside it stands a bare loop that
multiplies and clips the same forecasts once a moment.
Budget: 10 s.

Run: ``OMP_NUM_THREADS=1 python -m benchmarks.policy_replay``
"""

import argparse
import time
from datetime import timedelta

import numpy as np
from benchmarks.fold_overhead import WORKSPACE

from margincast.margin.parameters import Parameters
from margincast.margin.reference import References
from margincast.margin.timeline import Forecasts, Rows, through_time
from margincast.specs.loading import load_spec
from margincast.specs.serving import MarginPolicy

BUDGET_SECONDS = 10.0
SECTIONS = [
    "buffer.rate=0.25",
    'buffer.drawdown={starts_at=1.0, ends_at=3.0, rebuild="10d"}',
    'stress={weight=0.25, period="90d"}',
]


def main() -> None:
    """Replay, time, and print."""
    parser = argparse.ArgumentParser(description="replay of a policy")
    parser.add_argument("--contracts", type=int, default=50)
    parser.add_argument("--decisions", type=int, default=20_000)
    chosen = parser.parse_args()
    policy = load_spec(WORKSPACE / "serving" / "perp-8h.toml", MarginPolicy, SECTIONS)
    contracts, ticks = chosen.contracts, chosen.decisions
    rng = np.random.default_rng(1)
    steps = rng.normal(0.0, 0.05, (2, ticks, contracts)).cumsum(axis=1)
    level = np.exp(-3.0 + steps - 0.3 * steps.mean(axis=1, keepdims=True))
    rates = np.clip(level, 0.001, 1.0)
    moments = np.datetime64("2022-01-01", "us") + np.arange(ticks) * np.timedelta64(1, "h")
    forecasts = Forecasts(
        np.repeat(moments, contracts), np.tile(np.arange(contracts), ticks), rates.reshape(2, -1)
    )
    rows = Rows(contracts, 2, np.full(2 * contracts, 0.01), np.full(2 * contracts, 0.0017))
    months = np.unique(moments.astype("datetime64[M]")).astype("datetime64[us]")
    known = np.full((len(months), 2 * contracts), 0.05)
    references = References(months, known, 2.0 * known, np.ones_like(known))

    began = time.process_time()
    published = 0
    for moment in through_time(
        forecasts,
        rows,
        Parameters.of(policy),
        references=references,
        publish_every=timedelta(hours=1),
        max_data_age=timedelta(hours=2),
    ):
        published += moment.published is not None
    taken = time.process_time() - began

    began = time.process_time()
    for tick in range(ticks):
        np.clip(rates[:, tick].ravel() * 1.1, 0.005, 0.5)
    plain = time.process_time() - began
    print(f"{published:,} publications of {2 * contracts} margins: {taken:.1f} s of processor time")
    print(f"bare loop of one multiplication and clip: {plain:.2f} s ({taken / plain:.0f} times)")
    print(f"budget {BUDGET_SECONDS:g} s: {'kept' if taken <= BUDGET_SECONDS else 'not reached'}")


if __name__ == "__main__":
    main()
