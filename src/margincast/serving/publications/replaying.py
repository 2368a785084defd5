"""A past publication made again from what was recorded with it, compared to the last bit.

Responsible for the proof that a margin depends on its recorded inputs only. Whoever doubts a margin
can have it computed anew, years later, without the data of that day.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from margincast.data.writing import arrow_table
from margincast.serving.batch import levels_from
from margincast.serving.publications.publication import Publication
from margincast.serving.publications.reverting import reverted
from margincast.serving.publications.store import PublicationStore
from margincast.serving.publications.tables import AFTER, LEVELS, levels_files, remembered_bytes
from margincast.serving.scored import Scored

_COLUMNS = ["symbol", "side", "tier", "column", "published", "replayed"]


@dataclass(frozen=True)
class Replayed:
    """A publication and the same margins made again.

    Attributes:
        publication: as it was published.
        levels: as they were made again.
        differing: a row a value that is not the same bits: ``symbol``, ``side``, ``tier``,
            ``column``, ``published``, ``replayed`` (as text).
        memory_differs: what it leaves behind is not the same.
        same_bytes: the files made again are the published ones byte by byte; other versions of a
            library may write the same values in other bytes.
    """

    publication: Publication
    levels: pd.DataFrame
    differing: pd.DataFrame
    memory_differs: bool
    same_bytes: bool

    @property
    def equal(self) -> bool:
        """Whether every value is the same to the last bit."""
        return self.differing.empty and not self.memory_differs


def replayed(store: PublicationStore, number: int) -> Replayed:
    """Make a publication again from its recorded inputs.

    A revert is made again from the publication it put in force again and the one before it.

    Args:
        store: of the policy's publications.
        number: of the publication.

    Raises:
        InputError: there is no such publication.
        PublicationError: it does not verify, or its specs are of another version of margincast.
    """
    publication = store.read(number)
    made = _made(store, publication)
    files = {**levels_files(made.levels), AFTER: remembered_bytes(made.after)}
    published = publication.record.files
    levels = {path for path in published if path.startswith(f"{LEVELS}/")}
    same = levels == set(files) - {AFTER} and all(
        sha256(content).hexdigest() == published[path] for path, content in files.items()
    )
    return Replayed(
        publication,
        made.levels,
        _no_difference() if same else differences(publication.levels, made.levels),
        not same and files[AFTER] != remembered_bytes(publication.after),
        same,
    )


def _made(store: PublicationStore, publication: Publication) -> Scored:
    back = publication.record.reverts_to
    if back is not None:
        return reverted(store.read(back), store.read(publication.number - 1), publication.at)
    return levels_from(
        publication.inputs,
        publication.policy,
        publication.schedule,
        publication.origin,
        publication.overrides,
    )


def differences(published: pd.DataFrame, made: pd.DataFrame) -> pd.DataFrame:
    """Return every value in which two tables of margin levels differ, a row a value.

    A column, or the set of levels, that only one of them has counts as one value.
    """
    key = ["symbol", "side", "tier"]
    if [*map(tuple, published[key].to_numpy())] != [*map(tuple, made[key].to_numpy())]:
        what = ["", "", 0, "levels", f"{len(published)} levels", f"{len(made)} others"]
        return pd.DataFrame([what], columns=_COLUMNS)
    found = [_no_difference()]
    for column in dict.fromkeys([*published.columns, *made.columns]):
        if column not in published or column not in made:
            sides = ["present" if column in one else "absent" for one in (published, made)]
            found.append(pd.DataFrame([["", "", 0, column, *sides]], columns=_COLUMNS))
            continue
        one, other = (_bits(arrow_table(table[[column]])[column]) for table in (published, made))
        rows = np.flatnonzero(one != other)
        part = published[key].iloc[rows].reset_index(drop=True)
        texts = [[str(table[column].iloc[int(row)]) for row in rows] for table in (published, made)]
        found.append(part.assign(column=column, published=texts[0], replayed=texts[1]))
    return pd.concat([part for part in found if len(part)] or found[:1], ignore_index=True)


def _no_difference() -> pd.DataFrame:
    return pd.DataFrame(columns=_COLUMNS)


def _bits(column: pa.ChunkedArray) -> "np.ndarray[tuple[int], np.dtype[Any]]":
    """Return values as what can be compared bit by bit; what is missing equals itself."""
    if pa.types.is_floating(column.type):
        values = np.asarray(column.to_numpy(), dtype=np.float64)
        return np.where(np.isnan(values), np.nan, values).view(np.int64)
    return np.array(column.to_pylist(), dtype=object)
