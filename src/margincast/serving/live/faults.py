"""Faults: the reasons why a live margin may not be believed now.

Responsible for their names, which are what an operator reads in a margin's reason, in the metrics
and in the table of injected faults.
"""

from collections.abc import Mapping
from enum import StrEnum

EVERYTHING = ""
"""Subject of a fault that concerns every contract."""


class Fault(StrEnum):
    """What can be wrong, the most telling first: the first of several is the one that is shown."""

    NO_CHAMPION = "no champion"
    FAILED_GATE = "failed gate"
    TAMPERED_BUNDLE = "tampered bundle"
    STORE_DOWN = "MLflow down"
    DISK_FULL = "disk full"
    NOT_PUBLISHED = "not published"
    CLOCK_SKEW = "clock skew"
    OVERLOAD = "overload"
    ENGINE_STOPPED = "engine stopped"
    STALE_FEED = "stale feed"
    NOT_A_NUMBER = "not a number"
    CROSSED_BOOK = "crossed book"
    BROKEN_ROW = "broken row"
    SPIKE = "spike against mark"
    NO_FORECAST = "no usable forecast"


ORDER = {fault: number for number, fault in enumerate(Fault)}

Faults = Mapping[str, Mapping[Fault, str]]
"""By contract, or :data:`EVERYTHING`: the faults there are now, each in words."""


def sentence(faults: Mapping[Fault, str]) -> str:
    """Say the most telling fault, and how many there are beside it.

    >>> sentence({Fault.SPIKE: "trade at 9, mark 5", Fault.CROSSED_BOOK: "bid 6, ask 5"})
    'crossed book: bid 6, ask 5 (and 1 more)'
    """
    first = min(faults, key=ORDER.__getitem__)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{first}: {faults[first]}{more}"
