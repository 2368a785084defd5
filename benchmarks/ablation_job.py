"""The job an ablation runs: a training spec, over its test period or another one."""

import argparse
from pathlib import Path

from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob


def add_job_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Add what every ablation asks for; finished folds go to ``out``."""
    parser.add_argument("spec", type=Path, help="training spec")
    parser.add_argument("--data", type=Path, required=True, help="folder of market data")
    parser.add_argument("--start", help="start of the test period")
    parser.add_argument("--end", help="end of the test period")
    parser.add_argument("--set", action="append", default=[], help="overrides of the training spec")
    parser.add_argument("--out", type=Path, default=Path(out), help="finished folds")


def job_of(arguments: argparse.Namespace) -> TrainingJob:
    """Return the job that the arguments name."""
    overrides = [*arguments.set]
    overrides += [f"backtest.start={arguments.start}"] if arguments.start else []
    overrides += [f"backtest.end={arguments.end}"] if arguments.end else []
    return load_spec(arguments.spec, TrainingJob, overrides)
