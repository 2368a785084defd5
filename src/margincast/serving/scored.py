"""A table of margin levels with what it was made of: what is published, and served.

Responsible for the record beside the numbers, and for being read without what made them: who serves
margins loads no forecaster.
"""

from dataclasses import dataclass

import pandas as pd

from margincast.margin.background import Remembered
from margincast.margin.level_inputs import LevelInputs
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
        levels: the ``margin_levels`` table.
        inputs: what it was made of, beside policy, schedule and overrides.
        after: what it leaves behind for the next one.
        origin: what stands beside every number.
    """

    levels: pd.DataFrame
    inputs: LevelInputs
    after: Remembered
    origin: Origin


def policy_hash(policy: MarginPolicy, schedule: BaseSchedule) -> str:
    """Digest of all that an operator chose between forecast and margin."""
    return f"{policy.digest()[:32]}{schedule.digest()[:32]}"
