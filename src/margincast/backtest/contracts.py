"""Per contract: whether a pooled model is right for each contract and not on average only.

Responsible for the contracts whose margin is too low although the pooled figures are fine, and for
those listed lately, of which a model has seen little or nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.backtest.scored import Decisions, Scores
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray
from margincast.models.protocol import Panel

BAND = (0.7, 1.35)
"""Exceedance ratios of a contract that count as right: 1 give or take about a third. At 0.99 nine
contracts in ten should lie within; at higher levels few contracts have the history to tell."""
NEW_LISTING_DAYS = 90
"""A contract is a new listing when its first decision lies in the test period or at most so long
before: one refit of a quarterly schedule."""


@dataclass(frozen=True)
class ContractCoverage:
    """How many contracts one model is right for at one level, sides pooled.

    Attributes:
        contracts: with a scored decision.
        within: share of them whose exceedance ratio lies within ``BAND``.
        outside: exceedance ratio of every other contract by name, the largest first.
        new_listings: how many of the contracts are new listings.
        new_listings_within: share of these within ``BAND``; NaN without any.
    """

    model: str
    level: float
    contracts: int
    within: float
    outside: dict[str, float]
    new_listings: int
    new_listings_within: float


def first_decisions(panel: Panel) -> dict[str, np.datetime64]:
    """Return each contract's first decision time, UTC; of a panel that goes back to listing."""
    symbols = panel.frame["symbol"].to_numpy(dtype=str)
    names, first = np.unique(symbols, return_index=True)  # rows are sorted by time
    return {str(name): panel.decided[row] for name, row in zip(names, first, strict=True)}


def new_listings(
    decisions: Decisions,
    first: Mapping[str, np.datetime64],
    test_start: np.datetime64,
) -> BoolArray:
    """Say of each contract whether it is a new listing, shape (C,).

    Args:
        decisions: the scored decisions.
        first: first decision of every contract, also before the test period.
        test_start: first decision of the test period.

    Raises:
        InputError: ``first`` lacks a contract.
    """
    missing = [symbol for symbol in decisions.symbols if symbol not in first]
    if missing:
        raise InputError(
            f"no first decision is known of {len(missing)} contract(s), for example {missing[0]}; "
            "give first_decisions() of the whole panel, history included"
        )
    since = test_start - np.timedelta64(NEW_LISTING_DAYS, "D")
    return np.array([first[symbol] > since for symbol in decisions.symbols])


def contract_table(decisions: Decisions, scores: Scores, new: BoolArray) -> pd.DataFrame:
    """Return one model's figures per contract, side (and both) and level, one row each.

    Args:
        decisions: the scored decisions.
        scores: of the model.
        new: which contracts are new listings, shape (C,).
    """
    sizes = np.bincount(decisions.contract_of).astype(np.float64)
    sums = {
        name: _by_contract(values, decisions.contract_of, len(sizes))
        for name, values in (
            ("hits", scores.hits),
            ("pinball", scores.losses),
            ("forecast", scores.forecasts),
            ("shortfall", scores.shortfalls),
        )
    }
    parts = []
    for row, side in enumerate((*decisions.sides, "both")):
        rows = [row] if side != "both" else list(range(len(decisions.sides)))
        count = len(rows) * sizes
        for column, level in enumerate(decisions.levels):
            own = {name: values[rows, column].sum(axis=0) for name, values in sums.items()}
            known = own["hits"] > 0
            parts.append(
                pd.DataFrame(
                    {
                        "model": scores.model,
                        "symbol": decisions.symbols,
                        "side": side,
                        "level": level,
                        "new_listing": new,
                        "decisions": count.astype(np.int64),
                        "exceedances": own["hits"].round().astype(np.int64),
                        "exceedance_ratio": own["hits"] / count / (1 - level),
                        "pinball": own["pinball"] / count,
                        "mean_forecast": own["forecast"] / count,
                        "shortfall_per_exceedance": np.divide(
                            own["shortfall"],
                            own["hits"],
                            out=np.full(len(sizes), np.nan),
                            where=known,
                        ),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def coverage_of(table: pd.DataFrame) -> list[ContractCoverage]:
    """Count the contracts within the band, per level, of one model's :func:`contract_table`."""
    found = []
    pooled = table[table["side"] == "both"]
    for level, own in pooled.groupby("level"):
        ratios = own.set_index("symbol")["exceedance_ratio"]
        within = ratios.between(*BAND)
        new = own["new_listing"].to_numpy()
        outside = ratios[~within].sort_values(ascending=False, kind="stable")
        found.append(
            ContractCoverage(
                model=str(own["model"].iloc[0]),
                level=float(level),  # type: ignore[arg-type] # a group's key, here a float
                contracts=len(own),
                within=float(within.mean()),
                outside={str(symbol): float(ratio) for symbol, ratio in outside.items()},
                new_listings=int(new.sum()),
                new_listings_within=float(within[new].mean()) if new.any() else float("nan"),
            )
        )
    return found


def _by_contract(
    values: FloatArray | BoolArray, contract_of: npt.NDArray[np.intp], count: int
) -> FloatArray:
    """Sum rows by contract: (S, L, n) becomes (S, L, C)."""
    rows = values.reshape(-1, values.shape[-1])
    summed = [np.bincount(contract_of, weights=row, minlength=count) for row in rows]
    return np.array(summed, dtype=np.float64).reshape(*values.shape[:-1], count)
