"""Terminal table and sentence of tiers that were made from a margin curve."""

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.margin.explanation import percent
from margincast.margin.maintenance import maintenance_amounts, maintenance_margin_usd
from margincast.margin.tiers import Choice, MarginCurve
from margincast.specs.schedule import Tier
from margincast.specs.serving import MarginPolicy


def tier_table(symbol: str, tiers: tuple[Tier, ...], curve: MarginCurve) -> Table:
    """One row a tier: its rates, and how far its margin lies above the curve."""
    table = Table(title=f"{symbol}: tiers and margin curve", box=SIMPLE_HEAD)
    for heading in (
        "up to USD",
        "MMR",
        "IMR",
        "maintenance\namount",
        "asked at\nthe edge",
        "above the curve\nmean",
        "\nlargest",
    ):
        table.add_column(heading, justify="right")
    caps, rates = [tier.cap_usd for tier in tiers], [tier.mmr for tier in tiers]
    amounts = maintenance_amounts([tier.floor_usd for tier in tiers], rates)
    notional = curve.notional_usd
    margins = [maintenance_margin_usd(one, caps, rates, amounts) for one in notional.tolist()]
    above = np.array(margins) / curve.margin_usd - 1.0
    for tier, amount in zip(tiers, amounts, strict=True):
        own = (notional > tier.floor_usd) & (notional <= tier.cap_usd)
        edge = int(np.searchsorted(notional, tier.cap_usd))
        known = own.any()
        table.add_row(
            f"{tier.cap_usd:,.10g}",
            percent(tier.mmr),
            percent(tier.imr),
            f"{amount:,.10g}",
            percent(float(curve.margin_usd[edge] / notional[edge])),
            f"{above[own].mean():.2%}" if known else "-",
            f"{above[own].max():.2%}" if known else "-",
        )
    return table


def summary_of(symbol: str, choice: Choice, policy: MarginPolicy, reason: str) -> str:
    """Say how good the tiers are, why these, and what they rest on."""
    shape = policy.tiers
    assert shape is not None
    fit, best = choice.fit, choice.best
    text = (
        f"{symbol}: {len(fit.edges_usd)} bracket(s), on average {percent(fit.mean_excess)} above "
        f"the curve (asked for: {percent(shape.mean_excess)} with at most {shape.max_brackets})"
    )
    if not choice.within:
        text += "; TOO FEW brackets for that"
    if choice.kept:
        text += (
            f"; earlier edges kept: the best would be {len(best.edges_usd)} bracket(s) with "
            f"{percent(best.mean_excess)}"
        )
    return f"{text}; {reason}"
