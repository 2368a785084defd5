"""An explained margin on a terminal, and as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.jobs.console import output
from margincast.margin.change import Change
from margincast.margin.explanation import Step, percent

SMALLEST = 5e-6
"""Lines that change a margin by less are summed on the screen."""


@dataclass(frozen=True)
class Explained:
    """A margin, the steps that made it, and what changed it.

    Attributes:
        row: of the table of margin levels.
        chain: its steps.
        change: since an earlier moment; None where none was asked for.
        before: the row of that moment.
    """

    row: Mapping[str, Any]
    chain: Sequence[Step]
    change: Change | None
    before: Mapping[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """Return all of it JSON-like; what is not known is None."""
        names = (
            "symbol", "side", "tier", "tier_floor_usd", "tier_cap_usd", "effective_from", "mmr",
            "mmr_in_force", "imr", "max_leverage", "multiplier", "binding_rule", "status",
            "reason", "override", "override_line", "override_approver", "override_reason",
            "override_expires", "model_version", "policy_hash", "data_as_of",
        )  # fmt: skip
        record: dict[str, Any] = {name: _plain(self.row[name]) for name in names}
        record["chain"] = [asdict(step) for step in self.chain]
        if self.change is not None and self.before is not None:
            record["since"] = {
                "effective_from": _plain(self.before["effective_from"]),
                "model_version": _plain(self.before["model_version"]),
                **self.change.record(),
            }
        return record


def show(explained: Sequence[Explained], policy: str, *, as_json: bool) -> None:
    """Print explained margins.

    Args:
        explained: one a side.
        policy: name of the policy; empty where it is not known.
        as_json: as JSON.
    """
    if as_json:
        records = [one.record() for one in explained]
        output.print(json.dumps(records, indent=1), markup=False, soft_wrap=True)
        return
    for one in explained:
        output.print(_chain_table(one, policy))
        output.print(_in_force(one.row), markup=False, soft_wrap=True)
        if one.change is not None and one.before is not None:
            output.print(_change_table(one.change, one.before))


def _chain_table(one: Explained, policy: str) -> Table:
    row = one.row
    of_policy = f", policy {policy}" if policy else ""
    table = Table(
        title=f"{row['symbol']} {row['side']}, tier {row['tier']} ({row['tier_floor_usd']:,.0f} to "
        f"{row['tier_cap_usd']:,.0f} USD){of_policy}, model {row['model_version']}",
        box=SIMPLE_HEAD,
        padding=0,
    )
    for heading in ("step", "before", "after"):
        table.add_column(heading, justify="left" if heading == "step" else "right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for step in one.chain:
        table.add_row(
            step.name,
            percent(step.value_before),
            percent(step.value_after),
            step.reason,
            style="bold" if step.name == row["binding_rule"] else None,
        )
    return table


def _in_force(row: Mapping[str, Any]) -> str:
    text = (
        f"MMR {percent(row['mmr'])}, IMR {percent(row['imr'])} ({row['imr_reason']}), largest "
        f"leverage {row['max_leverage']:.1f}; {row['status']}; in force from "
        f"{row['effective_from']:%F %H:%M} UTC"
    )
    if row["mmr_in_force"] != row["mmr"]:
        text += f" (notice), until then {percent(row['mmr_in_force'])}"
    if not pd.isna(row["data_as_of"]):
        text += f"; data as of {row['data_as_of']:%F %H:%M} UTC"
    return text


def _change_table(change: Change, before: Mapping[str, Any]) -> Table:
    table = Table(
        title=f"since {before['effective_from']:%F %H:%M} UTC: {percent(change.before)} -> "
        f"{percent(change.after)}, {_points(change.total)}",
        box=SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("from")
    table.add_column("what", overflow="fold")
    table.add_column("points", justify="right")
    small = [line.change for line in change.lines if abs(line.change) < SMALLEST]
    for line in change.lines:
        if abs(line.change) >= SMALLEST:
            table.add_row(line.cause, line.what, _points(line.change))
    if math.fsum(map(abs, small)) > 0.0:
        table.add_row("", f"({len(small)} smaller)", _points(math.fsum(small)))
    table.add_section()
    for cause, total in change.by_cause().items():
        table.add_row(cause, "together", _points(total), style="bold")
    table.caption = (
        "Taken apart in this order: another model on the earlier data, another policy file, then "
        "step by step what each adds now and added then; another order gives other shares."
    )
    return table


def _points(change: float) -> str:
    return f"{100.0 * change:+.3f} %"


def _plain(value: Any) -> object:  # noqa: ANN401  # a cell of a table
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value
