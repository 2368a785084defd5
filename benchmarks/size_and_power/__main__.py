"""Size and power of every backtest, on simulated margins whose truth is known.

Size is the share of true margins that a test rejects at 5 %, by its asymptotic and by its
Monte-Carlo p-value: it should be 5 %. Power is the share of wrong ones: exceeded 1.5 and 2 times
as often as promised; as often as promised but in clusters, an exceedance followed by another with
probability 0.2; as often as promised but 1.5 times as far ("deeper", for tests that see how far).

Run, in the checkout's folder: ``python -m benchmarks.size_and_power`` (seven to ten minutes on
two cores; ``--quick`` for a tenth of the replications, ``--test kupiec`` for one test). Standard
errors are printed beside the tables: 0.7 points for the size of most tests by default. Tests of one
sample size and level see the same draws, so that their errors go together.
"""

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.size_and_power.catalogue import TESTS
from benchmarks.size_and_power.report import largest_errors, outside, power_table, size_table
from benchmarks.size_and_power.study import (
    LEVELS,
    POWER_EFFORT,
    SIZE,
    SIZES,
    WRONG,
    Batch,
    Rejections,
    run,
    summarise,
)

from margincast.core.threads import available_threads

REPLICATIONS = 1000
BATCH = 100
"""True margins of a batch; every batch has simulations of its own."""


def main() -> None:
    """Run the study and print its tables."""
    parser = argparse.ArgumentParser(description="size and power of the backtests")
    parser.add_argument(
        "--replications",
        type=int,
        default=REPLICATIONS,
        help=f"true margins of each sample size and level ({REPLICATIONS}, in batches of {BATCH}); "
        f"wrong ones get {POWER_EFFORT:g} of it, slow tests less",
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the replications")
    parser.add_argument(
        "--test", nargs="+", choices=TESTS, default=list(TESTS), metavar="NAME", help="which tests"
    )
    parser.add_argument(
        "--workers", type=int, default=available_threads(), help="batches run at once"
    )
    parser.add_argument("--out", type=Path, help="folder for the figures as JSON")
    arguments = parser.parse_args()

    replications = max(BATCH, arguments.replications // (10 if arguments.quick else 1))
    wanted = [(size, level) for size in reversed(SIZES) for level in LEVELS]
    batches = [
        Batch(size, level, BATCH, seed, tuple(arguments.test))
        for size, level in wanted
        for seed in range(1, replications // BATCH + 1)
    ]
    # one thread a batch: set before the workers import what reads it
    os.environ.update({"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"})
    started = time.monotonic()
    counts: list[Rejections] = []
    with ProcessPoolExecutor(
        arguments.workers, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        running = {pool.submit(run, batch): batch for batch in batches}
        for done in as_completed(running):
            counts += done.result()
            finished = running[done]
            print(
                f"{time.monotonic() - started:5.0f} s  T = {finished.sample_size}, "
                f"{finished.level:g}: batch {finished.seed} done",
                flush=True,
            )
    cells = sorted(
        summarise(counts), key=lambda cell: (list(TESTS).index(cell.test), cell.sample_size)
    )
    print(
        f"\nSize: per cent of {len(batches) // len(wanted) * BATCH} true margins rejected at 5 %, "
        f"asymptotic / Monte Carlo, by level and T ({largest_errors(cells, [SIZE])})\n"
    )
    print(size_table(cells))
    far = outside(cells, 0.01)
    print("\nBeyond 5 ± 1 % by more than two standard errors, by the p-value that decides:")
    print("\n".join(f"- {line}" for line in far) if far else "- none")
    for truth in WRONG:
        print(f"\nPower: {truth} ({largest_errors(cells, [truth])})\n")
        print(power_table(cells, truth))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / "size_and_power.json"
        record = {"cells": [cell.record() for cell in cells]}
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"\nfigures written to {path}")


if __name__ == "__main__":
    main()
