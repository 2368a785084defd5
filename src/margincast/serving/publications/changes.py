"""What changed between two tables of margin levels, and which step of the policy it came from.

Responsible for the summary a person reads before margins are published. A rate is the sum of what
its steps added, so the change of a rate is the sum of the changes of what each step added; the
largest of them is named as the cause.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from margincast.core.types import FloatArray
from margincast.margin.chain import RULES
from margincast.margin.explanation import step_column

KEY = ["symbol", "side", "tier_floor_usd", "tier_cap_usd"]
"""Tells a level apart; one whose notionals changed is another one."""


@dataclass(frozen=True)
class Changes:
    """Levels of two tables side by side.

    Attributes:
        rows: a row a level of either table: ``symbol``, ``side``, ``tier_floor_usd``,
            ``tier_cap_usd``, ``tier``; ``mmr``, ``status``, ``binding_rule``, ``reason`` of each
            with ``_before`` and ``_after``, missing where the level is in one table only;
            ``change`` (relative, a fraction), ``cause`` (the step that moved it most, empty where
            it did not move) and ``cause_points`` (what that step added more, a fraction);
            ``notable``.
        threshold: relative change from which a level is notable; None flags none.
    """

    rows: pd.DataFrame
    threshold: float | None

    @property
    def new(self) -> int:
        """Levels that were not published before."""
        return int(self.rows["mmr_before"].isna().sum())

    @property
    def gone(self) -> int:
        """Levels that are published no more."""
        return int(self.rows["mmr_after"].isna().sum())

    @property
    def contracts_gone(self) -> tuple[str, ...]:
        """Contracts that have no level any more, sorted."""
        missing = self.rows["mmr_after"].isna().groupby(self.rows["symbol"]).all()
        return tuple(missing.index[missing])

    @property
    def rises(self) -> pd.DataFrame:
        """Levels that rose, the largest first."""
        found = self.rows[self.rows["change"] > 0.0]
        return found.sort_values(["change", *KEY], ascending=[False, *[True] * len(KEY)])

    @property
    def falls(self) -> pd.DataFrame:
        """Levels that fell, the largest first."""
        return self.rows[self.rows["change"] < 0.0].sort_values(["change", *KEY])

    @property
    def notable(self) -> int:
        """Levels that somebody should look at."""
        return int(self.rows["notable"].sum())

    def counts(self, column: str) -> pd.DataFrame:
        """Count levels by ``status`` or ``binding_rule``: a row a value, ``before``, ``after``."""
        counted = {
            name: self.rows[f"{column}_{name}"].dropna().value_counts()
            for name in ("before", "after")
        }
        return pd.DataFrame(counted).fillna(0).astype(int).sort_index()


def changes_between(
    before: pd.DataFrame, after: pd.DataFrame, threshold: float | None = None
) -> Changes:
    """Return what changed from one table of margin levels to another.

    A level is notable where its rate rose or fell by the threshold or more, or where it is in one
    of the tables only or only one of them has a forecast for it.

    Args:
        before: the earlier table; without rows, all levels are new.
        after: the later one.
        threshold: relative change, a fraction; None flags none.
    """
    columns = [*KEY, "tier", "mmr", "status", "binding_rule", "reason"]
    sides = []
    for table, name in ((before, "before"), (after, "after")):
        side = table[columns].reset_index(drop=True).rename(columns={"tier": f"tier_{name}"})
        side[f"row_{name}"] = np.arange(len(side), dtype=np.float64)
        sides.append(side)
    rows = sides[0].merge(
        sides[1], on=KEY, how="outer", suffixes=("_before", "_after"), validate="one_to_one"
    )
    rows["tier"] = rows["tier_after"].fillna(rows["tier_before"]).astype(int)
    rows["change"] = rows["mmr_after"] / rows["mmr_before"] - 1.0
    added = [
        _placed(_added(table), rows[f"row_{name}"].to_numpy())
        for table, name in ((before, "before"), (after, "after"))
    ]
    moved = added[1] - added[0]
    largest = np.argmax(np.abs(moved), axis=1)
    changed = (rows["mmr_after"] != rows["mmr_before"]).to_numpy()
    both = rows["change"].notna().to_numpy()
    rows["cause"] = np.where(changed & both, np.array(RULES, dtype=object)[largest], "")
    points = np.take_along_axis(moved, largest[:, None], axis=1)[:, 0]
    rows["cause_points"] = np.where(changed & both, points, np.nan)
    rows["notable"] = False
    if threshold is not None:
        rows["notable"] = (
            (rows["change"].abs() >= threshold)
            | ~both
            | (rows["status_before"] != rows["status_after"])
        )
    return Changes(
        rows.drop(columns=["tier_before", "tier_after", "row_before", "row_after"]), threshold
    )


def _added(table: pd.DataFrame) -> FloatArray:
    """Return what every rule added to every rate, shape (rows, rules)."""
    added = np.zeros((len(table), len(RULES)))
    value = np.zeros(len(table))
    for number, rule in enumerate(RULES):
        column = step_column(rule)
        if column not in table:
            continue
        own = table[column].to_numpy(np.float64)
        # a step that a row did not pass leaves its value
        after = np.where(np.isnan(own), value, own)
        added[:, number] = after - value
        value = after
    return added


def _placed(added: FloatArray, place: FloatArray) -> FloatArray:
    """Return rows at their places, zeros where there is none."""
    found = np.zeros((len(place), added.shape[1]))
    there = np.isfinite(place)
    found[there] = added[place[there].astype(np.intp)]
    return found
