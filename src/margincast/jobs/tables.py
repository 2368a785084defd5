"""Terminal tables a risk manager can read: models side by side, and margin levels."""

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.backtest.contracts import BAND
from margincast.backtest.evaluation import Evaluation
from margincast.models.catalogue import OURS
from margincast.serving.verdict import GateVerdict

MOST_LEVELS = 3
"""Levels shown on the screen, so that a row fits 120 columns."""
MOST_ROWS = 60
"""A longer table of margin levels is cut to first tiers on the screen."""


def model_table(evaluation: Evaluation, levels: tuple[float, ...], of_horizon: str = "") -> Table:
    """One row a model: pinball relative to the reference, exceedance ratio and cost by level.

    Of many levels the first ``MOST_LEVELS`` are shown; every row fits 120 columns. ``of_horizon``
    says in the title which of several horizons it is.
    """
    shown = levels[:MOST_LEVELS]
    table = Table(
        title=f"Backtest, {of_horizon}{evaluation.scored:,} decisions, out of sample",
        box=SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("model", no_wrap=True, min_width=12, max_width=28)
    headings = ["pinball\nmean"]
    for level in shown:
        headings += [f"pinball\n{level:g}", f"exceed.\n{level:g}"]
    headings += ["fore-\ncast", "in\nband", "beyond\nbps", "one-day\nrise"]
    for heading in headings:
        # a narrow screen folds figures and cuts none
        table.add_column(heading, justify="right", overflow="fold")
    for model in sorted(evaluation.models, key=lambda summary: summary.pinball_ratio):
        cells = [evaluation.cell(model.model, "both", level) for level in shown]
        error = model.pinball_ratio_error
        row = [model.model, f"{model.pinball_ratio:.3f}"]
        row[-1] += f" \N{PLUS-MINUS SIGN}{error:.3f}" if np.isfinite(error) else ""
        for cell in cells:
            # a space keeps the figures of members and others in line
            row.append(f"{cell.pinball_ratio:.3f}{'*' if cell.in_confidence_set else ' '}")
            row.append(f"{cell.exceedance_ratio:.2f}x")
        first = cells[0]
        row += [
            f"{first.mean_forecast:.2%}",
            f"{model.contracts_within:.0%}",
            _known(first.shortfall_per_exceedance * 1e4, ".0f"),
            _known(model.largest_one_day_rise, "+.0%"),
        ]
        table.add_row(*row, style="bold" if model.model == OURS else None)
    low, high = BAND
    table.caption = (
        f"pinball: mean loss relative to {evaluation.reference} \N{PLUS-MINUS SIGN} standard "
        "error, lower is better; * in the 90 % confidence set. exceed.: observed over nominal "
        f"exceedances, 1.00x is exact, above is under-margined. At {levels[0]:g}: mean forecast; "
        f"share of contracts exceeded {low:g} to {high:g}x; shortfall beyond the forecast per "
        "exceedance; largest one-day rise."
    )
    if len(shown) < len(levels):
        table.caption += f" All {len(levels)} levels stand in the report."
    return table


def _known(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "-"


def verdict_text(verdict: GateVerdict) -> str:
    """State the gate's verdict and what it rests on."""
    if verdict.passed:
        return f"gate passed ({len(verdict.checks)} checks)"
    return "gate FAILED: " + "; ".join(verdict.reasons)


def margin_table(levels: pd.DataFrame) -> Table:
    """Margin levels, one row a contract, side and tier; of a long list the first tiers only."""
    shown = levels if len(levels) <= MOST_ROWS else levels.loc[levels["tier"] == 1]
    table = Table(
        title=f"Margin levels, effective from {levels['effective_from'].max():%F %H:%M} UTC"
    )
    for column in ("contract", "side"):
        table.add_column(column)
    for column in ("tier up to USD", "forecast", "multiplier", "MMR", "max leverage"):
        table.add_column(column, justify="right")
    for column in ("status", "binding rule"):
        table.add_column(column)
    if len(shown) < len(levels):
        table.caption = f"first tiers only; all {len(levels):,} levels stand in the file"
    for row in shown.to_dict(orient="records"):
        table.add_row(
            str(row["symbol"]),
            str(row["side"]),
            f"{row['tier_cap_usd']:,.0f}",
            f"{row['forecast']:.2%}" if row["status"] == "ok" else "-",
            f"{row['multiplier']:.2f}x",
            f"{row['mmr']:.2%}",
            f"{row['max_leverage']:.1f}x",
            str(row["status"]),
            str(row["binding_rule"]),
            style=None if row["status"] == "ok" and pd.isna(row["override_line"]) else "yellow",
        )
    notes = _overrides(levels)
    if notes:
        table.caption = "\n".join([*([str(table.caption)] if table.caption else []), *notes])
    return table


def _overrides(levels: pd.DataFrame) -> list[str]:
    """Say every override behind a table once."""
    by_hand = levels.dropna(subset="override_line").drop_duplicates("override_line")
    return [
        f"override: {row['override']} "
        f"({(levels['override_line'] == row['override_line']).sum()} levels, line "
        f"{row['override_line']} of the ledger), approved by {row['override_approver']} until "
        f"{row['override_expires']:%F %H:%M} UTC: {row['override_reason']}"
        for row in by_hand.to_dict(orient="records")
    ]
