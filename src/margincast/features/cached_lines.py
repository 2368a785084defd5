"""Name what is built of market data by all that its values hang on, and read it back or build it.

Kept is what costs more to build than to read: the reductions of order books and trades, and the
surfaces fitted to option chains. Functions over bars are not: reading them back, with the digests
that prove it right, takes longer than computing them (``benchmarks/feature_cache.py``).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from margincast.core.digest import digest_of
from margincast.features.cache import FeatureCache, Line
from margincast.features.code_version import Unkept, code_version, is_ours
from margincast.features.column_digest import digest_of_frame
from margincast.features.library import look_up
from margincast.features.sources import Origin
from margincast.specs.features import Feature, FeatureSet

_RUNS_THROUGH = {
    "book": ("margincast.features.order_book.reduction", "margincast.data.book"),
    "trades": (
        "margincast.features.trade_flow.reduction",
        "margincast.data.trades",
        "margincast.data.book",
    ),
}
"""Modules between the files and the decisions, beside that of each line's function."""

_ASKED_BY = ("margincast.features.pipeline", "margincast.features.reductions", __name__)
"""Modules that say what is to be built; they count without what they import."""


@dataclass(frozen=True)
class KnownLines:
    """Lines of a contract's book or trades, as far as they could be read back.

    Attributes:
        missing: lines that are to be computed, together and in one pass.
        completed: given ``ts`` and the columns of these (None where there are none), keeps them
            and returns all lines: what computing all of them gives.
    """

    missing: tuple[Feature, ...]
    completed: Callable[[pl.DataFrame | None], pl.DataFrame]


def reduced_lines(
    cache: FeatureCache | None,
    family: Literal["book", "trades"],
    feature_set: FeatureSet,
    *,
    origins: Sequence[Origin | None],
    names_of: Callable[[Sequence[Feature]], Collection[str]],
    details: Mapping[str, object],
) -> KnownLines:
    """Read back what a contract's book or trades were reduced to by the lines of a set.

    Books and trades are read lazily, so their lines are named by the digests of their files.

    Args:
        cache: where lines are kept; None knows none.
        family: section of the set.
        feature_set: the set.
        origins: of everything that is read; with one that is not known, nothing is kept.
        names_of: columns of some lines, in order.
        details: what else the values hang on, for example the number of book levels, or which
            part of the data is reduced.
    """
    entries: tuple[Feature, ...] = getattr(feature_set, family)
    if cache is None:
        return KnownLines(entries, _as_computed)
    known = [origin for origin in origins if origin is not None]
    grid = feature_set.grid.model_dump(mode="json", include={"interval", "minimum_present"})
    inputs = {"origins": [origin.digest() for origin in known], **grid, **details}
    lines = []
    for entry in entries:
        module = look_up(family, entry.function).build.__module__
        line = entry.model_dump(mode="json", exclude_defaults=True)
        key: str | Unkept
        if not is_ours(module):
            key = Unkept("their function is not part of the package")
        elif len(known) < len(origins):
            key = Unkept("which files they come from is not known")
        else:
            key = _key(cache, inputs | {"line": line}, (module, *_RUNS_THROUGH[family]))
        lines.append(Line(family, ("ts", *names_of((entry,))), key))
    found = cache.look_up(lines)

    def completed(made: pl.DataFrame | None) -> pl.DataFrame:
        first, *others = cache.completed(
            found, made, unchanged=lambda: all(origin.is_unchanged() for origin in known)
        )
        return first.hstack([series for frame in others for series in frame.drop("ts")])

    return KnownLines(tuple(entries[number] for number in found.missing), completed)


def _as_computed(made: pl.DataFrame | None) -> pl.DataFrame:
    assert made is not None, "without a cache all lines are computed"
    return made


def kept_states(
    cache: FeatureCache | None,
    family: Literal["options"],
    rows: pl.DataFrame,
    *,
    build: Callable[[pl.DataFrame], pl.DataFrame],
    details: Mapping[str, object],
    module: str,
) -> pl.DataFrame:
    """Compute states of a table in memory that take long, such as a fit, or read them back.

    Args:
        cache: where they are kept; None computes them.
        family: folder of the entry.
        rows: the table; its content is part of the entry's name.
        build: gives the states: times, floats and whole numbers.
        details: what else the values hang on.
        module: where they are computed.

    Returns:
        What ``build`` gives.
    """
    if cache is None:
        return build(rows)
    key: str | Unkept
    try:
        content = digest_of_frame(rows)
    except TypeError as error:
        key = Unkept(str(error))
    else:
        key = _key(cache, {"rows": content, **details}, (module,))
    (states,) = cache.lines([Line(family, None, key)], lambda _missing: build(rows))
    return states


def _key(
    cache: FeatureCache, inputs: Mapping[str, object], modules: tuple[str, ...]
) -> str | Unkept:
    version = code_version(modules, _ASKED_BY, cache.source)
    return version if isinstance(version, Unkept) else digest_of({**inputs, "code": version})
