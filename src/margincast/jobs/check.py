"""``margincast data check``: what a store's data is worth, before a margin is computed from it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from margincast.core.errors import InputError
from margincast.data.check.report import write_html, write_json
from margincast.data.check.survey import Survey, survey_store
from margincast.data.quality import SEVERITIES, Finding
from margincast.data.store import MANIFEST, Store
from margincast.jobs.console import output, progress, say

DEFAULT_OUT = Path("out") / "check"
MOST_ROWS = 60
"""Findings shown in the terminal; all of them stand in check.json."""


@dataclass(frozen=True)
class CheckReport:
    """What was found in a store, and where it is written.

    Attributes:
        survey: what was found.
        json: the file with all of it.
        html: the page.
    """

    survey: Survey
    json: Path
    html: Path

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, most severe first."""
        return self.survey.findings


def run(store: Path, out: Path | None = None) -> CheckReport:
    """Check a store and write ``check.json`` and ``check.html``; the store itself is only read.

    Args:
        store: folder that ``margincast data ingest`` wrote.
        out: folder to write to; ``out/check`` when None.

    Returns:
        The report; a table of it is printed as well.

    Raises:
        InputError: the folder is no store or holds nothing, or something cannot be read.
    """
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
    report = CheckReport(survey, folder / "check.json", folder / "check.html")
    write_json(report.json, store, survey)
    write_html(report.html, store, survey)
    output.print(findings_table(survey.findings))
    numbers = Counter(finding.severity for finding in survey.findings)
    say(
        f"{len(survey.tables)} table(s), {sum(one.table.rows for one in survey.tables):,} rows: "
        + ", ".join(f"{numbers[severity]} {severity}" for severity in SEVERITIES)
        + f"; {report.json}, {report.html}"
    )
    return report


def findings_table(findings: Sequence[Finding]) -> Table:
    """Lay findings out for a terminal, most severe first."""
    table = Table(title="What was found", title_justify="left")
    for name in ("severity", "table", "contract", "found"):
        table.add_column(name, overflow="fold")
    table.add_column("rows", justify="right")
    table.add_column("of", justify="right")
    table.add_column("first (UTC)")
    table.add_column("what is done about it", overflow="fold")
    for finding in findings[:MOST_ROWS]:
        cells = (
            finding.severity,
            finding.table,
            f"{finding.venue} {finding.symbol}".strip(),
            finding.what,
            f"{finding.count:,}",
            f"{finding.total:,}",
            f"{finding.first:%Y-%m-%d %H:%M}" if finding.first else "",
            finding.action,
        )
        # a contract's name may look like markup
        table.add_row(*(Text(cell) for cell in cells))
    more = len(findings) - MOST_ROWS
    if more > 0:
        table.caption = f"{more} more in check.json"
    return table


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
