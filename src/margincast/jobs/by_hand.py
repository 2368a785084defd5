"""The margins set by hand that a job meets: read from the workspace's ledger, and said.

Responsible for telling an operator which overrides a run applied, which ended lately, and which a
replay leaves out.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd

from margincast.core.errors import LedgerError
from margincast.jobs.console import say
from margincast.margin.override import Override
from margincast.serving.champion import moment_of_use
from margincast.serving.ledger import LEDGER, Ledger
from margincast.serving.ledger_line import LedgerEntry
from margincast.serving.margin_overrides import overrides_at, recorded_overrides
from margincast.specs.serving import MarginPolicy

RECENTLY = timedelta(days=7)
"""How long it is said of an override that it expired."""


def overrides_in_force(
    workspace: Path, policy: MarginPolicy, moment: datetime | None
) -> tuple[Override, ...]:
    """Return the overrides that hold, oldest first, and say which expired lately.

    Args:
        workspace: folder with the ledger.
        policy: the margin policy.
        moment: that is asked for; None for now. The clock set back revives no override.
    """
    entries = _entries(workspace)
    at = moment_of_use(entries) if moment is None else moment
    for one in recorded_overrides(entries, policy.name):
        ago = at - one.override.expires
        if one.ended is None and timedelta(0) <= ago <= RECENTLY:
            override = one.override
            say(
                f"the override of line {override.line} ({override.subject}, {override.text}) "
                f"{one.state(at)}"
            )
    return overrides_at(entries, policy, at)


def say_unused(overrides: Sequence[Override], levels: pd.DataFrame) -> None:
    """Say which overrides are for contracts that are not among the margin levels."""
    published = set(levels["symbol"])
    for one in overrides:
        if one.symbol is not None and one.symbol not in published:
            say(f"the override of line {one.line} is for {one.symbol}, which is not published")


def say_left_out(workspace: Path, policy: MarginPolicy, start: datetime, end: datetime) -> None:
    """Say how many overrides fell into a period that is replayed without them."""
    recorded = recorded_overrides(_entries(workspace), policy.name)
    lines = [str(one.override.line) for one in recorded if one.holds_between(start, end)]
    if lines:
        say(
            f"{len(lines)} override(s) of {policy.name} fell into the period (line(s) "
            f"{', '.join(lines)} of the ledger); the replay leaves them out"
        )


def _entries(workspace: Path) -> tuple[LedgerEntry, ...]:
    try:
        return Ledger(workspace / LEDGER).read()
    except LedgerError as error:
        say(f"no override is applied, because the ledger that records them does not hold: {error}")
        return ()
