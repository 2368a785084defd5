"""How long brackets take to be made from a margin curve, and how good they are.

Curves drawn at random: a base rate, and a cost that grows with notional as in books of various
depth, convex or not. Two ranges of notional: five decades (1-2-5 edges, of which all lists that
matter are compared) and seven. Beside the search stands one that keeps a single list an edge and
count, which is what dynamic programming does where nothing carries over from bracket to bracket,
and one that keeps ten times as many.

Run: ``OMP_NUM_THREADS=1 python -m benchmarks.tier_optimiser``
"""

import argparse
import time

import numpy as np

from margincast.margin import tiers
from margincast.margin.tiers import Fit, MarginCurve, best_tiers, notionals_usd
from margincast.specs.tiers import TierShape

BUDGET_SECONDS = 1.0
STEP = 0.0001
RANGES = {"five decades": (1e4, 1e9), "seven decades": (1e2, 1e9)}
WIDTHS = (1, tiers.KEPT, 10 * tiers.KEPT)


def curve_of(shape: TierShape, generator: np.random.Generator) -> MarginCurve:
    """Draw a curve."""
    notional = notionals_usd(shape)
    depth = generator.lognormal(14.0, 1.5)
    cost = np.minimum(0.3, 0.001 * (notional / depth) ** generator.uniform(0.2, 0.8))
    bumps = np.cumsum(generator.exponential(0.0002, len(notional))) * generator.integers(0, 2)
    return MarginCurve(notional, notional * (generator.uniform(0.003, 0.04) + cost + bumps))


def timed(curve: MarginCurve, shape: TierShape, width: int) -> tuple[Fit, float]:
    """Return the best brackets, and the processor time they took."""
    before, tiers.KEPT = tiers.KEPT, width
    started = time.process_time()
    fit = best_tiers(curve, shape, STEP)
    seconds = time.process_time() - started
    tiers.KEPT = before
    return fit, seconds


def main() -> None:
    """Print a line a range and width."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contracts", type=int, default=40)
    parser.add_argument("--brackets", type=int, default=10)
    chosen = parser.parse_args()
    for name, (smallest, largest) in RANGES.items():
        shape = TierShape(
            max_brackets=chosen.brackets,
            smallest_usd=smallest,
            largest_usd=largest,
            mantissas=(1.0, 2.0, 5.0),
            # all brackets are used: the longest search
            mean_excess=0.0,
            hysteresis=0.0,
        )
        generator = np.random.default_rng(1)
        curves = [curve_of(shape, generator) for _ in range(chosen.contracts)]
        found = {width: [timed(curve, shape, width) for curve in curves] for width in WIDTHS}
        best = np.array([fit.mean_excess for fit, _ in found[WIDTHS[-1]]])
        print(f"{name}: {len(shape.edges_usd())} edges, at most {chosen.brackets} brackets")
        for width, results in found.items():
            excess = np.array([fit.mean_excess for fit, _ in results])
            seconds = np.array([one for _, one in results])
            verdict = "kept" if seconds.max() <= BUDGET_SECONDS else "NOT kept"
            print(
                f"  {width:5d} lists: {np.median(seconds):.3f} s a contract, at most "
                f"{seconds.max():.3f} (budget {BUDGET_SECONDS:g} s: {verdict}); mean excess "
                f"{excess.mean():.4%}, at most {(excess - best).max():.4%} above the widest search"
            )


if __name__ == "__main__":
    main()
