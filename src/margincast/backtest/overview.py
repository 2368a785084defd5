"""The page before the reports of several horizons: where a model's margin holds, and where not.

It states the verdict over all horizons and puts the models side by side; every horizon's own page
(:mod:`margincast.backtest.report`) has the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from margincast.backtest.evaluation import Evaluation
from margincast.backtest.report import headline, render, write_page

TEMPLATE = "overview.html.j2"


@dataclass(frozen=True)
class OverviewFacts:
    """What the page says beside the figures.

    Attributes:
        job: name of the training job.
        description: what the job is, in one line.
        test_period: first instant and exclusive end of the test period, UTC.
        passed: the gate's verdict over all horizons.
        checks: the gate's checks as records; see :class:`margincast.backtest.report.ReportFacts`.
        monotone: whether outcomes cannot shrink with the horizon, so that crossings are counted.
        crossings: per model, forecasts below that of a shorter horizon.
        pages: per horizon in minutes, the file name of its report beside this page.
    """

    job: str
    description: str
    test_period: tuple[datetime, datetime]
    passed: bool
    checks: Sequence[Mapping[str, Any]]
    monotone: bool
    crossings: Mapping[str, int]
    pages: Mapping[int, str]


def write_overview(path: Path, evaluations: Mapping[int, Evaluation], facts: OverviewFacts) -> None:
    """Write the page as one HTML file, whole or not at all.

    Args:
        path: file to write; missing folders are made, an existing file is replaced.
        evaluations: figures of the same models by horizon in minutes.
        facts: the rest of what the page says.
    """
    first = next(iter(evaluations.values()))
    level = min(cell.level for cell in first.cells)
    rows = []
    for model in (summary.model for summary in first.models):
        figures = [
            (
                next(summary for summary in evaluation.models if summary.model == model),
                evaluation.cell(model, "both", level),
            )
            for evaluation in evaluations.values()
        ]
        mean = fmean(summary.pinball_ratio for summary, _ in figures)
        row = {"model": model, "figures": figures, "crossings": facts.crossings[model]}
        rows.append((mean, row))
    page = render(
        TEMPLATE,
        facts=facts,
        subject=first.subject,
        reference=first.reference,
        level=level,
        horizons=[
            {"minutes": minutes, "page": facts.pages[minutes], "headline": headline(evaluation)}
            for minutes, evaluation in evaluations.items()
        ],
        rows=[row for _, row in sorted(rows, key=lambda pair: pair[0])],
    )
    write_page(path, page)
