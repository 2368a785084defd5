"""``margincast data check``: what a store's data is worth, before a margin is computed from it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from margincast.core.errors import InputError
from margincast.data.check.finding import CheckFinding
from margincast.data.check.holes import seconds_text
from margincast.data.check.report import write_html, write_json
from margincast.data.check.summary import behind_text, share_text, summaries
from margincast.data.check.survey import Survey, survey_store
from margincast.data.quality import SEVERITIES
from margincast.data.store import MANIFEST, Store
from margincast.jobs.console import output, progress, say

DEFAULT_OUT = Path("out") / "check"
MOST_ROWS = 60
"""Lines of a table in the terminal; all of it stands in check.json."""

MOST_NAMES = 8
"""Contracts named in a line that several share."""

FAILING = ("fault", "warning")
"""Severities at which a check may be told to fail."""


@dataclass(frozen=True)
class CheckReport:
    """What was found in a store, and where it is written.

    Attributes:
        survey: what was found.
        json: the file with all of it.
        html: the page.
        fail_on: least severity at which the store does not pass; None: it always does.
    """

    survey: Survey
    json: Path
    html: Path
    fail_on: str | None = None

    @property
    def findings(self) -> tuple[CheckFinding, ...]:
        """What was found, those that harm most first."""
        return self.survey.findings

    @property
    def passed(self) -> bool:
        """Whether nothing was found at ``fail_on`` or above."""
        if self.fail_on is None:
            return True
        failing = FAILING[: FAILING.index(self.fail_on) + 1]
        return not any(finding.severity in failing for finding in self.findings)


def run(store: Path, out: Path | None = None, fail_on: str | None = None) -> CheckReport:
    """Check a store and write ``check.json`` and ``check.html``; the store itself is only read.

    Args:
        store: folder that ``margincast data ingest`` wrote.
        out: folder to write to; ``out/check`` when None.
        fail_on: least severity, ``fault`` or ``warning``, at which the report does not pass; None
            for one that passes whatever is found.

    Returns:
        The report; a table of it is printed as well.

    Raises:
        InputError: the folder is no store or holds nothing, something cannot be read, or
            ``fail_on`` is no severity.
    """
    if fail_on is not None and fail_on not in FAILING:
        raise InputError(f"a check cannot fail on '{fail_on}'; allowed: {', '.join(FAILING)}")
    found = _opened(store)
    folder = out or DEFAULT_OUT
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; --out takes a folder")
    if folder.resolve().is_relative_to(found.root.resolve()):
        raise InputError(
            f"{folder} lies in the store, to which a check does not write; name another with --out"
        )
    tables = len({part.partition.folder.parent for part in found.parts()})
    with progress("check", tables) as counter:
        survey = survey_store(found, counter.advance)
    report = CheckReport(survey, folder / "check.json", folder / "check.html", fail_on)
    write_json(report.json, store, survey)
    write_html(report.html, store, survey)
    output.print(summary_table(survey))
    output.print(findings_table(survey.findings))
    numbers = Counter(finding.severity for finding in survey.findings)
    say(
        f"{len(survey.tables)} table(s), {sum(one.table.rows for one in survey.tables):,} rows: "
        + ", ".join(f"{numbers[severity]} {severity}" for severity in SEVERITIES)
        + f"; {report.json}, {report.html}"
    )
    return report


def summary_table(survey: Survey) -> Table:
    """Lay out what is there of each contract, a line each."""
    table = Table(title="What is there", title_justify="left")
    for name in ("table", "contract"):
        table.add_column(name, overflow="fold")
    for name in ("rows", "present", "locked", "longest gap"):
        table.add_column(name, justify="right")
    table.add_column("newest (UTC)")
    table.add_column("behind", justify="right")
    table.add_column("stale since")
    lines = summaries(survey)
    for one in lines[:MOST_ROWS]:
        cells = (
            one.table,
            f"{one.venue} {one.symbol}",
            f"{one.rows:,}",
            share_text(one.present_share),
            share_text(one.locked_share),
            seconds_text(one.longest_gap) if one.longest_gap is not None else "",
            f"{one.newest:%Y-%m-%d %H:%M}",
            behind_text(one),
            f"{one.stale_since:%Y-%m-%d %H:%M}" if one.stale_since is not None else "",
        )
        # a contract's name may look like markup
        table.add_row(*(Text(cell) for cell in cells))
    _tell_more(table, len(lines))
    return table


def findings_table(findings: Sequence[CheckFinding]) -> Table:
    """Lay findings out for a terminal, those that harm most first.

    Findings of one kind share a line: the worst of them is told, and the contracts are named.
    """
    table = Table(title="What was found", title_justify="left")
    for name in ("severity", "table", "contract", "found"):
        table.add_column(name, overflow="fold")
    for name in ("rows", "of", "share"):
        table.add_column(name, justify="right")
    table.add_column("first (UTC)")
    table.add_column("what is done about it", overflow="fold")
    groups = grouped(findings)
    for group in groups[:MOST_ROWS]:
        worst = group[0]
        rows, total = sum(one.count for one in group), sum(one.total for one in group)
        first = min((one.first for one in group if one.first is not None), default=None)
        cells = (
            worst.severity,
            worst.table,
            _names(group),
            _what(group),
            f"{rows:,}",
            f"{total:,}",
            share_text(rows / total if total else None),
            f"{first:%Y-%m-%d %H:%M}" if first is not None else "",
            worst.action,
        )
        table.add_row(*(Text(cell) for cell in cells))
    _tell_more(table, len(groups))
    return table


def grouped(findings: Sequence[CheckFinding]) -> list[list[CheckFinding]]:
    """Put findings of one severity, table, kind and action together, in the order of the first."""
    groups: dict[tuple[str, str, str, str], list[CheckFinding]] = {}
    for one in findings:
        groups.setdefault((one.severity, one.table, one.kind, one.action), []).append(one)
    return list(groups.values())


def _names(group: Sequence[CheckFinding]) -> str:
    if len(group) == 1:
        return _name(group[0])
    names = [_name(one) for one in group]
    more = len(names) - MOST_NAMES
    shown = ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"{len(names)}: {shown}"


def _what(group: Sequence[CheckFinding]) -> str:
    worst = group[0]
    alike = all(one.what == worst.what for one in group)
    return worst.what if alike else f"{worst.what} (this: {_name(worst)})"


def _name(finding: CheckFinding) -> str:
    return f"{finding.venue} {finding.symbol}".strip()


def _tell_more(table: Table, lines: int) -> None:
    if lines > MOST_ROWS:
        table.caption = f"{lines - MOST_ROWS} more in check.json"


def _opened(path: Path) -> Store:
    if not (path / MANIFEST).is_dir():
        around = Store.around(path.resolve())
        hint = f"; it lies in the store {around.root}" if around else ""
        raise InputError(
            f"{path} is no store: it has no {MANIFEST}/{hint}; make one with "
            "'margincast data ingest SRC... --out STORE'"
        )
    store = Store(path)
    if not store.records():
        raise InputError(f"the store {path} holds nothing; ingest something into it first")
    return store
