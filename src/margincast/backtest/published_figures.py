"""What the published margin was worth: cost, protection, steadiness, and whom it liquidated.

Responsible for judging the policy and not only the forecast: the margin that the venue would have
published is compared with the base schedule alone and with the forecast alone, on the same
decisions. A loss is the adverse excursion and what closing costs.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from margincast.backtest.daily_margin import MEASURES, daily_measures, last_of_each_day, medians
from margincast.backtest.margin_metrics import MarginSample, margin_figures
from margincast.backtest.position_model import (
    Accounts,
    LiquidationCounts,
    draw_accounts,
    run_accounts,
)
from margincast.backtest.published import published_margin, require_level
from margincast.core.types import FloatArray, Side
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

PUBLISHED, BASE, FORECAST = "published", "base schedule", "forecast alone"
LEVERAGES = (2.0, 3.0, 5.0, 10.0, 20.0)
ACCOUNTS = 4000
"""Accounts drawn for each contract and side, a fifth at each leverage."""
MEAN_HOLD = timedelta(days=3)
LARGEST_RATE = 0.999
"""A forecast alone may exceed the whole price; a margin rate may not."""


@dataclass(frozen=True)
class PublishedFigures:
    """Figures of margins in force.

    Attributes:
        by_margin: a row a margin and tier: cost, exceedances, shortfall, fund draw, share in
            fallback, procyclicality and liquidations.
        by_contract: the published margin's figures by tier, contract and side.
    """

    by_margin: pd.DataFrame
    by_contract: pd.DataFrame


def published_figures(
    panel: Panel,
    forecast: TailForecast,
    schedule: BaseSchedule,
    policy: MarginPolicy,
    *,
    spacing: timedelta,
    history: Panel,
    tiers: tuple[int, ...] = (1, 2, 3),
) -> PublishedFigures:
    """Replay a policy behind a model's forecasts and judge what would have been published.

    Figures of losses are of decisions with a known outcome; steadiness and liquidations are of the
    whole path of each contract.

    Args:
        panel: the test decisions, sorted by time.
        forecast: of the same decisions; without one the base schedule is in force.
        schedule: the base schedule.
        policy: the margin policy.
        spacing: time between a contract's decisions.
        history: see :func:`~margincast.backtest.published.published_margin`.
        tiers: notional tiers to replay.

    Raises:
        InputError: see :func:`~margincast.backtest.published.published_margin`.
    """
    outcomes = np.stack([panel.outcomes[side] for side in forecast.sides])
    names = panel.frame["symbol"].to_numpy(dtype=str)
    require_level(forecast, policy)
    column = forecast.levels.index(policy.model.level)
    alone = np.clip(forecast.quantiles[:, :, column].T, 1e-6, LARGEST_RATE)
    by_margin, by_contract = [], []
    for tier in tiers:
        made = published_margin(
            panel,
            forecast,
            schedule,
            policy,
            tier=tier,
            history=history,
        )
        known = panel.labelled
        losses = made.losses(outcomes)
        margins = {
            PUBLISHED: made.rates,
            BASE: np.broadcast_to(made.base, made.rates.shape),
            FORECAST: np.where(np.isnan(alone), made.base, alone),
        }
        for name, rates in margins.items():
            sample = _sample(losses, rates, names, forecast.sides, known)
            (whole,) = margin_figures(sample)
            record = asdict(whole)
            record.pop("group")
            by_margin.append(
                {
                    "margin": name,
                    "tier": tier,
                    **record,
                    "fallback": float(made.fallback[:, known].mean()) if name == PUBLISHED else 0.0,
                    **_steadiness(panel, rates, names),
                    **_liquidations(panel, rates, names, forecast.sides, spacing=spacing),
                }
            )
        sample = _sample(losses, made.rates, names, forecast.sides, known)
        for figures in margin_figures(sample, ("contract", "side")):
            record = asdict(figures)
            by_contract.append({"tier": tier, **record.pop("group"), **record})
    return PublishedFigures(pd.DataFrame(by_margin), pd.DataFrame(by_contract))


def _sample(
    losses: FloatArray,
    rates: FloatArray,
    names: "np.ndarray[tuple[int], np.dtype[np.str_]]",
    sides: tuple[Side, ...],
    known: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
) -> MarginSample:
    return MarginSample(
        losses[:, known].ravel(),
        rates[:, known].ravel(),
        np.tile(names[known], len(sides)),
        np.repeat(np.array(sides), int(known.sum())),
    )


def _paths(
    panel: Panel,
    rates: FloatArray,
    names: "np.ndarray[tuple[int], np.dtype[np.str_]]",
    spacing: timedelta,
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield every contract's prices, shape (steps,), and margins, (S, steps), on a regular grid."""
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        decided = panel.decided[rows]
        place = (decided - decided[0]) // np.timedelta64(spacing)
        price = np.full(int(place[-1]) + 1, np.nan)
        margin = np.full((len(rates), len(price)), np.nan)
        price[place] = panel.frame["close"].to_numpy(np.float64)[rows]
        margin[:, place] = rates[:, rows]
        yield price, margin


def _steadiness(
    panel: Panel,
    rates: FloatArray,
    names: "np.ndarray[tuple[int], np.dtype[np.str_]]",
) -> dict[str, float]:
    """Medians over contracts and sides of the measures of a daily margin (each day's last)."""
    found: list[dict[str, float] | None] = []
    for name in np.unique(names):
        own = np.flatnonzero(names == name)
        found += map(daily_measures, last_of_each_day(panel.decided[own], rates[:, own]))
    # the mean of all decisions stands in the table already
    return medians(found, [name for name in MEASURES if name != "mean_margin"])


def _liquidations(
    panel: Panel,
    rates: FloatArray,
    names: "np.ndarray[tuple[int], np.dtype[np.str_]]",
    sides: tuple[Side, ...],
    *,
    spacing: timedelta,
) -> dict[str, int]:
    """Counts over contracts and sides of the same accounts under one margin."""
    totals: dict[str, int] = {}
    generator = np.random.default_rng(1)
    for price, margin in _paths(panel, rates, names, spacing):
        accounts: Accounts = draw_accounts(
            ACCOUNTS,
            path_length=len(price),
            leverages=np.array(LEVERAGES),
            shares=np.ones(len(LEVERAGES)),
            mean_hold_steps=max(1.0, MEAN_HOLD / spacing),
            generator=generator,
        )
        for own, side in zip(margin, sides, strict=True):
            counts: LiquidationCounts = run_accounts(price, own, accounts, side).counts()
            for name in ("refused", "liquidations", "margin_induced", "spared", "bankruptcies"):
                totals[name] = totals.get(name, 0) + int(getattr(counts, name))
            totals["accounts"] = totals.get("accounts", 0) + counts.accounts
    return totals
