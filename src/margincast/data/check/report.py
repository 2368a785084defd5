"""The quality report: one HTML page and one JSON file that say what a store holds and lacks."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from margincast.data.check import _plots
from margincast.data.check.coverage import present_share
from margincast.data.check.finding import CheckFinding
from margincast.data.check.holes import seconds_text
from margincast.data.check.summary import ContractSummary, behind_text, share_text, summaries
from margincast.data.check.survey import Survey, TableSurvey, whole_span
from margincast.data.quality import SEVERITIES

TEMPLATE = "report.html.j2"
UNKNOWN = "\N{EN DASH}"

MOST_PICTURES = 12
"""Contracts drawn one by one, of each kind: the most severe findings first."""

_STILL = ("stale", "constant price")
"""Words of the findings, besides those of wrong moves, that a curve of prices shows."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page, embedded as a data address."""

    title: str
    caption: str
    alternative: str
    source: str


def write_json(path: Path, store: Path, survey: Survey) -> None:
    """Write everything that was found and what is there, as JSON."""
    record = {
        "store": str(store),
        "sources": survey.sources,
        "findings": [finding.as_record() for finding in survey.findings],
        "tables": [
            _table_record(one, line)
            for one, line in zip(survey.tables, summaries(survey), strict=True)
        ],
    }
    _write(path, json.dumps(record, indent=1) + "\n")


def write_html(path: Path, store: Path, survey: Survey) -> None:
    """Write the page; it needs no other file, no script and no network."""
    _write(path, render(store, survey))


def render(store: Path, survey: Survey) -> str:
    """Return the page's HTML; the same survey gives the same text."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(count=lambda value: f"{value:,}", instant=_instant, share=share_text)
    numbers = Counter(finding.severity for finding in survey.findings)
    template = resources.files("margincast.data.check").joinpath(TEMPLATE).read_text("utf-8")
    return environment.from_string(template).render(
        store=store,
        sources=survey.sources,
        tables=[_shown(one) for one in summaries(survey)],
        rows=sum(one.table.rows for one in survey.tables),
        span=whole_span(survey) if survey.tables else None,
        severities=SEVERITIES,
        numbers={severity: numbers[severity] for severity in SEVERITIES},
        findings=survey.findings,
        pictures=_pictures(survey),
    )


def _pictures(survey: Survey) -> list[Picture]:
    pictures = []
    if survey.tables:
        pictures.append(
            _picture(
                "Coverage",
                "Each row a contract's table, each column a day. Where no number of rows is "
                "expected the colour says whether there was any; white: before or after.",
                "Heat map of coverage by contract and day; the table at the end has the shares.",
                lambda: _plots.draw_calendar(survey.tables),
            )
        )
    gapped = [one for one in survey.tables if one.coverage.gaps]
    if gapped:
        pictures.append(
            _picture(
                "Gaps",
                "Where rows are missing; the larger the mark, the longer the gap.",
                "Marks of gaps over time, a row a contract; the findings list the longest.",
                lambda: _plots.draw_gaps(gapped),
            )
        )
    pictures += [
        _picture(
            f"Book: {one.table.venue} {one.table.symbol}",
            "By hour: share of locked snapshots, mean spread, and mean depth of all levels of "
            "both sides.",
            "Lines of locked share, spread and depth over time.",
            partial(_plots.draw_books, one),
        )
        for one in [one for one in survey.tables if one.books is not None][:MOST_PICTURES]
    ]
    pictures += [
        _picture(
            f"Prices: {one.table.name}",
            "Marks are examples of "
            + "; ".join(finding.what for finding in flagged)
            + ", drawn from the lowest to the highest price of the hour. Grey: stale. The line "
            "breaks where hours are missing.",
            "Line of the price over time with marks at what was flagged.",
            partial(_plots.draw_prices, one, flagged),
        )
        for one, flagged in _flagged_prices(survey)
    ]
    return pictures


def _flagged_prices(survey: Survey) -> list[tuple[TableSurvey, list[CheckFinding]]]:
    by_table = {
        (one.table.table, one.table.venue, one.table.symbol): one
        for one in survey.tables
        if one.hourly
    }
    flagged: dict[tuple[str, str, str], list[CheckFinding]] = {}
    for finding in survey.findings:
        key = (finding.table, finding.venue, finding.symbol)
        shown = finding.worst_move is not None or any(word in finding.kind for word in _STILL)
        if finding.severity != "info" and shown and key in by_table:
            flagged.setdefault(key, []).append(finding)
    return [(by_table[key], found) for key, found in list(flagged.items())[:MOST_PICTURES]]


def _picture(title: str, caption: str, alternative: str, draw: Callable[[], Figure]) -> Picture:
    with mpl.rc_context(_plots.STYLE):
        return Picture(title, caption, alternative, _plots.to_data_address(draw()))


def _shown(one: ContractSummary) -> Mapping[str, Any]:
    length = UNKNOWN if one.step is None else seconds_text(one.step)
    return {
        "table": one.table,
        "venue": one.venue,
        "symbol": one.symbol,
        "rows": one.rows,
        "first": one.first,
        "newest": one.newest,
        "behind": behind_text(one),
        "step": length if one.step is None or one.step_is_regular else f"about {length}",
        "present": share_text(one.present_share) or UNKNOWN,
        "locked": share_text(one.locked_share) or UNKNOWN,
        "gaps": one.gaps,
        "longest": UNKNOWN if one.longest_gap is None else seconds_text(one.longest_gap),
        "stale_since": one.stale_since,
    }


def _table_record(one: TableSurvey, line: ContractSummary) -> dict[str, Any]:
    table, coverage = one.table, one.coverage
    longest, since = line.longest_gap, line.stale_since
    record: dict[str, Any] = {
        "table": table.table,
        "venue": table.venue,
        "symbol": table.symbol,
        "rows": table.rows,
        "first": table.first.isoformat(),
        "last": table.last.isoformat(),
        "behind_seconds": line.behind.total_seconds(),
        "locked_share": _rounded(line.locked_share),
        "longest_gap_seconds": longest.total_seconds() if longest is not None else None,
        "stale_since": since.isoformat() if since is not None else None,
        "step_seconds": coverage.step.length.total_seconds() if coverage.step else None,
        "step_is_regular": coverage.step.regular if coverage.step else None,
        "present_share": _rounded(present_share(coverage)),
        "gaps": [[start.isoformat(), length.total_seconds()] for start, length in coverage.gaps],
        "days": {date.isoformat(): [day.rows, day.expected] for date, day in coverage.days.items()},
    }
    if one.books is not None:
        record["books_by_hour"] = [
            {"hour": row["hour"].isoformat()}
            | {key: _rounded(value) for key, value in row.items() if key != "hour"}
            for row in one.books.iter_rows(named=True)
        ]
    return record


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _instant(value: datetime | None) -> str:
    return UNKNOWN if value is None else f"{value:%Y-%m-%d %H:%M:%S}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
