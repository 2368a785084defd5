"""What was promised and what came of it: forecasts or published margins, and their outcomes.

Responsible for keeping a margin's outcome out of sight until its horizon has passed: nothing that
judges a margin sees a record that was not cut to a moment by :meth:`Record.as_of`.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl

from margincast.core.errors import InputError
from margincast.core.time import instant64
from margincast.core.types import SIDES, FloatArray, Side, Times
from margincast.models.protocol import Panel, TailForecast


@dataclass(frozen=True)
class Record:
    """Promises at n decisions, and what followed.

    Attributes:
        subject: whose promises these are, such as ``perp-8h/3``.
        horizon: liquidation horizon.
        sides: S sides.
        levels: L levels, increasing.
        symbols: C contracts, sorted.
        contract: of each decision, a number of ``symbols``, shape (n,).
        decided: decision times, UTC, not decreasing, shape (n,).
        promised: adverse excursion that is not to be exceeded, fractions, shape (n, S, L); NaN
            where nothing was promised.
        outcomes: adverse excursion that followed, shape (n, S); NaN where it is not known.
    """

    subject: str
    horizon: timedelta
    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    symbols: tuple[str, ...]
    contract: npt.NDArray[np.intp]
    decided: Times
    promised: FloatArray
    outcomes: FloatArray

    def __len__(self) -> int:
        return len(self.decided)

    @property
    def matures(self) -> Times:
        """When each decision's horizon has passed, shape (n,)."""
        return np.asarray(self.decided + np.timedelta64(self.horizon))

    def as_of(self, at: datetime) -> "Record":
        """Return what was known at a moment: decisions up to it, outcomes of horizons passed."""
        moment = instant64(at)
        known = self.rows(self.decided <= moment)
        mature = known.matures <= moment
        return replace(known, outcomes=np.where(mature[:, None], known.outcomes, np.nan))

    def rows(self, keep: npt.NDArray[np.bool_]) -> "Record":
        """Return some of the decisions."""
        return replace(
            self,
            contract=self.contract[keep],
            decided=self.decided[keep],
            promised=self.promised[keep],
            outcomes=self.outcomes[keep],
        )

    @property
    def exceeded(self) -> FloatArray:
        """1 where the outcome went beyond the promise, 0 where not, shape (n, S, L).

        NaN where there was no promise or the outcome is not known.
        """
        outcomes = self.outcomes[:, :, None]
        known = ~np.isnan(outcomes) & ~np.isnan(self.promised)
        return np.where(known, outcomes > self.promised, np.nan)


def record_of_forecasts(
    subject: str, panel: Panel, forecast: TailForecast, horizon: timedelta
) -> Record:
    """Return the record of a model's forecasts.

    Args:
        subject: the model.
        panel: the n decisions, with the outcomes that are known.
        forecast: of the same decisions.
        horizon: that was forecast.
    """
    symbols, contract = np.unique(panel.frame["symbol"].to_numpy(dtype=str), return_inverse=True)
    order = np.lexsort((contract, panel.decided))
    return Record(
        subject,
        horizon,
        forecast.sides,
        forecast.levels,
        tuple(map(str, symbols)),
        contract[order],
        panel.decided[order],
        forecast.quantiles[order],
        np.stack([panel.outcomes[side] for side in forecast.sides], axis=1)[order],
    )


def record_of_margins(
    subject: str,
    levels: pd.DataFrame,
    outcomes: pl.DataFrame,
    *,
    horizon: timedelta,
    level: float,
) -> tuple[Record, dict[str, int]]:
    """Return the record of published margins of first tiers.

    What a margin must cover is the adverse excursion and the cost of closing, so it is promised
    that the excursion stays within ``mmr_in_force - liquidation_cost``. A contract's margin counts
    once a decision, as it was first published, and if it was made of the newest data of its
    publication, so that contracts of one publication are decisions of one moment.

    Args:
        subject: whose margins.
        levels: margin levels of publications, the oldest first, with the column ``published_at``.
        outcomes: see :func:`margincast.training.targets.outcome_table`.
        horizon: liquidation horizon of the policy.
        level: of the policy.

    Returns:
        The record, and by reason how many margins are not in it.

    Raises:
        InputError: the levels lack a column.
    """
    needed = [
        "symbol", "side", "tier", "mmr_in_force", "liquidation_cost", "status", "data_as_of",
        "published_at",
    ]  # fmt: skip
    absent = [name for name in needed if name not in levels]
    if absent:
        raise InputError(f"published margins of {subject} lack {', '.join(absent)}")
    first = levels.loc[levels["tier"] == 1, needed]
    counted = {"fallback: made of no decision": int(first["data_as_of"].isna().sum())}
    first = first.dropna(subset="data_as_of")
    late = first["published_at"] >= first["data_as_of"] + horizon
    counted["published after its horizon had passed"] = int(late.sum())
    first = first[~late]
    newest = first.groupby("published_at")["data_as_of"].transform("max")
    counted["of older data than others of the publication"] = int(
        (first["data_as_of"] < newest).sum()
    )
    first = first[first["data_as_of"] == newest]
    once = first.drop_duplicates(["symbol", "side", "data_as_of"], keep="first")
    counted["published again"] = len(first) - len(once)
    # a fallback has no cost; what closing costs is then not known to be covered or not
    promise = once["mmr_in_force"] - once["liquidation_cost"].fillna(0.0)
    promised = once.assign(promise=promise)
    key = ["data_as_of", "symbol"]
    wide = promised[key].drop_duplicates().sort_values(key, ignore_index=True)
    for side in SIDES:
        own = promised.loc[promised["side"] == side, [*key, "promise"]]
        wide = wide.merge(own.rename(columns={"promise": side}), on=key, how="left")
    joined = wide.merge(
        outcomes.to_pandas(),
        left_on=["symbol", "data_as_of"],
        right_on=["symbol", "ts"],
        how="left",
        validate="one_to_one",
    )
    symbols, contract = np.unique(joined["symbol"].to_numpy(dtype=str), return_inverse=True)
    decided = joined["data_as_of"].dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    return Record(
        subject,
        horizon,
        SIDES,
        (level,),
        tuple(map(str, symbols)),
        contract,
        decided,
        joined[list(SIDES)].to_numpy(np.float64)[:, :, None],
        joined[[f"outcome_{side}" for side in SIDES]].to_numpy(np.float64),
    ), counted
