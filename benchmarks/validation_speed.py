"""How long the whole battery takes: 50 contracts, 2 sides, 3 levels, 20,000 decisions each.

Made-up outcomes with their true quantiles as forecasts and a generalised Pareto's expected
shortfall. Asymptotic p-values, or with ``--monte-carlo`` simulated ones, whose simulations all
contracts share. One thread.

Run: ``OMP_NUM_THREADS=1 python benchmarks/validation_speed.py``
"""

import argparse
import time

import numpy as np
from scipy.stats import t as student_t

from margincast.backtest.battery import Series, run_battery, verdicts_by_test
from margincast.backtest.monte_carlo import SimulatedExceedances

LEVELS = (0.99, 0.995, 0.999)
DEGREES = 4
BUDGET_SECONDS = 30.0


def main() -> None:
    """Run the battery once and say how long it took."""
    parser = argparse.ArgumentParser(description="time of the whole battery")
    parser.add_argument("--contracts", type=int, default=50)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--monte-carlo", action="store_true", help="simulated p-values as well")
    arguments = parser.parse_args()
    series = [
        series_of(contract, side, arguments.decisions)
        for contract in range(arguments.contracts)
        for side in ("long", "short")
    ]
    started, wall = time.process_time(), time.perf_counter()
    table = run_battery(
        series, monte_carlo=SimulatedExceedances() if arguments.monte_carlo else None
    )
    spent, elapsed = time.process_time() - started, time.perf_counter() - wall
    print(verdicts_by_test(table).to_string(index=False))
    print(
        f"{len(table):,} answers of {len(series)} series x {len(LEVELS)} levels x "
        f"{arguments.decisions:,} decisions"
    )
    kept = "kept" if spent <= BUDGET_SECONDS else "EXCEEDED"
    print(f"CPU {spent:.1f} s, wall {elapsed:.1f} s, budget {BUDGET_SECONDS:g} s ({kept})")


def series_of(contract: int, side: str, decisions: int) -> Series:
    """Make one series of a right model."""
    rng = np.random.default_rng((contract, side == "long"))
    scale = np.exp(rng.normal(-4.0, 0.3, decisions))[:, None]
    quantile = student_t.ppf(LEVELS, DEGREES)
    density = student_t.pdf(quantile, DEGREES) / (1.0 - np.array(LEVELS))
    shortfall = density * (DEGREES + quantile**2) / (DEGREES - 1)
    outcome = np.maximum(0.0, scale[:, 0] * rng.standard_t(DEGREES, decisions))
    return Series(f"C{contract}", side, LEVELS, outcome, scale * quantile, scale * shortfall)


if __name__ == "__main__":
    main()
