"""Margins that are kept when nothing newer can be believed, and never fall at a fault.

Responsible for a fallback lying at or above the margin that it takes the place of.
"""

import numpy as np
import pandas as pd

from margincast.core.types import FloatArray
from margincast.margin.levels import KEPT
from margincast.margin.maintenance import maintenance_amounts_of_all
from margincast.serving.snapshot import Snapshot


def kept(levels: pd.DataFrame, reason: str) -> pd.DataFrame:
    """Return margin levels as fallbacks: each rate the larger of the base schedule's and its own.

    Args:
        levels: as they were shown last.
        reason: why nothing newer can be believed.
    """
    base = levels["base_mmr"].to_numpy()
    fallback = levels["status"].eq("fallback")
    text = levels["reason"].where(fallback, KEPT + reason)
    return raised(levels, base, base).assign(
        status="fallback", binding_rule="fallback", reason=text
    )


def at_least(levels: pd.DataFrame, shown: Snapshot) -> pd.DataFrame:
    """Return fallbacks no lower than what is shown of the same contracts now.

    A contract that came back between two publications shows a margin of its newest forecast, which
    may lie above the one published last.

    Args:
        levels: fallbacks, sorted by contract, side and tier.
        shown: the snapshot they take the place of; contracts it does not hold have no margin yet.
    """
    rates = [
        _shown(shown, str(symbol), str(side), rows)
        for (symbol, side), rows in levels.groupby(["symbol", "side"], sort=False)
    ]
    if not rates:
        return levels
    mmr, charged = np.concatenate(rates, axis=1)
    return raised(levels, mmr, charged)


def _shown(shown: Snapshot, symbol: str, side: str, rows: pd.DataFrame) -> FloatArray:
    """Return rates and rates in force of a side now, shape (2, tiers); NaN where there are none."""
    found = {str(key): one for key, one in shown.contracts.get(symbol, {}).items()}.get(side)
    if found is None:
        return np.full((2, len(rows)), np.nan)
    return np.array([found.columns[name][found.place] for name in ("mmr", "mmr_in_force")])


def raised(levels: pd.DataFrame, least: FloatArray, least_in_force: FloatArray) -> pd.DataFrame:
    """Return levels whose rates are raised to others where those are larger.

    The initial rate rises in proportion, so that it stays above; the maintenance amounts follow
    the rates.

    Args:
        levels: sorted by contract, side and tier.
        least: maintenance rate of each row, shape (k,); NaN raises nothing.
        least_in_force: likewise, of the rate that is charged.
    """
    own = levels["mmr"].to_numpy()
    mmr = np.fmax(own, least)
    imr = np.minimum(1.0, levels["imr"].to_numpy() * (mmr / own))
    return levels.assign(
        mmr=mmr,
        mmr_in_force=np.fmax(levels["mmr_in_force"].to_numpy(), least_in_force),
        imr=imr,
        max_leverage=1.0 / imr,
        maintenance_amount=maintenance_amounts_of_all(
            levels["tier_floor_usd"].to_numpy(), mmr, levels["tier"].eq(1).to_numpy()
        ),
        multiplier=mmr / levels["base_mmr"].to_numpy(),
    )
