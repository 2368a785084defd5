"""The page of a frontier: the picture first, then the settings nobody beats, and all others."""

import pandas as pd

from margincast.backtest._drawing import to_svg
from margincast.backtest._pictures import embed
from margincast.backtest._plots_of_policies import draw_frontier
from margincast.backtest.report import render
from margincast.core.time import format_duration
from margincast.specs.serving import MarginPolicy

TEMPLATE = "frontier.html.j2"


def render_frontier(
    table: pd.DataFrame, policy: MarginPolicy, in_force: str, subject: str, decisions: int
) -> str:
    """Return the page's HTML; the same input gives the same text.

    Args:
        table: see :func:`~margincast.backtest._plots_of_policies.draw_frontier`, with all fields of
            :class:`~margincast.backtest.frontier.Standing`.
        policy: the policy in force.
        in_force: its name in the table.
        subject: the model whose forecasts are margined.
        decisions: judged.
    """
    ordered = table.sort_values(["efficient", "scaled_mean"], ascending=[False, True])
    return render(
        TEMPLATE,
        policy=policy,
        horizon=format_duration(policy.model.horizon),
        subject=subject,
        decisions=decisions,
        in_force=in_force,
        picture=embed(to_svg(lambda: draw_frontier(table, in_force))),
        rows=ordered.to_dict("records"),
    )
