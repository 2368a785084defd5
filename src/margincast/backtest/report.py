"""The backtest report: one HTML page on which a reader decides whether to trust a margin.

The verdict stands first, in words; every figure and table below it can be traced to the evaluation
and the forecasts. The page needs no other file, no script and no network.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from margincast.backtest import contracts
from margincast.backtest._contract_pages import contract_pages
from margincast.backtest._pictures import evidence_pictures, pictures_of
from margincast.backtest._sections import tables_of
from margincast.backtest.cells import Cell
from margincast.backtest.checklist import Requirement
from margincast.backtest.evaluation import Evaluation
from margincast.backtest.model_summary import ModelSummary
from margincast.backtest.replay import Replay
from margincast.backtest.scored import choose
from margincast.backtest.time_blocks import RUN_DAYS
from margincast.backtest.validation import Validation
from margincast.core.errors import InputError
from margincast.core.types import BoolArray
from margincast.data.quality import Finding, found

TEMPLATE = "report.html.j2"
UNKNOWN = "\N{EN DASH}"
MOST_CONTRACTS = 150
"""Contracts listed in a table; of more, those farthest from nominal coverage."""


@dataclass(frozen=True)
class ReportFacts:
    """What the report says beside the figures.

    Attributes:
        job: name of the training job.
        description: what the job is, in one line.
        horizon_minutes: liquidation horizon.
        test_period: first instant and exclusive end of the test period, UTC.
        passed: the gate's verdict; None if no gate was asked.
        checks: the gate's checks as records (``GateVerdict.to_json()["checks"]``): name, observed
            (None where it cannot tell), allowed, passed, reason.
        findings: irregularities of the input data.
        digests: what the figures rest on, by name: spec, feature set, data, versions.
        notes: plain sentences on what the figures can and cannot show.
        overview: file name of the page over all horizons; empty where there is one horizon.
        validation: evidence on the model on trial; None where it was not asked for.
        checklist: what the rules ask, beside what was measured.
    """

    job: str
    description: str
    horizon_minutes: float
    test_period: tuple[datetime, datetime]
    passed: bool | None = None
    checks: Sequence[Mapping[str, Any]] = ()
    findings: tuple[Finding, ...] = ()
    digests: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()
    overview: str = ""
    validation: Validation | None = None
    checklist: tuple[Requirement, ...] = ()


def write_report(path: Path, evaluation: Evaluation, replay: Replay, facts: ReportFacts) -> None:
    """Write the report as one HTML file, whole or not at all.

    Args:
        path: file to write; missing folders are made, an existing file is replaced.
        evaluation: figures of the replay.
        replay: forecasts and outcomes, for the plots over time.
        facts: the rest of what the page says.

    Raises:
        InputError: the replay is not the one that was evaluated, or lacks the model on trial.
    """
    write_page(path, render_report(evaluation, replay, facts))


def write_page(path: Path, page: str) -> None:
    """Write a page, whole or not at all; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def render_report(evaluation: Evaluation, replay: Replay, facts: ReportFacts) -> str:
    """Return the report's HTML; the same input gives the same text.

    Raises:
        InputError: see :func:`write_report`.
    """
    scored = _scored(evaluation, replay)
    ranked = sorted(evaluation.models, key=lambda summary: summary.pinball_ratio)
    levels = sorted({cell.level for cell in evaluation.cells})
    sides = sorted({cell.side for cell in evaluation.cells if cell.side != "both"})
    findings = found(facts.findings)
    return render(
        TEMPLATE,
        facts=facts,
        checks=list(facts.checks),
        digests=dict(facts.digests or {}),
        subject=evaluation.subject,
        evaluation=evaluation,
        levels=levels,
        sides=sides,
        ranked=ranked,
        headline=headline(evaluation),
        refits=[fold.start for fold in replay.folds],
        contract_count=evaluation.contracts["symbol"].nunique(),
        pictures=pictures_of(evaluation, replay, scored, levels[0]),
        evidence=[] if facts.validation is None else tables_of(facts.validation, facts.checklist),
        contract_pages=(
            [] if facts.validation is None else contract_pages(evaluation, facts.validation)
        ),
        evidence_pictures=[] if facts.validation is None else evidence_pictures(facts.validation),
        group_tables=_group_tables(evaluation),
        band=contracts.BAND,
        new_listing_days=contracts.NEW_LISTING_DAYS,
        run_days=RUN_DAYS,
        contract_tables=[_contract_table(evaluation, level) for level in levels],
        findings=_grouped(findings),
        quiet_checks=len(facts.findings) - len(findings),
    )


def headline(evaluation: Evaluation) -> str:
    """Say in words how the model on trial did at the lowest level and against the reference."""
    level = min(cell.level for cell in evaluation.cells)
    subject = evaluation.subject
    cell = evaluation.cell(subject, "both", level)
    summary = _summary(evaluation, subject)
    ranked = sorted(evaluation.models, key=lambda model: model.pinball_ratio)
    sentence = (
        f"At level {level:g} the adverse excursion went beyond the {subject} forecast "
        f"{cell.exceedance_ratio:.2f} times as often as promised ({_in_words(cell)}), with a mean "
        f"forecast of {100 * cell.mean_forecast:.2f} % of the decision price."
    )
    if evaluation.reference == subject:
        return sentence
    change = 100 * (summary.pinball_ratio - 1)
    return (
        f"{sentence} Its pinball loss is {abs(change):.1f} % {'below' if change < 0 else 'above'} "
        f"that of {evaluation.reference}, number {ranked.index(summary) + 1} of "
        f"{len(ranked)} models."
    )


def _in_words(cell: Cell) -> str:
    low, high = cell.exceedance_ratio_low, cell.exceedance_ratio_high
    if math.isnan(low) or math.isnan(high):
        return "the test period is too short for an interval"
    interval = f"95 % interval {low:.2f} to {high:.2f}"
    if low > 1:
        return f"{interval}: too often, the forecast is too low"
    if high < 1:
        return f"{interval}: too seldom, the forecast is higher than the level asks"
    return f"{interval}, which contains 1"


def _summary(evaluation: Evaluation, model: str) -> ModelSummary:
    return next(summary for summary in evaluation.models if summary.model == model)


def _scored(evaluation: Evaluation, replay: Replay) -> BoolArray:
    """Return the decisions the evaluation rests on: outcome known, every model with a forecast."""
    for name in (evaluation.subject, evaluation.reference):
        if name not in replay.forecasts:
            raise InputError(
                f"the replay holds no forecasts of {name}, only of "
                f"{', '.join(sorted(replay.forecasts))}; replay {name} as well"
            )
    scored = choose(replay).scored
    if int(scored.sum()) != evaluation.scored:
        raise InputError(
            f"the replay has {int(scored.sum())} decisions that can be scored, the evaluation "
            f"scored {evaluation.scored}; give the replay that was evaluated"
        )
    return scored


def _group_tables(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return what the tables by year and by listing have in common: title and columns."""
    level = min(cell.level for cell in evaluation.cells)
    tables = []
    for kind, title in (("year", "By calendar year"), ("listing", "New listings")):
        names = list(dict.fromkeys(g.name for g in evaluation.groups if g.kind == kind))
        columns = [evaluation.group(evaluation.reference, name, level) for name in names]
        tables.append({"kind": kind, "title": title, "columns": columns})
    return tables


def _contract_table(evaluation: Evaluation, level: float) -> dict[str, Any]:
    """Gather its figures per contract at one level, with the pinball ratio to the reference."""
    table = evaluation.contracts[evaluation.contracts["level"] == level]
    keys = ["symbol", "side"]
    own = table[table["model"] == evaluation.subject].set_index(keys)
    other = table[table["model"] == evaluation.reference].set_index(keys)
    own = own.assign(
        expected=own["decisions"] * (1 - level),
        pinball_ratio=own["pinball"] / other["pinball"].reindex(own.index),
    )
    distance = (own["exceedance_ratio"] - 1).abs().groupby(level="symbol").max()
    chosen = sorted(distance.nlargest(MOST_CONTRACTS).index)
    rows: dict[str, dict[str, Any]] = {symbol: {} for symbol in chosen}
    for row in own.reset_index().to_dict("records"):
        if row["symbol"] in rows:
            rows[row["symbol"]][row["side"]] = row
    return {"level": level, "contracts": len(distance), "rows": rows}


def _grouped(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Join the findings of one kind over contracts, most rows first."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.table, finding.what, finding.action), []).append(finding)
    rows = [
        {
            "table": table,
            "what": what,
            "action": action,
            "contracts": len({finding.symbol for finding in members}),
            "most": members[0].symbol,
            "most_count": members[0].count,
            "count": sum(finding.count for finding in members),
            "total": sum(finding.total for finding in members),
            "first": min((f.first for f in members if f.first is not None), default=None),
        }
        for (table, what, action), members in groups.items()
    ]
    return sorted(rows, key=lambda row: -int(str(row["count"])))


def render(template: str, **values: object) -> str:
    """Fill a template of this room in; everything is escaped, numbers by the filters below."""
    text = resources.files("margincast.backtest").joinpath(template).read_text("utf-8")
    return _environment().from_string(text).render(**values)


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        number=lambda value, digits=3: _known(value, f".{digits}f"),
        error=_error,
        count=lambda value: _known(value, ",.0f"),
        percent=lambda value, digits=2: _known(value, f".{digits}f", 100.0, " %"),
        bps=lambda value, digits=2: _known(value, f".{digits}f", 10_000.0),
        general=lambda value: _known(value, ".4g"),
        p_value=lambda value: (
            "< 0.001" if value is not None and value < 0.001 else _known(value, ".3f")
        ),
        instant=lambda value: UNKNOWN if value is None else f"{value:%Y-%m-%d %H:%M}",
        duration=_duration,
    )
    return environment


def _known(value: float | None, form: str, factor: float = 1.0, unit: str = "") -> str:
    """Write a number, or the sign for "not known"."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{format(factor * value, form)}{unit}"


def _error(value: float) -> str:
    """Write a standard error after its figure; nothing where it is not known."""
    return "" if math.isnan(value) else f"\N{PLUS-MINUS SIGN} {value:.3f}"


def _duration(minutes: float) -> str:
    for length, unit in ((1440, "d"), (60, "h")):
        if minutes >= length and minutes % length == 0:
            return f"{minutes / length:g} {unit}"
    return f"{minutes:g} min"
