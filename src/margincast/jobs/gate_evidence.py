"""From a backtest's figures to what the gate is shown, and the champion it must not fall behind."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from margincast.backtest.battery import verdicts_by_test
from margincast.backtest.daily_comparison import compare_daily
from margincast.backtest.daily_losses import FILE, DailyLosses, read_daily_losses
from margincast.backtest.evaluation import Evaluation
from margincast.backtest.replay import Replay
from margincast.backtest.validation import Validation
from margincast.core.errors import InputError, MargincastError
from margincast.data.quality import found
from margincast.models.catalogue import OURS
from margincast.models.protocol import Panel
from margincast.serving.evidence import (
    AgainstChampion,
    DataFigures,
    Evidence,
    PooledTest,
    TestCount,
    WindowLoss,
)
from margincast.serving.registry import Registry
from margincast.serving.standing import differences, standing_of
from margincast.specs.training import TrainingJob
from margincast.training.workload import Workload

POOLED_COVERAGE = "pooled coverage"


@dataclass(frozen=True)
class ChampionLosses:
    """The champion's losses by day, as its own run recorded them.

    Attributes:
        champion: which version; empty where there is none.
        losses: see :mod:`margincast.backtest.daily_losses`; None where there are none.
        reason: why there are none.
    """

    champion: str
    losses: pd.DataFrame | None
    reason: str


def champion_losses(job: TrainingJob, workspace: Path) -> ChampionLosses:
    """Fetch the losses of the champion that a job's model would compete with."""
    registry, name = Registry(job.tracking.uri, workspace), job.tracking.registered_model
    if not registry.has_store:
        return ChampionLosses("", None, f"there is no champion of {name} yet: no model at all")
    try:
        standing, aliases = standing_of(registry.ledger.read(), name), registry.aliases(name)
        champion = standing.champion
        doubt = differences(standing, aliases).get("champion")
        if doubt is not None:
            return ChampionLosses(name, None, f"who is champion is in doubt: {doubt}")
        if champion is None:
            return ChampionLosses("", None, f"there is no champion of {name} yet to compare with")
        which = f"{name}/{champion.version}"
        run_id = registry.version(name, champion.version).run_id
        with tempfile.TemporaryDirectory() as folder:
            losses = read_daily_losses(registry.fetch_file(run_id, FILE, Path(folder)))
    except MargincastError as error:
        return ChampionLosses(name, None, f"its losses cannot be read: {error}")
    return ChampionLosses(which, losses, "")


def against_champion(
    champion: ChampionLosses, replays: Mapping[int, Replay], significance: float
) -> dict[int, AgainstChampion]:
    """Compare our model with the champion at every horizon, all levels together.

    Args:
        champion: see :func:`champion_losses`.
        replays: of the candidate, per horizon in minutes.
        significance: of the bound on what cannot be excluded.
    """
    if champion.losses is None:
        return dict.fromkeys(replays, AgainstChampion(champion.champion, champion.reason))
    try:
        compared = compare_daily(DailyLosses(replays).of(OURS), champion.losses)
    except InputError as error:
        return dict.fromkeys(replays, AgainstChampion(champion.champion, str(error)))
    answers = {}
    for minutes in replays:
        try:
            difference = compared.difference(minutes)
        except InputError as error:
            answers[minutes] = AgainstChampion(champion.champion, str(error))
            continue
        answers[minutes] = AgainstChampion(
            champion.champion,
            p_worse=difference.p_worse,
            difference=difference.difference,
            highest_difference=difference.highest(1.0 - significance),
            days=difference.days,
        )
    return answers


def evidence_of(
    workload: Workload,
    replay: Replay,
    evaluation: Evaluation,
    validation: Validation,
    champion: AgainstChampion,
) -> Evidence:
    """Collect what the gate asks for about our model at one horizon."""
    levels = workload.job.target.levels
    ours = next(model for model in evaluation.models if model.model == OURS)
    pooled = {level: evaluation.cell(OURS, "both", level) for level in levels}
    return Evidence(
        pinball_ratios={evaluation.reference: ours.pinball_ratio},
        exceedance_ratios={level: cell.exceedance_ratio for level, cell in pooled.items()},
        expected_exceedances={
            level: cell.effective_decisions * (1 - level) for level, cell in pooled.items()
        },
        crossings=ours.crossings,
        tests=_counts(validation.tests),
        pooled=_pooled(validation.pooled),
        champion=champion,
        largest_one_day_rise=ours.largest_one_day_rise,
        peak_to_trough=ours.peak_to_trough,
        stress=_windows(validation),
        data=DataFigures(
            without_forecast=_share(
                evaluation.without_forecast[OURS], int(replay.panel.labelled.sum())
            ),
            without_outcome=_share(int((~replay.panel.labelled).sum()), len(replay.panel)),
            missing_decisions=missing_decisions(replay.panel, workload.spacing),
            faults=sum(one.severity == "fault" for one in found(workload.findings)),
            warnings=sum(one.severity == "warning" for one in found(workload.findings)),
        ),
    )


def missing_decisions(panel: Panel, spacing: timedelta) -> float:
    """Return the share of decisions that a contract has not, between its first and its last.

    Args:
        panel: decisions of any contracts.
        spacing: between a contract's decisions.
    """
    symbols, contract = np.unique(panel.frame["symbol"].to_numpy(dtype=str), return_inverse=True)
    positions = panel.decided.astype("datetime64[us]").astype(np.int64) // (
        spacing // timedelta(microseconds=1)
    )
    first = np.full(len(symbols), np.iinfo(np.int64).max)
    last = np.full(len(symbols), np.iinfo(np.int64).min)
    np.minimum.at(first, contract, positions)
    np.maximum.at(last, contract, positions)
    return 1.0 - len(panel) / int((last - first + 1).sum())


def _counts(tests: pd.DataFrame) -> dict[tuple[str, float], TestCount]:
    return {
        (str(row["test"]), float(row["level"])): TestCount(
            int(row["series"]), int(row["failed"]), int(row["no_power"])
        )
        for row in verdicts_by_test(tests).to_dict("records")
    }


def _pooled(tests: pd.DataFrame) -> dict[float, PooledTest]:
    own = tests[(tests["model"] == OURS) & (tests["test"] == POOLED_COVERAGE)]
    return {
        float(row["level"]): PooledTest(str(row["verdict"]), float(row["p_value"]), row["reason"])
        for row in own.to_dict("records")
    }


def _windows(validation: Validation) -> tuple[WindowLoss, ...]:
    """Every known window, both margins brought to one mean over the test period."""
    table = validation.stress[validation.stress["equal_mean"]]
    losses = []
    for window, rows in table.groupby("window", sort=False):
        decisions = dict(zip(rows["model"], rows["decisions"], strict=True))
        lost = dict(zip(rows["model"], rows["mean_shortfall"], strict=True))
        ratio = _ratio(float(lost[validation.subject]), float(lost[validation.reference]))
        losses.append(WindowLoss(str(window), int(decisions[validation.subject]), ratio))
    return tuple(losses)


def _ratio(own: float, other: float) -> float:
    if own == other == 0.0:
        return 1.0
    return own / other if other != 0.0 else float("inf")


def _share(count: int, total: int) -> float:
    return count / total if total else float("nan")
