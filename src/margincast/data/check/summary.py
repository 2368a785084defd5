"""One line a contract: how much of it is there, and until when a margin can be decided on it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from margincast.data.check.coverage import present_share
from margincast.data.check.holes import seconds_text
from margincast.data.check.survey import Survey


@dataclass(frozen=True)
class ContractSummary:
    """What is there of one contract's table.

    Attributes:
        table: table, with its interval where it has one.
        venue: where the contract trades.
        symbol: the contract.
        rows: rows there.
        first: time of the first row.
        newest: time of the last row.
        behind: how much older that is than the newest row of the table, of any contract and venue.
        step: interval, or usual or median distance of rows; None with one row.
        step_is_regular: whether it is usual.
        present_share: share of the expected rows; None where no number is expected.
        locked_share: share of locked snapshots; None where rows are no books.
        gaps: number of gaps.
        longest_gap: longest step over missing rows; None where there is none.
        stale_since: time from which it is stale to the end; None where it is not.
    """

    table: str
    venue: str
    symbol: str
    rows: int
    first: datetime
    newest: datetime
    behind: timedelta
    step: timedelta | None
    step_is_regular: bool
    present_share: float | None
    locked_share: float | None
    gaps: int
    longest_gap: timedelta | None
    stale_since: datetime | None


def summaries(survey: Survey) -> list[ContractSummary]:
    """Sum up every contract's table, in the order of the survey."""
    newest: dict[str, datetime] = {}
    for one in survey.tables:
        name = one.table.table
        newest[name] = max(newest.get(name, one.table.last), one.table.last)
    return [
        ContractSummary(
            table=one.table.table,
            venue=one.table.venue,
            symbol=one.table.symbol,
            rows=one.table.rows,
            first=one.table.first,
            newest=one.table.last,
            behind=newest[one.table.table] - one.table.last,
            step=one.coverage.step.length if one.coverage.step else None,
            step_is_regular=one.coverage.step is not None and one.coverage.step.regular,
            present_share=present_share(one.coverage),
            locked_share=one.locked_share,
            gaps=len(one.coverage.gaps),
            longest_gap=max((length for _, length in one.coverage.gaps), default=None),
            stale_since=one.stale_since,
        )
        for one in survey.tables
    ]


def behind_text(one: ContractSummary) -> str:
    """Write how much older the newest row is than that of its table; nothing below a minute."""
    return seconds_text(one.behind) if one.behind >= timedelta(minutes=1) else ""


def share_text(share: float | None) -> str:
    """Write a share in per cent: ``46 %``; never 100 % where something is missing, nor 0 %.

    >>> share_text(0.4567), share_text(0.99999), share_text(0.00001)
    ('45.7 %', '99.999 %', '0.001 %')
    """
    if share is None:
        return ""
    percent = 100 * share
    if 99.9999 < percent < 100:
        return "> 99.9999 %"
    if percent > 99.9:
        return f"{percent:.4f}".rstrip("0").rstrip(".") + " %"
    return f"{percent:.3g} %" if percent >= 0.0001 or not percent else "< 0.0001 %"
