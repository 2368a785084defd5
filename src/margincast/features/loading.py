"""Read a feature set from its file, and refuse before any data is read what cannot be built of it.

A margin must not wait an hour for data only to hear that a function's name is misspelt.
"""

from collections.abc import Iterable
from pathlib import Path

from margincast.core.errors import InputError
from margincast.features.alignment import require_standing
from margincast.features.plan import Plan
from margincast.features.tables import readings_of
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec


def load_feature_set(path: Path, overrides: Iterable[str] = ()) -> FeatureSet:
    """Read a feature set and hold it against the library of functions.

    Args:
        path: its file.
        overrides: ``section.key=value``, as in :func:`margincast.specs.loading.load_spec`.

    Raises:
        InputError: the file is missing, or what it says cannot be built: an unknown function or
            column, arguments that do not fit, a window off the grid, or a table that is read and
            of which it is not said how long a row stands. Names the file.
    """
    feature_set = load_spec(path, FeatureSet, overrides)
    try:
        Plan.of(feature_set)
        require_standing(feature_set.standing, _columns_by_table(feature_set))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return feature_set


def _columns_by_table(feature_set: FeatureSet) -> dict[str, list[str]]:
    columns: dict[str, set[str]] = {}
    for reading in readings_of(feature_set).values():
        for table, names in reading.names.items():
            columns.setdefault(table, set()).update(names)
    return {table: sorted(names) for table, names in columns.items()}
