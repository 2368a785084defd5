"""The library dealt out to rooms: feature sets small enough to be built ten thousand times.

Together they hold every function of every family as it is registered now, over short windows, and
one room holds them all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from tests.features.look_ahead_market import LEADER, OF_LEADER, STATES

from margincast.features import plan
from margincast.features.library import LIBRARY, Family, FeatureFunction
from margincast.specs.features import Feature, FeatureSet
from margincast.specs.loading import validate_spec

assert plan.FAMILIES  # their import fills the library

WINDOWS: Mapping[str, str] = {
    "intraday_seasonality": "4d",
    "weekly_seasonality": "14d",
    "hill_tail_index": "30d",
    "large_move_size": "7d",
}
"""Windows of functions that need more than :data:`WINDOW`."""

WINDOW = "2d"
TENOR = "15d"
"""A window of the options family is a tenor: within the chain's expiries, as is one four times as
long."""

VALUES: Mapping[str, tuple[float, ...]] = {
    "bars": (0.8,),
    "book": (2.0,),
    "trades": (1.0,),
    "derivatives": (0.003,),
    "implied_vol": (30.0,),
    "options": (30.0,),
    "calendar": (8.0,),
}
"""By family, the value that functions run over which take one."""

VALUES_OF: Mapping[str, tuple[float, ...]] = {
    "imbalance_within": (10.0,),
    "bid_depth_usd_within": (10.0,),
    "ask_depth_usd_within": (10.0,),
    "cost_to_buy": (5000.0,),
    "cost_to_sell": (5000.0,),
    "effective_spread": (5000.0,),
    "depth_shortage": (10_000.0,),
    "depth_recovery": (3.0,),
}
"""Values of functions whose family's does not fit them."""

MOVE, SCALE = "log_return_12h", "parkinson_volatility_2d"
"""The columns that market functions read."""

STATISTICS = ("last", "mean", "deviation", "time_mean", "minimum", "rank")
MARKET_CONTRACTS = 6
BAR_ROOMS = 10


@dataclass(frozen=True)
class Room:
    """A part of the library, built together.

    Attributes:
        name: for people.
        features: the feature set.
        tables: what it reads.
        contracts: contracts in a build.
        together: whether a row hangs on all contracts, so that they share one decision.
        share: share of all cases that this room gets.
    """

    name: str
    features: FeatureSet
    tables: tuple[str, ...]
    contracts: int
    together: bool
    share: float

    @property
    def lines(self) -> list[tuple[str, Feature]]:
        """Family and line of everything it builds."""
        return [
            (family, line) for family in get_args(Family) for line in getattr(self.features, family)
        ]


def rooms() -> list[Room]:
    """Deal out the library as it is registered now."""
    of = {family: _lines(family) for family, _ in LIBRARY}
    across, beside = (
        {
            "bars": _panel_bars(),
            "market": [line for line in of["market"] if ("windows" in line) == against_leader],
        }
        for against_leader in (False, True)
    )
    derivatives = of.get("derivatives", [])
    everything = of | {"bars": _distinct([*of["bars"], *_panel_bars()])}
    dealt = [
        room("calendar", {"calendar": of["calendar"]}, 0.16),
        *(
            room(f"bars {part + 1}", {"bars": of["bars"][part::BAR_ROOMS]}, 0.073)
            for part in range(BAR_ROOMS)
        ),
        *(
            room(f"derivatives {part + 1}", {"derivatives": derivatives[part::2]}, 0.03)
            for part in range(2)
        ),
        room("book", {"book": of["book"]}, 0.025),
        room("trades", {"trades": of["trades"]}, 0.012),
        room("beside the leader", beside, 0.025),
        room("across contracts", across, 0.006, contracts=MARKET_CONTRACTS, together=True),
        *(
            room(family, {family: of.get(family, [])}, share, contracts=1, together=True)
            for family, share in (("implied_vol", 0.012), ("options", 0.003))
        ),
        room("everything", everything, 0.001, contracts=2, together=True),
    ]
    return [part for part in dealt if part.lines]


def room(
    name: str,
    sections: Mapping[str, Sequence[object]],
    share: float = 1.0,
    contracts: int = 40,
    *,
    together: bool = False,
) -> Room:
    """Make a room of some lines of a feature set."""
    features = validate_spec(
        {
            "name": "look-ahead",
            "description": name,
            "grid": {
                "interval": "12h", "warm_up": "3d", "minimum_present": 0.5, "leader": LEADER
            },
            "standing": {
                "funding": "1d", "open_interest": "1d", "implied_vol": "1d", "options": "11d"
            },
            **{family: list(lines) for family, lines in sections.items()},
        },
        FeatureSet,
        name,
    )  # fmt: skip
    tables = ["bars"]
    if sections.get("book"):
        tables.append("book")
    if sections.get("trades"):
        tables += ["book", "trades"]
    if sections.get("derivatives"):
        tables += [table for table in STATES if table not in OF_LEADER]
    tables += [family for family in OF_LEADER if sections.get(family)]
    return Room(name, features, tuple(dict.fromkeys(tables)), contracts, together, share)


def _distinct(lines: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    return [line for place, line in enumerate(lines) if line not in lines[:place]]


def _panel_bars() -> list[dict[str, object]]:
    return [
        {"function": "log_return", "windows": ["12h"]},
        {"function": "parkinson_volatility", "windows": [WINDOW]},
    ]


def _lines(family: str) -> list[dict[str, object]]:
    functions = [function for (of, _), function in LIBRARY.items() if of == family]
    return [_line(function, number) for number, function in enumerate(functions)]


def _line(function: FeatureFunction, number: int) -> dict[str, object]:
    line: dict[str, object] = {"function": function.name}
    usual = TENOR if function.family == "options" else WINDOW
    windows = [WINDOWS.get(function.name, usual)]
    if function.family == "book":
        # two statistics each, in turn: five of the functions meet all of them
        statistic = STATISTICS[1:][number % (len(STATISTICS) - 1)]
        line |= {"statistics": ["last", statistic], "windows": windows}
    if function.argument in ("windows", "columns and windows"):
        line["windows"] = windows
    if function.argument in ("columns", "columns and windows"):
        line["columns"] = [MOVE]
    if function.argument == "pairs":
        line["columns"] = [MOVE, SCALE]
    if function.argument == "values":
        line["values"] = list(VALUES_OF.get(function.name, VALUES[function.family]))
    return line
