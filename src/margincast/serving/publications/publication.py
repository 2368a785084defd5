"""One publication, read back: its margins, what they were made of, and what they leave behind.

Responsible for giving nothing of a publication whose bytes are not the ones that were published.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from margincast.core.errors import PublicationError
from margincast.margin.background import Remembered
from margincast.margin.level_inputs import LevelInputs
from margincast.margin.override import Override
from margincast.margin.tier_rows import TierRows, places_in, tier_rows
from margincast.serving.publications.record import RECORD, Record
from margincast.serving.publications.tables import (
    AFTER,
    CONTRACTS,
    LEVELS,
    arrow_of,
    read_inputs,
    read_levels,
    read_remembered,
)
from margincast.serving.scored import Origin
from margincast.specs.loading import validate_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

POLICY = "specs/policy.json"
SCHEDULE = "specs/schedule.json"
OVERRIDES = "overrides.json"
DECISIONS = "inputs/decisions.json"
"""Names the pieces of decisions that the model was asked about; absent where there was no model."""
_TIMES = ("begins", "expires")


def folder_name(number: int) -> str:
    """Return the folder of a publication.

    >>> folder_name(7)
    '000007'
    """
    return f"{number:06}"


@dataclass(frozen=True)
class Publication:
    """A numbered publication in a folder that never changes.

    Attributes:
        folder: where it lies.
        record: what it says of itself.
    """

    folder: Path
    record: Record

    @property
    def number(self) -> int:
        """1 for the first."""
        return self.record.number

    @property
    def name(self) -> str:
        """Its number as the folder has it."""
        return folder_name(self.number)

    @property
    def at(self) -> datetime:
        """Moment the margins were made for, UTC."""
        return self.record.at

    @property
    def published_at(self) -> datetime:
        """When, UTC."""
        return self.record.published_at

    @property
    def by(self) -> str:
        """Who published it."""
        return self.record.by

    @property
    def reason(self) -> str:
        """Why."""
        return self.record.reason

    @property
    def origin(self) -> Origin:
        """Model, feature set and policy behind every number."""
        return self.record.origin

    @cached_property
    def levels(self) -> pd.DataFrame:
        """The ``margin_levels`` table; a caller who changes it changes it for all."""
        parts = sorted(path for path in self.record.files if path.startswith(f"{LEVELS}/"))
        return read_levels([self.content(path) for path in parts])

    @cached_property
    def inputs(self) -> LevelInputs:
        """What the levels were made of; of a revert, those of the publication in force again."""
        return read_inputs(self.content)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The contracts, sorted."""
        return tuple(arrow_of(self.content(CONTRACTS))["symbol"].to_pylist())

    @cached_property
    def after(self) -> Remembered:
        """What it leaves behind for the next one."""
        return read_remembered(arrow_of(self.content(AFTER)))

    @cached_property
    def policy(self) -> MarginPolicy:
        """The margin policy behind it."""
        return validate_spec(self.read_json(POLICY), MarginPolicy, f"{POLICY} of {self.name}")

    @cached_property
    def schedule(self) -> BaseSchedule:
        """The base schedule behind it."""
        return validate_spec(self.read_json(SCHEDULE), BaseSchedule, f"{SCHEDULE} of {self.name}")

    @cached_property
    def overrides(self) -> tuple[Override, ...]:
        """The margins set by hand that were applied, oldest first."""
        return tuple(
            Override(
                **{
                    **one,
                    "mmr": math.nan if one["mmr"] is None else one["mmr"],
                    **{name: datetime.fromisoformat(one[name]) for name in _TIMES},
                }
            )
            for one in self.read_json(OVERRIDES)["overrides"]
        )

    @cached_property
    def rows(self) -> TierRows:
        """The rows of its contracts."""
        return tier_rows(self.symbols, self.schedule, self.policy)

    def remembered(self, rows: TierRows) -> Remembered:
        """Return what it leaves behind of some rows; contracts it does not have are new."""
        return self.after.rows(places_in(self.rows, rows))

    def content(self, path: str) -> bytes:
        """Return the bytes of one of its files.

        Raises:
            PublicationError: the file is missing or was changed.
        """
        try:
            content = (self.folder / path).read_bytes()
        except OSError as error:
            raise self._error(path, f"cannot be read ({error.strerror})") from error
        if hashlib.sha256(content).hexdigest() != self.record.files[path]:
            raise self._error(path, "was changed after it was published")
        return content

    def verify(self) -> None:
        """Check every file against its digest.

        Raises:
            PublicationError: names the first file that is missing, extra or changed.
        """
        found = {
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if not path.is_dir()
        }
        for path in sorted(found - set(self.record.files) - {RECORD}):
            raise self._error(path, "is not of the publication")
        for path in sorted(self.record.files):
            self.content(path)

    def read_json(self, path: str) -> dict[str, Any]:
        """Read one of its JSON files.

        Raises:
            PublicationError: the file is missing or was changed.
        """
        raw = json.loads(self.content(path))
        assert isinstance(raw, dict)
        return raw

    def _error(self, path: str, what: str) -> PublicationError:
        return PublicationError(
            f"publication {self.name} of {self.record.policy}: {path} {what}; it is not used: "
            "restore the folder from a backup"
        )


def overrides_json(overrides: tuple[Override, ...]) -> dict[str, Any]:
    """Return margins set by hand JSON-like, as :attr:`Publication.overrides` reads them."""
    return {
        "overrides": [
            {
                **asdict(one),
                "mmr": None if math.isnan(one.mmr) else one.mmr,
                **{name: getattr(one, name).isoformat() for name in _TIMES},
            }
            for one in overrides
        ]
    }
