"""What is published beside the maintenance margin: initial margin rates and the fee multiplier.

Responsible for the rows of a table of margin levels as far as they concern opening a position:
which rate it needs, what set it, and by how much fees are multiplied.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margincast.core.types import SIDES, BoolArray, FloatArray, Side
from margincast.margin.fees import fee_multipliers, fee_need
from margincast.margin.initial_margin import initial_margin_rates
from margincast.margin.open_interest import OpenInterestShares, scaled_rates
from margincast.margin.tier_rows import TierRows
from margincast.specs.serving import MarginPolicy

Texts = npt.NDArray[np.object_]
BASE_IN_FORCE = "base schedule in force: "
"""What a reason begins with where a rate is the base schedule's own."""


@dataclass(frozen=True)
class InitialInputs:
    """What the initial margin of C contracts hangs on beside the maintenance margin.

    Attributes:
        forecasts: at the level and horizon of ``[initial.forecast]``, by side, shape (C,); a side
            that is absent or NaN is not known.
        open_interest: how far it is on its way to 1; None of a policy without caps.
    """

    forecasts: Mapping[Side, FloatArray]
    open_interest: OpenInterestShares | None

    def contracts(self, chosen: npt.NDArray[np.intp]) -> "InitialInputs":
        """Return those of some contracts."""
        shares = self.open_interest
        return InitialInputs(
            {side: values[chosen] for side, values in self.forecasts.items()},
            None if shares is None else shares.contracts(chosen),
        )

    @classmethod
    def unknown(cls, contracts: int, policy: MarginPolicy) -> "InitialInputs":
        """Return those of contracts nothing is known of."""
        section = policy.open_interest
        shares = None if section is None else OpenInterestShares.unknown(contracts, section)
        return cls({}, shares)


@dataclass(frozen=True)
class InitialRows:
    """Initial margins of k rows.

    Attributes:
        imr: rates, shape (k,).
        reason: what set each, in words.
        columns: what went in, by name of the column; none of what the policy does not have.
    """

    imr: FloatArray
    reason: Texts
    columns: Mapping[str, FloatArray]


def initial_rows(
    rows: TierRows,
    mmr: FloatArray,
    base: BoolArray,
    problem: Texts,
    *,
    costs: FloatArray,
    initial: InitialInputs,
    policy: MarginPolicy,
) -> InitialRows:
    """Return initial margin rates; those of the base schedule in force are taken as they are.

    Args:
        rows: of C contracts.
        mmr: their published maintenance margin rates, shape (k,).
        base: rows in which the base schedule is in force for want of a forecast.
        problem: why there is none; empty where there is one.
        costs: of closing the tier's notional, fractions, shape (k,).
        initial: forecasts and open interest.
        policy: the margin policy.
    """
    columns: dict[str, FloatArray] = {}
    need = None
    if policy.initial.forecast is not None:
        unknown = np.full(len(rows.symbols), np.nan)
        by_side = np.stack([initial.forecasts.get(side, unknown) for side in SIDES], axis=1)
        if policy.forecast.sides == "larger":
            by_side = np.broadcast_to(by_side.max(axis=1, keepdims=True), by_side.shape)
        plausible = (by_side > 0.0) & (by_side <= policy.forecast.largest_plausible)
        wanted = np.where(plausible, by_side, np.nan).ravel()[rows.group]
        columns["initial_forecast"] = np.where(problem == "", wanted, np.nan)
        need = columns["initial_forecast"] + costs
    imr, reason = initial_margin_rates(mmr, rows.base_imr, policy, need)
    reason[base] = BASE_IN_FORCE + problem[base]
    imr = np.where(base, rows.base_imr, imr)
    shares = initial.open_interest
    if policy.open_interest is not None and shares is not None:
        share, said = shares.share[rows.contract], shares.reason[rows.contract]
        imr = scaled_rates(imr, share, policy.rounding.imr_step)
        reason = np.where(share > 0.0, reason + "; raised for " + said, reason)
        columns["open_interest_usd"] = shares.usd[rows.contract]
        columns["open_interest_share"] = share
    return InitialRows(imr, reason, columns)


def fee_column(
    rows: TierRows,
    forecast: FloatArray,
    long_run: FloatArray,
    published: FloatArray,
    policy: MarginPolicy,
) -> dict[str, FloatArray]:
    """Return the fee multiplier of every row, the same in all rows of a contract.

    Args:
        rows: of C contracts.
        forecast: that margins the row, a fraction, shape (k,); NaN where it is not used.
        long_run: the row's long-run rate; NaN where it is not known.
        published: multipliers in force; NaN where there are none.
        policy: the margin policy.

    Returns:
        Empty for a policy without fees.
    """
    if policy.fees is None:
        return {}
    of_sides, rates, before = (
        values[rows.first].reshape(-1, len(SIDES)).T for values in (forecast, long_run, published)
    )
    made = fee_multipliers(fee_need(of_sides, rates), before[0], policy.fees)
    return {"fee_multiplier": made[rows.contract]}
