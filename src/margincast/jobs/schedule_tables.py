"""Terminal tables of base schedules, and of an export's or import's check."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.margin.rounding import exact
from margincast.margin.venues.check import Check
from margincast.margin.venues.tiers import amounts_of
from margincast.specs.schedule import BaseSchedule, Brackets

MOST_ROWS = 30
"""Of more contracts those whose margins differ most are shown."""
MOST_SYMBOLS = 4
"""Contracts named of those that share tiers."""


def check_table(checks: Sequence[Check], title: str) -> Table:
    """One row a contract: by how much margins differ, in the venue's arithmetic."""
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("contract", no_wrap=True)
    for heading in (
        "tiers",
        "changed",
        "maintenance\nleast",
        "\nmean",
        "\nlargest",
        "at USD",
        "initial\nleast",
        "\nlargest",
    ):
        table.add_column(heading, justify="right")
    ranked = sorted(checks, key=lambda check: -max(abs(check.least), abs(check.largest)))
    for check in ranked[:MOST_ROWS]:
        tiers = f"{check.tiers}"
        if check.venue_tiers != check.tiers:
            tiers += f" -> {check.venue_tiers}"
        table.add_row(
            check.symbol,
            tiers,
            str(check.changed),
            _difference(check.least),
            _difference(check.mean),
            _difference(check.largest),
            f"{check.largest_at_usd:,.0f}" if check.changed else "-",
            _difference(check.initial_least),
            _difference(check.initial_largest),
            style="yellow" if check.least < 0.0 else None,
        )
    same = sum(check.changed == 0 for check in checks)
    table.caption = (
        f"maintenance margins equal at every notional: {same} of {len(checks)} contracts"
    )
    if len(checks) > MOST_ROWS:
        table.caption += f"; the {MOST_ROWS} that differ most are shown"
    return table


def schedule_table(schedule: BaseSchedule) -> Table:
    """One row a tier, with its maintenance amount and largest leverage."""
    table = Table(title=f"{schedule.name}: {schedule.description}", box=SIMPLE_HEAD)
    table.add_column("contracts")
    for heading in ("from USD", "to USD", "MMR", "IMR", "max leverage", "maintenance amount"):
        table.add_column(heading, justify="right")
    lists: list[tuple[str, Brackets]] = [(_named(one.symbols), one) for one in schedule.brackets]
    if schedule.default is not None:
        lists.append(("all others", schedule.default))
    for name, brackets in lists:
        amounts = amounts_of(brackets.tiers)
        for number, (tier, amount) in enumerate(zip(brackets.tiers, amounts, strict=True)):
            table.add_row(
                "" if number else name,
                f"{tier.floor_usd:,.10g}",
                f"{tier.cap_usd:,.10g}",
                f"{tier.mmr * 100:.6g}%",
                f"{tier.imr * 100:.6g}%",
                f"{float(1 / exact(tier.imr)):.4g}x",
                f"{amount:,.10g}",
                end_section=number == len(brackets.tiers) - 1,
            )
    if schedule.delisted:
        table.caption = f"delisted: {', '.join(schedule.delisted)}"
    return table


def _named(symbols: Sequence[str]) -> str:
    shown = ", ".join(symbols[:MOST_SYMBOLS])
    more = len(symbols) - MOST_SYMBOLS
    return f"{shown} and {more} more" if more > 0 else shown


def _difference(value: float) -> str:
    return "0" if abs(value) < 5e-7 else f"{value:+.4%}" if abs(value) < 1e-3 else f"{value:+.2%}"
