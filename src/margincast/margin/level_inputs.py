"""All that margin levels are made of beside policy and schedule: recorded, they can be made again.

Responsible for the values a published margin hangs on, contract by contract and row by row. Whoever
keeps them with the specs can compute every number of the table anew, to the last bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.types import SIDES, FloatArray, Times
from margincast.margin.background import Background, Remembered
from margincast.margin.beside_maintenance import InitialInputs
from margincast.margin.tier_rows import TierRows
from margincast.specs.serving import MarginPolicy

Texts = npt.NDArray[np.object_]
TableColumns = Mapping[str, Any]
"""Arrays, pandas' indexes or series, of one length."""


@dataclass(frozen=True)
class LevelInputs:
    """What the levels of C contracts with k rows are made of.

    Attributes:
        symbols: the C contracts, in the order of their rows.
        forecasts: quantile forecasts at the policy's level and horizon, fractions, shape (C, S),
            sides in the order of ``SIDES``; NaN where not known.
        data_as_of: decision time of the newest data behind them, shape (C,), UTC; NaT where none.
        reasons: why no forecast was asked for, shape (C,); empty where one was.
        costs: of closing each tier's notional, fractions, shape (k,); NaN where not asked for.
        cost_reasons: where they come from, shape (k,).
        background: the moment, memory and references; shape (k,) each.
        initial: what initial margins hang on beside the maintenance margin.
    """

    symbols: tuple[str, ...]
    forecasts: FloatArray
    data_as_of: Times
    reasons: Texts
    costs: FloatArray
    cost_reasons: Texts
    background: Background
    initial: InitialInputs

    def contracts(self, chosen: npt.NDArray[np.intp], rows: npt.NDArray[np.intp]) -> "LevelInputs":
        """Return those of some contracts.

        Args:
            chosen: numbers of the contracts.
            rows: numbers of all their rows.
        """
        return LevelInputs(
            tuple(self.symbols[number] for number in chosen.tolist()),
            self.forecasts[chosen],
            self.data_as_of[chosen],
            self.reasons[chosen],
            self.costs[rows],
            self.cost_reasons[rows],
            self.background.rows(rows),
            self.initial.contracts(chosen),
        )

    @classmethod
    def unknown(
        cls, rows: TierRows, reasons: Texts, background: Background, policy: MarginPolicy
    ) -> "LevelInputs":
        """Return those of contracts that cannot be forecast.

        Args:
            rows: of the contracts.
            reasons: why, shape (C,).
            background: the moment, and what was published last.
            policy: the margin policy.
        """
        contracts = len(rows.symbols)
        return cls(
            rows.symbols,
            np.full((contracts, len(SIDES)), np.nan),
            np.full(contracts, np.datetime64("NaT", "us")),
            reasons,
            np.full(len(rows), np.nan),
            np.full(len(rows), "", dtype=object),
            background,
            InitialInputs.unknown(contracts, policy),
        )


@dataclass(frozen=True)
class MadeLevels:
    """Margin levels, and what they leave behind.

    Attributes:
        columns: of the levels, a value a row.
        after: what the policy remembers for the next moment.
    """

    columns: TableColumns
    after: Remembered

    @cached_property
    def table(self) -> pd.DataFrame:
        """The levels, a row a row."""
        return pd.DataFrame(dict(self.columns))
