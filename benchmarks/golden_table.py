"""Our numbers beside those of published implementations: ours, reference, difference.

For every family of the shared golden records that concerns a test, a score or a comparison: how
many numbers there are, and the one that differs most. Differences are relative to the reference
(to 1e-6 where that is smaller); numbers that hang on random draws or on a random search are marked,
and their differences are absolute. ``tests/golden`` holds each to its tolerance.

Run, in the checkout's folder: ``python -m benchmarks.golden_table`` (under a minute; ``--all`` for
a row a number). The golden folder is looked for in ``MARGINCAST_SHARED``, or in ``../shared``.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from benchmarks.golden import (
    documentation,
    exceedance_tests,
    score_comparison,
    shortfall_tests,
)
from benchmarks.golden.records import Row

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Compute every number and print the table."""
    parser = argparse.ArgumentParser(description="ours beside published implementations")
    parser.add_argument("--all", action="store_true", help="a row a number")
    arguments = parser.parse_args()
    golden = Path(os.environ.get("MARGINCAST_SHARED", CHECKOUT.parent / "shared")) / "golden"
    if not golden.is_dir():
        sys.exit(f"no golden records at {golden}; set MARGINCAST_SHARED to the shared folder")
    rooms = (exceedance_tests, documentation, shortfall_tests, score_comparison)
    rows = list(chain.from_iterable(room.rows(golden) for room in rooms))
    print(every_row(rows) if arguments.all else by_family(rows))


def by_family(rows: Iterable[Row]) -> str:
    """Return a table, a row a family: its numbers, and the one that differs most."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(row.family, []).append(row)
    lines = [
        "| function, reference | records | numbers | difference | largest at | ours | reference |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, own in families.items():
        worst = max(own, key=lambda row: row.difference)
        records = len({row.record for row in own})
        lines.append(
            f"| {family} | {records} | {len(own)} | {_difference(worst)} | "
            f"`{worst.record}` {worst.quantity} | {worst.ours:.10g} | {worst.reference:.10g} |"
        )
    return "\n".join(lines)


def every_row(rows: Iterable[Row]) -> str:
    """Return a table, a row a number."""
    lines = [
        "| function, reference | record | number | ours | reference | difference |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.family} | `{row.record}` | {row.quantity} | {row.ours:.15g} | "
        f"{row.reference:.15g} | {_difference(row)} |"
        for row in rows
    ]
    return "\n".join(lines)


def _difference(row: Row) -> str:
    return f"{row.difference:.3f} (absolute)" if row.simulated else f"{row.difference:.1e}"


if __name__ == "__main__":
    main()
