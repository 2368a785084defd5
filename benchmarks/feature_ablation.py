"""Which feature families earn their keep: the same backtest with more and more of them.

Families are added in turn: a contract's own bars and the clock, then the market, derivatives,
implied volatility, books and trades. Every step is fitted and scored on the same decisions as our
model in ``margincast backtest``; the figures are pinball loss and exceedances over nominal, against
EWMA-FHS and against the step before, with a block bootstrap over days (hours where the period is
short). The period is the spec's test period unless another is given: choose on earlier years, look
at the test years once.

Run: ``python benchmarks/feature_ablation.py training/perp-8h.toml --set-file benchmarks/ablation/
bars-1h.toml --data DIR --start 2021-07-01 --end 2022-12-31``
"""

import argparse
import math
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from ablation_job import add_job_arguments, job_of
from margincast.backtest.dependence import block_bootstrap_interval
from margincast.backtest.replay import Replay, replay
from margincast.core.threads import available_threads
from margincast.core.types import FloatArray
from margincast.models.catalogue import OURS
from margincast.scoring.coverage import exceedances
from margincast.scoring.pinball import pinball_loss
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec, validate_spec
from margincast.specs.training import TrainingJob
from margincast.training.execution.local import LocalExecution
from margincast.training.market import Market, read_market
from margincast.training.workload import Workload, workload_of

STEPS = {
    "own volatility, clock": ("bars", "calendar"),
    "+ market": ("market",),
    "+ derivatives": ("derivatives",),
    "+ implied volatility": ("implied_vol", "options"),
    "+ books and trades": ("book", "trades"),
}
FAMILIES = tuple(family for families in STEPS.values() for family in families)


@dataclass(frozen=True)
class _Step:
    name: str
    features: int
    forecasts: FloatArray


def main() -> None:
    """Run every step and print the table."""
    parser = argparse.ArgumentParser(description="families of features, added in turn")
    parser.add_argument("--set-file", type=Path, help="feature set; the spec's own if not given")
    add_job_arguments(parser, "out/ablation")
    arguments = parser.parse_args()

    job = job_of(arguments)
    workspace = arguments.spec.resolve().parents[1]
    full = load_spec(arguments.set_file or workspace / job.features.set, FeatureSet)
    market = read_market(job.data, full, arguments.data.resolve())
    steps: list[_Step] = []
    families: list[str] = []
    reference, made = None, None
    for name, added in STEPS.items():
        families += added
        if not any(getattr(full, family) for family in added):
            print(f"{name}: not in {full.name}")
            continue
        workload = _workload(job, full, market, families)
        made = _replayed(workload, [OURS], arguments.out)
        steps.append(_Step(name, len(workload.table.units), made.forecasts[OURS].quantiles))
        if reference is None:
            reference = _replayed(workload, ["ewma_fhs"], arguments.out)
        print(f"{name}: {len(workload.table.units)} features", flush=True)
    assert made is not None
    assert reference is not None
    _print_table(job, made, reference.forecasts["ewma_fhs"].quantiles, steps)


def _workload(job: TrainingJob, full: FeatureSet, market: Market, families: list[str]) -> Workload:
    """Keep the given families, and of the market those lines whose columns are built."""
    raw = full.model_dump(mode="json", exclude_defaults=True)
    kept = {key: value for key, value in raw.items() if key not in FAMILIES or key in families}
    feature_set = validate_spec(kept, FeatureSet, "ablation")
    if "market" in families:
        return workload_of(job, feature_set, market)
    scale = [
        name
        for name in job.model.scale.columns
        if not name.startswith(("market_median_", "leader_"))
    ]
    model = job.model.model_dump(mode="json")
    model["scale"]["columns"] = scale
    raw_job = job.model_dump(mode="json") | {"model": model}
    return workload_of(validate_spec(raw_job, TrainingJob, "ablation"), feature_set, market)


def _replayed(workload: Workload, models: list[str], store: Path) -> Replay:
    (made,) = replay(
        workload, models, execution=LocalExecution(available_threads()), store=store
    ).values()
    return made


def _print_table(job: TrainingJob, made: Replay, reference: FloatArray, steps: list[_Step]) -> None:
    panel = made.panel
    known = panel.labelled & np.isfinite(reference).all(axis=(1, 2))
    for step in steps:
        known &= np.isfinite(step.forecasts).all(axis=(1, 2))
    decided = panel.decided[known]
    long_period = decided.max() - decided.min() > np.timedelta64(30, "D")
    unit, length = ("D", timedelta(days=1)) if long_period else ("h", timedelta(hours=1))
    (horizon,) = job.target.horizons
    run_length = max(5 if long_period else 1, math.ceil(horizon / length))
    print(f"{known.sum():,} decisions x {len(job.target.sides)} sides")
    print("step | features | level | pinball over EWMA-FHS | over the step before | exceedances")
    outcomes = np.stack([panel.outcomes[side][known] for side in job.target.sides], axis=1)
    blocks = np.repeat(decided.astype(f"datetime64[{unit}]"), outcomes.shape[1])
    for j, level in enumerate(job.target.levels):
        base = pinball_loss(outcomes, reference[known, :, j], level).ravel()
        before: FloatArray | None = None
        for step in steps:
            forecast = step.forecasts[known, :, j]
            loss = pinball_loss(outcomes, forecast, level).ravel()
            exceeded = exceedances(outcomes, forecast).mean() / (1 - level)
            text = ""
            if before is not None:
                interval = block_bootstrap_interval(
                    loss,
                    before,
                    blocks=blocks,
                    generator=np.random.default_rng(1),
                    run_length=run_length,
                )
                text = f"{interval.estimate:.4f} [{interval.lower:.4f}, {interval.upper:.4f}]"
            print(
                f"{step.name} | {step.features} | {level:g} | {loss.sum() / base.sum():.4f} | "
                f"{text} | {exceeded:.2f}"
            )
            before = loss


if __name__ == "__main__":
    main()
