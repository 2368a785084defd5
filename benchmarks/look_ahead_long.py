"""The look-ahead check at length: a hundred thousand other futures, every one compared bit by bit.

The test suite runs ten thousand cases of the same check (``tests/features/look_ahead.py``, which
says what a case is) with fixed seeds; this runs as many as you like, from a seed of its own. It
shows how far it is, stops at the first value that moves, and Ctrl-C keeps the count.

Run, in the checkout's folder: ``python -m benchmarks.look_ahead_long --cases 100000 --seed 1``
"""

import argparse
import sys
import time
from collections import Counter

from tests.features.look_ahead import Check, Outcome
from tests.features.look_ahead_rooms import rooms

SLICE = 10_000
"""Cases between two rounds through all rooms, so that one stopped early has seen them all."""


def main() -> int:
    """Run the check; the exit code is 1 where a value moved."""
    parser = argparse.ArgumentParser(description="other futures must leave the past as it was")
    parser.add_argument("--cases", type=int, default=100_000, help="cases to compare")
    parser.add_argument("--seed", type=int, default=1, help="of the first market")
    arguments = parser.parse_args()

    parts, check = rooms(), Check()
    counted: Counter[str] = Counter()
    failures: list[str] = []
    started = time.monotonic()
    try:
        for number, begin in enumerate(range(0, arguments.cases, SLICE)):
            outcome = Outcome()
            cases = min(SLICE, arguments.cases - begin)
            try:
                for so_far in check.run(parts, cases, arguments.seed + number):
                    outcome = so_far
                    _show(counted.total() + outcome.total, arguments.cases, started)
                    if outcome.failures:
                        break
            finally:
                counted += outcome.cases
                failures += outcome.failures
            if failures:
                break
    except KeyboardInterrupt:
        print("\nstopped", end="")
    print()
    for name, cases in counted.items():
        print(f"{cases:>9,}  {name}")
    print(f"{counted.total():>9,}  cases in {time.monotonic() - started:,.0f} s")
    print("\n".join(failures) or "no value moved")
    return 1 if failures else 0


def _show(done: int, of: int, started: float) -> None:
    speed = done / max(time.monotonic() - started, 1e-9)
    print(f"\r{done:,} of {of:,} cases, {speed:,.0f} a second", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
