"""How near the forecasts come to the best possible ones, on markets where these are known.

Walks margincast and two peers through simulated markets (``benchmarks/oracle/processes.py`` says
what each is made of), compares every forecast with the true conditional quantile, and triples the
volatility after the last refit to see how soon they find it. The bars: pinball loss at most 1.03,
1.05 and 1.10 times the oracle's at 0.99, 0.995 and 0.999; a threefold volatility found within 250
decisions. The forecaster is that of ``training/perp-1h.toml``, fitted on every decision: ten
contracts over a year and a half hold about as many as the real panel at the spec's stride.

Run, in the checkout's folder: ``python -m benchmarks.oracle_study`` (about ten minutes on two
cores; ``--quick`` for shorter markets and one seed, ``--process jumps`` for one of them).
"""

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from benchmarks.oracle.processes import PROCESSES
from benchmarks.oracle.report import recovery_table, score_table
from benchmarks.oracle.study import FULL, QUICK, Findings, study

from margincast.core.threads import available_threads
from margincast.models.catalogue import OURS


def main() -> None:
    """Study every process with every seed, and print the tables."""
    parser = argparse.ArgumentParser(description="forecasts beside the true quantile")
    parser.add_argument(
        "--process", nargs="+", choices=PROCESSES, default=list(PROCESSES), help="which markets"
    )
    parser.add_argument("--seeds", type=int, default=None, help="markets of each (2; quick: 1)")
    parser.add_argument("--quick", action="store_true", help="shorter markets, one refit")
    parser.add_argument(
        "--dissect", action="store_true", help="also ours with the true volatility as its scale"
    )
    parser.add_argument(
        "--workers", type=int, default=available_threads(), help="markets studied at once"
    )
    parser.add_argument("--out", type=Path, help="folder for the figures as JSON")
    arguments = parser.parse_args()

    length = QUICK if arguments.quick else FULL
    seeds = arguments.seeds or (1 if arguments.quick else 2)
    wanted = [(name, seed) for seed in range(1, seeds + 1) for name in arguments.process]
    print(
        f"{len(arguments.process)} processes x {seeds} seed(s): {length.days} days of ten "
        f"contracts, tested from day {length.test_day}, refitted every {length.refit_every}",
        flush=True,
    )
    # one thread a market: set before the workers import what reads it
    os.environ.update({"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"})
    started = time.monotonic()
    found: dict[tuple[str, int], Findings] = {}
    with ProcessPoolExecutor(
        arguments.workers, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        running = {
            pool.submit(study, name, seed, length, dissect=arguments.dissect, threads=1): (
                name,
                seed,
            )
            for name, seed in wanted
        }
        for done in as_completed(running):
            name, seed = running[done]
            found[name, seed] = done.result()
            ours = [s for s in found[name, seed].scores if s.model == OURS]
            ratios = ", ".join(f"{s.pinball_ratio:.3f} at {s.level:g}" for s in ours)
            print(
                f"{time.monotonic() - started:5.0f} s  {name} {seed}: pinball over the oracle's "
                f"{ratios}",
                flush=True,
            )
    in_order = [found[name, seed] for name, seed in sorted(wanted, key=_place)]
    scores = [score for findings in in_order for score in findings.scores]
    recoveries = [recovery for findings in in_order for recovery in findings.recoveries]
    print("\nPinball loss relative to the oracle (mean ± standard error over seeds)\n")
    print(score_table(scores))
    print(
        "\nThreefold volatility at 0.99, no refit: decisions until the median of forecast / true\n"
        "quantile is within 10 % and until exceedances are at most 1.5 times nominal (rolling\n"
        "day), and the median ratio before and after\n"
    )
    print(recovery_table(recoveries))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        record = {
            "length": asdict(length),
            "scores": [asdict(score) for score in scores],
            "recoveries": [asdict(recovery) for recovery in recoveries],
        }
        path = arguments.out / "oracle_study.json"
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"\nfigures written to {path}")


def _place(wanted: tuple[str, int]) -> tuple[int, int]:
    return list(PROCESSES).index(wanted[0]), wanted[1]


if __name__ == "__main__":
    main()
