"""What each stage of the model is worth: the same backtest with one stage taken away at a time.

- without scale: a constant scale, so that LightGBM sees raw outcomes and raw features;
- without conformal factors: forecasts as the final fit gives them, still tracked online;
- without a contract's own factor: everybody's factor and everybody's tracking only;
- without online calibration: factors of the last refit, whatever happened since;
- without tail: LightGBM at every level instead of a generalised Pareto tail.

Every variant is refitted and scored on the same decisions as ``margincast backtest``, relative to
EWMA-FHS. Choose on earlier years (``--start``, ``--end``), look at the test years once.

Run: ``python benchmarks/stage_ablation.py training/perp-8h.toml --data DIR``
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from ablation_job import add_job_arguments, job_of
from margincast.backtest.contracts import first_decisions
from margincast.backtest.evaluation import Evaluation, evaluate
from margincast.backtest.replay import Replay, replay
from margincast.core.threads import available_threads
from margincast.models.catalogue import OURS
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec, validate_spec
from margincast.specs.training import TrainingJob
from margincast.training.execution.local import LocalExecution
from margincast.training.market import read_market
from margincast.training.workload import Workload, workload_of

NEVER = "36500d"
"""A prior that outweighs any history."""
REFERENCE = "ewma_fhs"
VARIANTS: dict[str, dict[str, Any]] = {
    OURS: {},
    "without scale": {"scale.columns": [], "scale.seasonal_harmonics": []},
    "without conformal factors": {"calibration.prior": NEVER, "calibration.contract_prior": 1e9},
    "without a contract's own": {
        "calibration.contract_prior": 1e9,
        "calibration.online.contract_rate": 0.0,
    },
    "without online calibration": {
        "calibration.online.everybody_rate": 0.0,
        "calibration.online.contract_rate": 0.0,
    },
    "without tail": {"tail.from_level": 0.99999},
}


def main() -> None:
    """Run every variant and print the table."""
    parser = argparse.ArgumentParser(description="stages of the model, taken away in turn")
    add_job_arguments(parser, "out/stages")
    arguments = parser.parse_args()

    job = job_of(arguments)
    feature_set = load_spec(arguments.spec.resolve().parents[1] / job.features.set, FeatureSet)
    market = read_market(job.data, feature_set, arguments.data.resolve())
    workload = workload_of(job, feature_set, market)
    made = _replayed(workload, REFERENCE, arguments.out)
    for name, changes in VARIANTS.items():
        variant = replace(workload, job=_changed(job, changes))
        forecasts = _replayed(variant, OURS, arguments.out).forecasts[OURS]
        made = replace(made, forecasts=made.forecasts | {name: forecasts})
        print(f"{name}: done", flush=True)
    ((minutes, panel),) = workload.panels.items()
    evaluation = evaluate(
        made,
        REFERENCE,
        horizon=timedelta(minutes=minutes),
        spacing=workload.spacing,
        first_decisions=first_decisions(panel),
    )
    print_table(evaluation, job.target.levels)


def _changed(job: TrainingJob, changes: dict[str, Any]) -> TrainingJob:
    raw = job.model_dump(mode="json")
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = raw["model"]
        for section in sections:
            place = place[section]
        place[last] = value
    return validate_spec(raw, TrainingJob, "variant")


def _replayed(workload: Workload, model: str, store: Path) -> Replay:
    (made,) = replay(
        workload, [model], execution=LocalExecution(available_threads()), store=store
    ).values()
    return made


def print_table(evaluation: Evaluation, levels: Sequence[float]) -> None:
    """Print a Markdown table: a row a variant; both sides together."""
    print(f"{evaluation.scored:,} decisions, both sides")
    heads = [f"{level:g}: pinball ratio ± error, exceedances [95 %]" for level in levels]
    print("| stage | mean | " + " | ".join(heads) + " | mean forecast |")
    print("|---|" + "---|" * (len(levels) + 2))
    for name in VARIANTS:
        cells = [evaluation.cell(name, "both", level) for level in levels]
        figures = [
            f"{cell.pinball_ratio:.3f} ± {cell.pinball_ratio_error:.3f}, "
            f"{cell.exceedance_ratio:.2f} [{cell.exceedance_ratio_low:.2f}, "
            f"{cell.exceedance_ratio_high:.2f}]"
            for cell in cells
        ]
        mean = sum(cell.pinball_ratio for cell in cells) / len(cells)
        print(
            f"| {name} | {mean:.3f} | " + " | ".join(figures) + f" | {cells[0].mean_forecast:.2%} |"
        )


if __name__ == "__main__":
    main()
