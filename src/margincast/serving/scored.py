"""A table of margin levels with what it was made of: what is published, and served.

Responsible for the record beside the numbers, and for being read without what made them: who serves
margins loads no forecaster.
"""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from margincast.margin.background import Remembered
from margincast.margin.level_inputs import LevelInputs, TableColumns
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy


@dataclass(frozen=True)
class Origin:
    """What a table of margin levels was made from."""

    model_version: str
    feature_set_hash: str
    policy_hash: str


@dataclass(frozen=True)
class Scored:
    """Margin levels, and all that is needed to make them again or to go on from them.

    Attributes:
        columns: of the ``margin_levels`` table.
        inputs: what it was made of, beside policy, schedule and overrides.
        after: what it leaves behind for the next one.
        origin: what stands beside every number.
    """

    columns: TableColumns
    inputs: LevelInputs
    after: Remembered
    origin: Origin

    @cached_property
    def levels(self) -> pd.DataFrame:
        """The ``margin_levels`` table."""
        return pd.DataFrame(dict(self.columns))


def policy_hash(policy: MarginPolicy, schedule: BaseSchedule) -> str:
    """Digest of all that an operator chose between forecast and margin."""
    return f"{policy.digest()[:32]}{schedule.digest()[:32]}"
