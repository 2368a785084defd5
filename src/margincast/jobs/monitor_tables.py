"""What ``margincast monitor`` prints: checks first, then rates of exceedances."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.serving.monitoring.report import Report, Watched, status_of
from margincast.serving.monitoring.rolling import ALL

_STYLES = {"alarm": "bold red", "ok": None, "cannot tell": "yellow"}


def checks_table(report: Report) -> Table:
    """One row a check, alarms first."""
    table = Table(
        title=f"{report.monitor}: {report.policy} at {report.at:%F %H:%M} UTC, "
        f"champion {report.model or 'none'}",
        box=SIMPLE_HEAD,
        padding=0,
    )
    for name in ("check", "status", "since (UTC)"):
        table.add_column(name, no_wrap=True)
    for name in ("value", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("found", overflow="fold")
    rows = [(status_of(check, report.alarms[check.key]), check) for check in report.checks]
    for status, check in sorted(rows, key=lambda row: list(_STYLES).index(row[0])):
        since = report.alarms[check.key].raised_at
        table.add_row(
            check.alarm,
            status,
            "" if since is None else f"{since:%F %H:%M}",
            "-" if check.value is None else f"{check.value:.3g}",
            f"{check.limit:.3g}",
            check.reason,
            style=_STYLES[status],
        )
    return table


def evidence_table(name: str, watched: Watched) -> Table:
    """One row a side and level: how often promises were exceeded, and what that says."""
    table = Table(title=f"{name} of {watched.subject}", box=SIMPLE_HEAD, padding=0)
    table.add_column("side")
    for heading in (
        "level", "window:\noutcomes", "exceeded", "times\npromised", "bets", "times\npromised",
        "from", "to", "e-value\ntoo many", "e-value\ntoo few",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    every = watched.coverage[watched.coverage["symbol"] == ALL]
    recent = {(row["side"], row["level"]): row for row in every.to_dict(orient="records")}
    for row in watched.evidence.to_dict(orient="records"):
        window = recent[row["side"], row["level"]]
        table.add_row(
            row["side"],
            f"{row['level']:g}",
            f"{int(window['known']):,}",
            f"{int(window['exceeded']):,}",
            f"{window['exceedance_ratio']:.2f}",
            f"{row['bets']:,}",
            f"{row['exceedance_ratio']:.2f}",
            f"{row['ratio_lower']:.2f}",
            f"{row['ratio_upper']:.2f}",
            f"{row['e_too_many']:.3g}",
            f"{row['e_too_few']:.3g}",
        )
    notes = [f"{count:,} {reason}" for reason, count in watched.left_out.items() if count]
    if watched.lost:
        notes.append(f"{watched.lost:,} without an outcome in time")
    if notes:
        table.caption = f"not judged: {'; '.join(notes)}"
    return table
