"""Two models on the decisions both were asked: which loses more, and is that more than chance.

Responsible for the sentence "the candidate is no worse than the champion", also where they come
from different jobs: only days and contracts with the same decisions and outcomes count, the rest is
counted by reason. A day, all contracts in it, is one observation; days may depend on each other.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from margincast.backtest.cosine_variance import cosine_long_run_variance
from margincast.backtest.daily_losses import KEYS
from margincast.core.errors import InputError
from margincast.core.types import FloatArray

SAME_OUTCOME = 1e-9
"""Largest relative difference of mean outcomes that rounding may cause."""


@dataclass(frozen=True)
class LossDifference:
    """Diebold-Mariano on daily losses; a positive difference: the first model loses more.

    Attributes:
        horizon_minutes: liquidation horizon.
        level: None for all levels together, each with one weight.
        first_loss: mean pinball loss, sides pooled, fraction of the decision price; NaN for all
            levels together.
        second_loss: the same of the second model.
        difference: first less second loss, as a share of the second loss (0.02: 2 % more).
        standard_error: of the difference.
        statistic: their ratio.
        degrees_of_freedom: of its Student's t.
        p_value: two-sided.
        p_worse: one-sided: how often a first model that is no worse would look so much worse.
        days: days in common.
    """

    horizon_minutes: int
    level: float | None
    first_loss: float
    second_loss: float
    difference: float
    standard_error: float
    statistic: float
    degrees_of_freedom: int
    p_value: float
    p_worse: float
    days: int

    def worse(self, significance: float) -> bool:
        """Whether the first model is worse than the second beyond chance.

        False also where that cannot be told; :meth:`highest` says what cannot be excluded.
        """
        return self.p_worse < significance

    def highest(self, confidence: float) -> float:
        """Return the largest difference that is not excluded, a one-sided bound.

        Infinite with a single day.
        """
        if self.degrees_of_freedom == 0:
            return math.inf
        quantile = float(special.stdtrit(self.degrees_of_freedom, confidence))
        return self.difference + quantile * self.standard_error


@dataclass(frozen=True)
class Shared:
    """What two tables of losses have in common, and what they have not.

    Attributes:
        decisions: in common, a side each.
        contract_days: days of a contract at one horizon and side, in common.
        left_out: days of a contract left out, with the reason as key; zeros included.
        contracts: in common.
        first_day: of those in common, UTC.
        last_day: of the same.
    """

    decisions: int
    contract_days: int
    left_out: dict[str, int]
    contracts: tuple[str, ...]
    first_day: pd.Timestamp
    last_day: pd.Timestamp


@dataclass(frozen=True)
class DailyComparison:
    """Two models on the decisions they share.

    Attributes:
        differences: per horizon all levels together, then every level in common.
        shared: what was compared.
        rows: the shared rows of both tables, columns of the losses with ``_first`` and ``_second``.
    """

    differences: tuple[LossDifference, ...]
    shared: Shared
    rows: pd.DataFrame

    def difference(self, horizon_minutes: int, level: float | None = None) -> LossDifference:
        """Return one difference; ``level`` None is all levels together.

        Raises:
            InputError: the models have no such horizon and level in common.
        """
        for found in self.differences:
            if (found.horizon_minutes, found.level) == (horizon_minutes, level):
                return found
        known = ", ".join(f"{one.horizon_minutes} min {one.level}" for one in self.differences)
        raise InputError(
            f"level {level} over {horizon_minutes} min was not compared; there is: {known}"
        )


def compare_daily(first: pd.DataFrame, second: pd.DataFrame) -> DailyComparison:
    """Compare two models' losses on the decisions that both were asked.

    Both tables are cut to the days of a contract (at one horizon, side and level) that both have,
    with the same number of decisions and the same mean outcome. With ``a`` and ``b`` the day's sums
    of losses, ``B`` the second model's sum over all days and ``w`` the day's share of all
    decisions, the difference is ``sum(a - b) / B`` and its standard error that of the sum over days
    of ``(a - b) / B - difference w``, by
    :func:`~margincast.backtest.cosine_variance.cosine_long_run_variance`: where every day has as
    many decisions, Diebold and Mariano's test of the daily mean losses. All levels together: the
    mean of the levels' differences, day by day.

    Args:
        first: table of :class:`~margincast.backtest.daily_losses.DailyLosses` of one model, as a
            rule the candidate.
        second: that of the other, as a rule the champion.

    Raises:
        InputError: no day, contract, horizon, side and level with the same decisions in both.

    Source: Diebold and Mariano (1995), doi:10.1080/07350015.1995.10524599; days as clusters of all
    contracts: Driscoll and Kraay (1998), doi:10.1162/003465398557825.
    """
    rows, shared = _shared(first, second)
    differences = []
    for minutes, of_horizon in rows.groupby("horizon_minutes", sort=True):
        numbered = of_horizon.assign(day_number=_numbered(of_horizon["day"]))
        days = int(numbered["day_number"].max()) + 1
        of_levels = [
            _Daily.of(cell, float(str(level)), days)
            for level, cell in numbered.groupby("level", sort=True)
        ]
        horizon = int(str(minutes))
        differences.append(_test(_together(of_levels), horizon))
        differences += [_test(daily, horizon) for daily in of_levels]
    return DailyComparison(tuple(differences), shared, rows)


@dataclass(frozen=True)
class _Daily:
    """One level's losses by calendar day, D days from the first to the last in common.

    Attributes:
        relative: first less second loss, summed over the day, over the second's sum of all days.
        weight: the day's share of all decisions.
    """

    level: float | None
    first_loss: float
    second_loss: float
    relative: FloatArray
    weight: FloatArray

    @classmethod
    def of(cls, cell: pd.DataFrame, level: float, days: int) -> "_Daily":
        decisions = cell["decisions"].to_numpy(dtype=np.float64)

        def by_day(values: FloatArray) -> FloatArray:
            sums = np.bincount(cell["day_number"], weights=values, minlength=days)
            return np.asarray(sums, dtype=np.float64)

        first = by_day(cell["pinball_first"].to_numpy() * decisions)
        second = by_day(cell["pinball_second"].to_numpy() * decisions)
        if not second.any():
            raise InputError(
                f"the second model's losses at {level:g} are all zero, so nothing can be related "
                "to them; it knew every outcome"
            )
        return cls(
            level=level,
            first_loss=float(first.sum() / decisions.sum()),
            second_loss=float(second.sum() / decisions.sum()),
            relative=(first - second) / second.sum(),
            weight=by_day(decisions) / decisions.sum(),
        )


def _numbered(day: "pd.Series[pd.Timestamp]") -> npt.NDArray[np.int64]:
    number = day.dt.tz_localize(None).to_numpy(dtype="datetime64[D]").astype(np.int64)
    return np.asarray(number - number.min())


def _shared(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, Shared]:
    keys = list(KEYS)
    both = first.merge(second, on=keys, how="outer", suffixes=("_first", "_second"), indicator=True)
    here, there = both["_merge"] == "left_only", both["_merge"] == "right_only"
    asked = ~here & ~there
    counts = asked & (both["decisions_first"] != both["decisions_second"])
    outcomes = np.isclose(
        both["mean_outcome_first"], both["mean_outcome_second"], rtol=SAME_OUTCOME, atol=0.0
    )
    changed = asked & ~counts & ~outcomes
    same = asked & ~counts & ~changed
    reasons = {
        "only in the first": here,
        "only in the second": there,
        "other decisions": counts,
        "other outcomes": changed,
    }
    without_level = [key for key in keys if key != "level"]
    left_out = {
        reason: int((~both.loc[rows, without_level].duplicated()).sum())
        for reason, rows in reasons.items()
    }
    kept = both.loc[same].drop(columns=["_merge", "decisions_second"])
    if kept.empty:
        why = "; ".join(f"{reason}: {count:,}" for reason, count in left_out.items() if count)
        raise InputError(
            "the two have no decisions in common, so their losses cannot be compared (days of a "
            f"contract {why or 'none at all'}); compare runs whose test periods, contracts, "
            "horizons, levels and data overlap"
        )
    rows = kept.rename(columns={"decisions_first": "decisions"}).reset_index(drop=True)
    units = rows.loc[~rows[without_level].duplicated()]
    return rows, Shared(
        decisions=int(units["decisions"].sum()),
        contract_days=len(units),
        left_out=left_out,
        contracts=tuple(sorted(units["symbol"].unique())),
        first_day=units["day"].min(),
        last_day=units["day"].max(),
    )


def _together(levels: list[_Daily]) -> _Daily:
    """Average over levels, day by day."""
    return _Daily(
        level=None,
        first_loss=math.nan,
        second_loss=math.nan,
        relative=np.mean([one.relative for one in levels], axis=0),
        weight=np.mean([one.weight for one in levels], axis=0),
    )


def _test(daily: _Daily, horizon_minutes: int) -> LossDifference:
    difference = float(daily.relative.sum())
    days = int(np.count_nonzero(daily.weight))
    influence = daily.relative - difference * daily.weight
    variance, degrees = cosine_long_run_variance(influence, observed=days)
    error = math.sqrt(variance * influence.size) if degrees else math.inf
    statistic = difference / error if error > 0.0 else math.copysign(math.inf, difference)
    if difference == 0.0 or not degrees:
        statistic = 0.0
    return LossDifference(
        horizon_minutes=horizon_minutes,
        level=daily.level,
        first_loss=daily.first_loss,
        second_loss=daily.second_loss,
        difference=difference,
        standard_error=error,
        statistic=statistic,
        degrees_of_freedom=degrees,
        p_value=2.0 * float(special.stdtr(degrees, -abs(statistic))) if degrees else 1.0,
        p_worse=float(special.stdtr(degrees, -statistic)) if degrees else 1.0,
        days=days,
    )
