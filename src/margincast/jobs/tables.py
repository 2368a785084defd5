"""Terminal tables a risk manager can read: models side by side, and margin levels."""

import numpy as np
import pandas as pd
from rich.table import Table

from margincast.backtest.evaluation import Evaluation
from margincast.models.catalogue import OURS
from margincast.serving.gate import GateVerdict

MOST_ROWS = 60
"""A longer table of margin levels is cut to first tiers on the screen."""


def model_table(evaluation: Evaluation, levels: tuple[float, ...]) -> Table:
    """One row a model: pinball relative to the reference, exceedance ratio and cost by level."""
    table = Table(title=f"Backtest, {evaluation.scored:,} decisions, out of sample")
    table.add_column("model", no_wrap=True, min_width=12)
    table.add_column("pinball\nmean", justify="right")
    for level in levels:
        table.add_column(f"pinball\n{level:g}", justify="right")
        table.add_column(f"exceeded\n{level:g}", justify="right")
    table.add_column(f"mean forecast\n{levels[0]:g}", justify="right")
    table.add_column("largest\none-day rise", justify="right")
    for model in sorted(evaluation.models, key=lambda summary: summary.pinball_ratio):
        cells = [evaluation.cell(model.model, "both", level) for level in levels]
        row = [model.model, f"{model.pinball_ratio:.3f}"]
        for cell in cells:
            row += [f"{cell.pinball_ratio:.3f}", f"{cell.exceedance_ratio:.2f}x"]
        rise = model.largest_one_day_rise
        row += [f"{cells[0].mean_forecast:.2%}", f"{rise:+.0%}" if np.isfinite(rise) else "-"]
        table.add_row(*row, style="bold" if model.model == OURS else None)
    table.caption = (
        f"pinball: mean loss relative to {evaluation.reference}, lower is better. exceeded: "
        "observed over nominal exceedances, 1.00x is exact, above is under-margined."
    )
    return table


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
            style=None if row["status"] == "ok" else "yellow",
        )
    return table
