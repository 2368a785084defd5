"""Everything that is held against one model before its margin may be published.

Responsible for gathering the evidence behind the verdict in one place, as tables that can be read
again: tests of every contract and of all together, what the sample could have shown, stress
windows at equal cost, how jumpy the margin is, and where its losses come from.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from margincast.backtest.battery import Series, run_battery, series_of, verdicts_by_test
from margincast.backtest.cells import SMALLEST_MARGIN
from margincast.backtest.checklist import Circumstances, Requirement, regulatory_checklist
from margincast.backtest.daily_margin import MEASURES, daily_measures, last_of_each_day, medians
from margincast.backtest.evaluation import Evaluation
from margincast.backtest.hypothetical import hypothetical_stress
from margincast.backtest.margin_metrics import (
    MarginSample,
    margin_figures,
    volatility_regimes,
)
from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.pooled_battery import run_pooled
from margincast.backtest.power import power_of
from margincast.backtest.procyclicality import responsiveness
from margincast.backtest.published_figures import PublishedFigures
from margincast.backtest.replay import Replay
from margincast.backtest.scored import Decisions, Scores, choose, score
from margincast.backtest.stress.windows import (
    KNOWN_WINDOWS,
    StressWindow,
    scales_to_one_mean,
    window_figures,
)
from margincast.backtest.superior_ability import superior_ability
from margincast.backtest.time_blocks import RUN_DAYS
from margincast.backtest.verdicts import USUAL, Criterion
from margincast.core.types import FloatArray
from margincast.scoring.decomposition import decompose_pinball

REGIME_WINDOW = timedelta(days=7)
"""Trailing span of the volatility that sorts decisions into calm and turbulent."""
REGIME_RETURNS = 20
"""Least number of returns in it; where decisions are far apart the span is longer."""
RESPONSE_DAYS = (1, 20)
RESPONSE_WINDOW_DAYS = 365
"""Spans and observation period that standard setters ask for; see
:func:`~margincast.backtest.procyclicality.responsiveness`."""
FIXED = "static"
"""Peer that stands for a fixed schedule in the stress windows, where it was run."""


@dataclass(frozen=True)
class Validation:
    """The evidence on one model at one horizon, as tables.

    Attributes:
        subject: the model on trial.
        reference: the model it is compared with.
        tests: of every contract and side; see :func:`~margincast.backtest.battery.run_battery`.
        pooled: over all contracts, for subject and reference (``model``); see
            :func:`~margincast.backtest.pooled_battery.run_pooled`.
        power: per level, what a median contract and what all together could have shown.
        stress: per window and model, margins as they are (``equal_mean`` false) and brought to one
            mean over the whole period (true).
        regimes: the subject's figures by side and volatility regime, per level.
        procyclicality: per model, medians over contracts and sides of the measures of a daily
            margin.
        scores: per model (subject and reference), side and level, the mean pinball loss and its
            parts.
        superior: per level, the p-value of "no model has a smaller loss than the subject", and
            the models found better.
        hypothetical: shocks, reverse stress, scaled history and a cascade, by name; see
            :func:`~margincast.backtest.hypothetical.hypothetical_stress`.
        published: the subject's published margin beside the base schedule and the forecast alone,
            by tier; empty without a policy. See
            :func:`~margincast.backtest.published_figures.published_figures`.
        published_contracts: the published margin by tier, contract and side.
    """

    subject: str
    reference: str
    tests: pd.DataFrame
    pooled: pd.DataFrame
    power: pd.DataFrame
    stress: pd.DataFrame
    regimes: pd.DataFrame
    procyclicality: pd.DataFrame
    scores: pd.DataFrame
    superior: pd.DataFrame
    hypothetical: dict[str, pd.DataFrame] = field(default_factory=dict)
    published: pd.DataFrame = field(default_factory=pd.DataFrame)
    published_contracts: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name."""
        named = {**vars(self), **self.hypothetical}
        return {
            name: value
            for name, value in named.items()
            if isinstance(value, pd.DataFrame) and len(value)
        }

    def with_published(self, figures: PublishedFigures) -> "Validation":
        """Add what the published margin was worth."""
        return replace(self, published=figures.by_margin, published_contracts=figures.by_contract)


def validate(
    replay: Replay,
    subject: str,
    reference: str,
    *,
    horizon: timedelta,
    criterion: Criterion = USUAL,
    monte_carlo: SimulatedExceedances | None = None,
    windows: Sequence[StressWindow] = KNOWN_WINDOWS,
    on_series: Callable[[Series], None] = lambda _series: None,
) -> Validation:
    """Gather the evidence on one model.

    Args:
        replay: forecasts and outcomes of one horizon.
        subject: model on trial, one of the replay's.
        reference: model it is compared with, one of the replay's.
        horizon: liquidation horizon.
        criterion: what fails, and what has too little power to pass.
        monte_carlo: simulated exceedances; without them p-values are asymptotic.
        windows: stress windows; those the data does not reach are reported as such.
        on_series: called when the tests of a contract and side are done.
    """
    scored = choose(replay).scored
    decisions = Decisions(replay, scored, horizon)
    of_model = {
        name: score(decisions, name, forecast.rows(scored))
        for name, forecast in replay.forecasts.items()
        if name in {subject, reference, FIXED}
    }
    own = of_model[subject]
    volatility = _trailing_volatility(replay, scored)
    losses, margins = _over_models(replay, decisions, scored, volatility)
    return Validation(
        subject=subject,
        reference=reference,
        tests=run_battery(
            list(series_of(decisions, own)),
            criterion,
            monte_carlo=monte_carlo,
            on_series=on_series,
        ),
        pooled=pd.concat(
            [
                run_pooled(decisions, of_model[name], criterion).assign(model=name)
                for name in dict.fromkeys((subject, reference))
            ],
            ignore_index=True,
        ),
        power=_power(decisions, own, criterion),
        stress=_stress(decisions, of_model, subject, windows),
        regimes=_regimes(decisions, own, volatility),
        procyclicality=margins,
        scores=_decomposed(decisions, [of_model[n] for n in dict.fromkeys((subject, reference))]),
        superior=_superior(losses, subject, decisions.levels, horizon),
        hypothetical=hypothetical_stress(
            decisions,
            of_model,
            replay.panel.frame["close"].to_numpy(np.float64)[scored],
            windows,
        ),
    )


def _over_models(
    replay: Replay,
    decisions: Decisions,
    scored: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    volatility: FloatArray,
) -> tuple[dict[float, pd.DataFrame], pd.DataFrame]:
    """Score models one after another; keep daily losses by level and how jumpy each is."""
    daily: dict[float, dict[str, FloatArray]] = {level: {} for level in decisions.levels}
    jumpy = []
    counts = np.bincount(decisions.day_of).astype(np.float64)
    for name, forecast in replay.forecasts.items():
        made = score(decisions, name, forecast.rows(scored))
        for column, level in enumerate(decisions.levels):
            sums = np.bincount(decisions.day_of, weights=made.losses[:, column].sum(axis=0))
            daily[level][name] = sums / counts
        jumpy.append({"model": name, **_jumpiness(decisions, made, volatility)})
    losses = {level: pd.DataFrame(columns) for level, columns in daily.items()}
    return losses, pd.DataFrame(jumpy)


def _jumpiness(decisions: Decisions, scores: Scores, volatility: FloatArray) -> dict[str, float]:
    """Medians over contracts and sides of the measures of a daily margin (each day's last)."""
    records = []
    for own in decisions.rows_of.values():
        decided = decisions.decided[own]
        known = np.where(volatility[own] > 0.0, volatility[own], np.nan)
        volatility_of_days = last_of_each_day(decided, known)
        forecasts = np.maximum(scores.forecasts[:, 0, own], SMALLEST_MARGIN)
        for margin in last_of_each_day(decided, forecasts):
            found = daily_measures(margin)
            if found is not None:
                records.append(found | _responses(margin, volatility_of_days))
    return medians(records, [*MEASURES, *(f"response_{days}_day" for days in RESPONSE_DAYS)])


def _responses(margin: FloatArray, volatility: FloatArray) -> dict[str, float]:
    """How the margin's largest rises stand to those of volatility, in the last year."""
    found = {}
    for days in RESPONSE_DAYS:
        window = min(RESPONSE_WINDOW_DAYS, len(margin))
        if window > days + 1 and np.isfinite(volatility).any():
            answer = responsiveness(margin, volatility, days, window)
            found[f"response_{days}_day"] = answer.ratio
    return found


def _power(decisions: Decisions, own: Scores, criterion: Criterion) -> pd.DataFrame:
    lengths = [len(rows) for rows in decisions.independent_of.values()]
    contract = int(np.median(lengths))
    rows = []
    for column, level in enumerate(decisions.levels):
        sums = decisions.blocks.sums(own.hits[:, column].sum(axis=0))
        worth = decisions.blocks.effective_decisions(sums, len(decisions.sides))
        if np.isnan(worth):
            sentence = "no exceedance at this level: what all are worth together is not known"
            rows.append(
                {"sample": "all together", "level": level, "sample_size": 0, "sentence": sentence}
            )
        whole = 0 if np.isnan(worth) else int(worth)
        for what, size in (("a median contract", contract), ("all together", whole)):
            if size < 1:
                continue
            found = power_of(size, level, criterion)
            rows.append({"sample": what, **asdict(found), "sentence": found.sentence(criterion)})
    return pd.DataFrame(rows)


def _stress(
    decisions: Decisions,
    of_model: dict[str, Scores],
    subject: str,
    windows: Sequence[StressWindow],
) -> pd.DataFrame:
    """Margins at the lowest level in every window, as they are and at the subject's mean."""
    outcome = decisions.outcomes.ravel()
    decided = np.tile(decisions.decided, len(decisions.sides))
    margins = {
        name: np.maximum(made.forecasts[:, 0].ravel(), SMALLEST_MARGIN)
        for name, made in of_model.items()
    }
    equal = scales_to_one_mean(margins, subject)
    parts = []
    for scales in (None, equal):
        found = window_figures(windows, decided, decisions.horizon, outcome, margins, scales=scales)
        parts.append(pd.DataFrame([asdict(one) for one in found]))
        parts[-1].insert(2, "equal_mean", scales is not None)
    return pd.concat(parts, ignore_index=True)


def _trailing_volatility(
    replay: Replay, scored: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
) -> FloatArray:
    """Standard deviation of the contract's log returns between decisions over the last days."""
    frame = replay.panel.frame[["symbol", "ts", "close"]].reset_index(drop=True)
    returns = np.log(frame["close"]).groupby(frame["symbol"], sort=False).diff()
    steps = frame.groupby("symbol", sort=False)["ts"].diff()
    spacing = cast("pd.Timedelta", steps.median())
    least = timedelta(0) if pd.isna(spacing) else 1.5 * REGIME_RETURNS * spacing.to_pytimedelta()
    window = pd.Timedelta(max(REGIME_WINDOW, least))
    by_contract = (
        frame.assign(returns=returns)
        .set_index("ts")
        .groupby("symbol", sort=False)["returns"]
        .rolling(window, min_periods=REGIME_RETURNS)
        .std()
    )
    # back to the order of the rows, which are sorted by time first
    keys = pd.MultiIndex.from_frame(frame[["symbol", "ts"]])
    return by_contract.reindex(keys).to_numpy(np.float64)[scored]


def _regimes(decisions: Decisions, own: Scores, volatility: FloatArray) -> pd.DataFrame:
    names = np.array(decisions.symbols)[decisions.contract_of]
    regime = volatility_regimes(volatility, names)
    sides = len(decisions.sides)
    parts = []
    for column, level in enumerate(decisions.levels):
        sample = MarginSample(
            decisions.outcomes.ravel(),
            own.forecasts[:, column].ravel(),
            np.tile(names, sides),
            np.repeat(decisions.sides, len(decisions)),
            regime=np.tile(regime, sides),
        )
        for figures in margin_figures(sample, ("side", "regime")):
            record = asdict(figures)
            group = record.pop("group")
            ratio = figures.exceedance_share / (1.0 - level)
            parts.append({"level": level, **group, "exceedance_ratio": ratio, **record})
    return pd.DataFrame(parts)


def _decomposed(decisions: Decisions, models: list[Scores]) -> pd.DataFrame:
    rows = np.concatenate(list(decisions.independent_of.values()))
    parts = []
    for made in models:
        for i, side in enumerate(decisions.sides):
            for column, level in enumerate(decisions.levels):
                found = decompose_pinball(
                    decisions.outcomes[i, rows], made.forecasts[i, column, rows], level
                )
                parts.append({"model": made.model, "side": side, "level": level, **asdict(found)})
    return pd.DataFrame(parts)


def _superior(
    losses: dict[float, pd.DataFrame], subject: str, levels: Sequence[float], horizon: timedelta
) -> pd.DataFrame:
    block = max(RUN_DAYS, math.ceil(horizon / timedelta(days=1)))
    parts = []
    for level in levels:
        daily = losses[level]
        if daily.shape[1] < 2 or len(daily) < 2 * block:
            continue
        found = superior_ability(daily, subject, block_length=block)
        parts.append({"level": level, **asdict(found)})
    return pd.DataFrame(parts)


def checklist_of(
    evaluation: Evaluation,
    found: Validation,
    horizon: timedelta,
    period: tuple[datetime, datetime],
    *,
    shortest_history: timedelta | None = None,
    buffer: float | None = None,
) -> tuple[Requirement, ...]:
    """Fill the regulatory checklist for the model on trial.

    Args:
        evaluation: pooled figures.
        found: evidence, for its stress windows.
        horizon: liquidation horizon.
        period: first moment and exclusive end of the test period.
        shortest_history: before the first forecast, where it is known.
        buffer: of the policy, a share of the margin, where there is one.
    """
    levels = sorted({cell.level for cell in evaluation.cells})
    held = found.stress[found.stress["decisions"] > 0]["window"].unique()
    return regulatory_checklist(
        Circumstances(
            cells=tuple(evaluation.cell(found.subject, "both", level) for level in levels),
            horizon=horizon,
            shortest_history=shortest_history,
            tested=period[1] - period[0],
            stress_windows=tuple(map(str, held)),
            buffer=buffer,
        )
    )


def write_validation(
    folder: Path, evaluation: Evaluation, found: Validation, checklist: Sequence[Requirement]
) -> None:
    """Write the evidence so that it can be read again: ``validation.json`` and Parquet tables.

    The record holds the summary, the checklist, and every table that is small; what is long
    (``tests``, ``contracts``) is in the Parquet files alone.

    Args:
        folder: where to; made if missing.
        evaluation: figures; its table of contracts is written too.
        found: the evidence.
        checklist: what the rules ask, beside what was measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = found.tables | {"contracts": evaluation.contracts}
    for name, table in tables.items():
        partial = folder / f".{name}.parquet.part"
        _storable(table).to_parquet(partial, index=False)
        partial.replace(folder / f"{name}.parquet")
    record = {
        "subject": found.subject,
        "reference": found.reference,
        "verdicts": verdicts_by_test(found.tests).to_dict("records"),
        "checklist": [asdict(one) for one in checklist],
        **{
            name: json.loads(_storable(table).to_json(orient="records"))
            for name, table in found.tables.items()
            if name != "tests"
        },
    }
    partial = folder / ".validation.json.part"
    partial.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(folder / "validation.json")


def _storable(table: pd.DataFrame) -> pd.DataFrame:
    """Write lists of names as text: a table's cells are numbers and words."""
    lists = [c for c in table if len(table) and isinstance(table[c].iloc[0], tuple)]
    return table.assign(**{str(c): table[c].map(", ".join) for c in lists})
