"""``margincast backtest``: walk-forward on held-out time, every model on the same decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from margincast.backtest.contracts import first_decisions
from margincast.backtest.evaluation import evaluate
from margincast.backtest.forecasts import write_forecasts
from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.published_figures import published_figures
from margincast.backtest.replay import Replay, replay, walk_forward_folds
from margincast.backtest.validation import Validation, validate
from margincast.core.errors import InputError
from margincast.core.time import format_duration, format_minutes
from margincast.data.quality import found
from margincast.jobs.backtest_record import Backtest, write_reports, write_summary
from margincast.jobs.by_hand import say_left_out
from margincast.jobs.console import output, progress, say
from margincast.jobs.gate_evidence import (
    ChampionLosses,
    against_champion,
    champion_losses,
    evidence_of,
)
from margincast.jobs.setting import Setting
from margincast.jobs.simulated_data import data_root
from margincast.jobs.tables import model_table, verdict_text
from margincast.margin.schedule import require_policy_fits, tiers_for
from margincast.models.catalogue import OURS
from margincast.models.horizons import horizon_crossings
from margincast.serving.gate import evaluate_gate, verdict_of_horizons
from margincast.specs.loading import find_workspace, load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy
from margincast.specs.training import TrainingJob
from margincast.training.splits import Fold
from margincast.training.workload import Workload, build_workload, describe

FOLDS = ".folds"


def backtest(
    spec: Path,
    data: Path | None,
    out: Path | None,
    overrides: Sequence[str],
    cache: str | None = None,
    *,
    policy: Path | None = None,
    cluster: str | None = None,
) -> Backtest:
    """Run the backtest of a training job and write forecasts, summary, evidence and report.

    With a margin policy, what it would have published is replayed and judged as well. Refits run on
    a Dask cluster where one is named.

    Raises:
        InputError: see the rooms it walks through.
    """
    job = load_spec(spec, TrainingJob, overrides)
    setting = Setting.of(spec, data, out, job.name, cache)
    replayed = None if policy is None else read_policy(policy, job)
    with setting.on(cluster) as placed:
        workload = prepare(job, placed)
        if replayed is not None:
            for symbol in workload.frame["symbol"].unique():
                tiers_for(replayed.schedule, str(symbol))
            period = job.backtest
            say_left_out(setting.workspace, replayed.policy, period.start, period.end)
        result = run_backtest(workload, placed, champion_losses(job, setting.workspace), replayed)
    print_result(result, job)
    output.print(f"report: {result.report}", soft_wrap=True)
    return result


def print_result(result: Backtest, job: TrainingJob) -> None:
    """Print a table of models a horizon, and the gate's verdict."""
    for minutes, evaluation in result.evaluations.items():
        of_horizon = f"{format_minutes(minutes)} horizon, " if len(result.evaluations) > 1 else ""
        output.print(model_table(evaluation, job.target.levels, of_horizon))
    if len(result.evaluations) > 1:
        crossed = [f"{name} {count:,}" for name, count in result.crossings.items() if count]
        output.print(f"crossings between horizons: {', '.join(crossed) or 'none'}", soft_wrap=True)
    output.print(verdict_text(result.verdict), soft_wrap=True)


def prepare(job: TrainingJob, setting: Setting) -> Workload:
    """Read data and build features and targets, saying what was found."""
    say(f"{job.name}: {job.description}")
    unknown = sorted(set(job.gate.levels) - set(job.target.levels))
    if unknown:
        say(
            f"the gate cannot pass: levels {unknown} of [gate] are not among target.levels "
            f"{list(job.target.levels)}"
        )
    root = data_root(setting, job.data)
    workload = build_workload(job, setting.workspace, root, setting.cache)
    say(describe(workload))
    setting.say_what_was_reused()
    for finding in found(workload.findings):
        if finding.severity == "warning" and finding.table == "features":
            say(f"  {finding.what}: {finding.count} of {finding.total} columns; {finding.action}")
        elif finding.table in {"bars", "book", "trades"}:
            say(
                f"  {finding.symbol}: {finding.count:,} of {finding.total:,} {finding.table} rows: "
                f"{finding.what}; {finding.action}"
            )
    _say_what_is_missing(workload)
    return workload


def _say_what_is_missing(workload: Workload) -> None:
    """Say where the data does not fill the test period."""
    period, target = workload.job.backtest, workload.job.target
    decided = workload.frame["ts"]
    slack = target.horizons[-1] + workload.spacing
    if decided.max() < period.end - slack:
        say(f"the test period ends {period.end:%F %H:%M}, the data {decided.max():%F %H:%M}")
    if decided.min() > period.start:
        say(f"the test period starts {period.start:%F %H:%M}, the data {decided.min():%F %H:%M}")


@dataclass(frozen=True)
class ReplayedPolicy:
    """A margin policy and the base schedule it multiplies."""

    policy: MarginPolicy
    schedule: BaseSchedule


def read_policy(path: Path, job: TrainingJob) -> ReplayedPolicy:
    """Read a policy whose published margin is to be replayed.

    Raises:
        InputError: the job does not forecast the policy's horizon and level.
    """
    policy = load_spec(path, MarginPolicy)
    schedule = load_spec(find_workspace(path) / policy.schedule.file, BaseSchedule)
    require_policy_fits(policy, schedule)
    wanted = policy.model
    if wanted.horizon not in job.target.horizons or wanted.level not in job.target.levels:
        raise InputError(
            f"policy {policy.name} margins level {wanted.level:g} over "
            f"{format_duration(wanted.horizon)}; job {job.name} forecasts "
            f"{', '.join(f'{level:g}' for level in job.target.levels)} over "
            f"{', '.join(map(format_duration, job.target.horizons))}"
        )
    return ReplayedPolicy(policy, schedule)


def run_backtest(
    workload: Workload,
    setting: Setting,
    champion: ChampionLosses,
    policy: ReplayedPolicy | None = None,
) -> Backtest:
    """Replay, score, judge and write; continues an interrupted run from its finished folds.

    Args:
        workload: data, features and outcomes of a job.
        setting: where it runs.
        champion: whom our model must not fall behind; asked for before the long work, so that a
            store that goes down meanwhile does not change the verdict.
        policy: replayed behind the forecasts, if given.
    """
    job = workload.job
    models = [OURS, *job.backtest.peers]
    horizons = list(workload.panels)
    folds = sum(len(walk_forward_folds(job, panel)) for panel in workload.panels.values())

    def count(name: str, minutes: int, fold: Fold) -> None:
        of_horizon = f"{format_minutes(minutes)}, " if len(horizons) > 1 else ""
        counter.advance(f"{name}, {of_horizon}refit {fold.start:%F %H:%M}")

    with progress("backtest", folds * len(models)) as counter:
        made = replay(
            workload,
            models,
            execution=setting.execution,
            store=setting.out / FOLDS,
            on_fold=count,
        )
    say("scoring")
    evaluations = {
        minutes: evaluate(
            made[minutes],
            job.gate.reference,
            horizon=timedelta(minutes=minutes),
            spacing=workload.spacing,
            first_decisions=first_decisions(panel),
        )
        for minutes, panel in workload.panels.items()
    }
    validations = _validations(workload, made, policy)
    beside = against_champion(champion, made, job.gate.champion.significance)
    verdicts = {
        minutes: evaluate_gate(
            job.gate,
            evidence_of(workload, made[minutes], evaluation, validations[minutes], beside[minutes]),
        )
        for minutes, evaluation in evaluations.items()
    }
    crossings = crossings_between_horizons(made)
    verdict = verdict_of_horizons(
        job.gate, verdicts, crossings[OURS] if job.target.monotone else None
    )
    write_forecasts(
        setting.out / "forecasts.parquet", made, version=f"{job.name}-{job.digest()[:8]}"
    )
    result = Backtest(
        made,
        evaluations,
        verdicts,
        verdict,
        crossings,
        validations,
        setting.out,
        None if policy is None else policy.policy.buffer.rate,
    )
    write_summary(workload, result)
    write_reports(workload, result)
    return result


def _validations(
    workload: Workload, made: Mapping[int, Replay], policy: ReplayedPolicy | None
) -> dict[int, Validation]:
    """Hold the evidence against our model at every horizon."""
    found = {}
    contracts = workload.frame["symbol"].nunique()
    with progress("tests", len(made) * contracts * len(workload.job.target.sides)) as counter:
        for minutes, replay in made.items():
            horizon = timedelta(minutes=minutes)
            found[minutes] = validate(
                replay,
                OURS,
                workload.job.gate.reference,
                horizon=horizon,
                monte_carlo=SimulatedExceedances(),
                on_series=lambda one: counter.advance(f"{one.symbol} {one.side}", quiet=True),
            )
            if policy is not None and policy.policy.model.horizon == horizon:
                figures = published_figures(
                    replay.panel,
                    replay.forecasts[OURS],
                    policy.schedule,
                    policy.policy,
                    spacing=workload.spacing,
                    history=workload.panels[minutes],
                )
                found[minutes] = found[minutes].with_published(figures)
    return found


def crossings_between_horizons(replays: Mapping[int, Replay]) -> dict[str, int]:
    """Count, by model, forecasts below that of a shorter horizon."""
    models = next(iter(replays.values())).forecasts
    return {
        name: horizon_crossings(
            {minutes: made.forecasts[name] for minutes, made in replays.items()}
        )
        for name in models
    }
