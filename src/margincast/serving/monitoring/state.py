"""What a monitor remembers from run to run: settled bets, and alarms that are raised.

One JSON file with its own digest, written whole or not at all. A file that was changed or cut is
refused; the tallies in it follow from recorded publications and data and can be made again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from margincast.core.digest import digest_of
from margincast.core.errors import InputError
from margincast.core.time import instant64, parse_instant
from margincast.core.types import FloatArray
from margincast.data.writing import write_text
from margincast.serving.monitoring.alarm import AlarmState
from margincast.serving.monitoring.betting import DIRECTIONS, Evidence
from margincast.serving.monitoring.tally import Tally

FORMAT = "margincast-monitor 1"


class StateError(InputError):
    """A monitor's state cannot be used; says why."""


@dataclass(frozen=True)
class State:
    """A monitor's memory.

    Attributes:
        settings: digest of all that tallies hang on beside records.
        at: moment of the last run.
        tallies: by name of the record.
        alarms: by key of the check.
    """

    settings: str
    at: datetime
    tallies: Mapping[str, Tally]
    alarms: Mapping[str, AlarmState]


def write_state(state: State, path: Path) -> None:
    """Write a state; its folder is made where it does not exist."""
    body = {
        "format": FORMAT,
        "settings": state.settings,
        "at": state.at.isoformat(),
        "tallies": {name: _of_tally(tally) for name, tally in state.tallies.items()},
        "alarms": {
            key: [_text(alarm.raised_at), _text(alarm.good_since)]
            for key, alarm in state.alarms.items()
        },
    }
    write_text(path, json.dumps({**body, "digest": digest_of(body)}, allow_nan=False) + "\n")


def read_state(path: Path, settings: str) -> State | None:
    """Read a state; None where there is none yet.

    Args:
        path: the file.
        settings: digest of what tallies hang on now.

    Raises:
        StateError: the file is damaged, or of other settings.
    """
    try:
        raw = json.loads(path.read_bytes())
        body = {name: value for name, value in raw.items() if name != "digest"}
        if raw["format"] != FORMAT or raw["digest"] != digest_of(body):
            raise StateError(f"{path} was changed after it was written, or is of another version")
        if raw["settings"] != settings:
            raise StateError(f"{path} was kept under other settings of the monitor")
        return State(
            raw["settings"],
            parse_instant(raw["at"]),
            {name: _tally(value) for name, value in raw["tallies"].items()},
            {
                key: AlarmState(_instant(raised), _instant(good))
                for key, (raised, good) in raw["alarms"].items()
            },
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateError(f"{path} is damaged ({error})") from error


def _of_tally(tally: Tally) -> dict[str, Any]:
    return {
        "subject": tally.subject,
        "sides": tally.sides,
        "levels": tally.levels,
        "symbols": tally.symbols,
        "last": None if np.isnat(tally.last) else str(tally.last),
        "shares": _numbers(tally.shares),
        "pooled": {name: _of_evidence(one) for name, one in tally.pooled.items()},
        "own": {name: _of_evidence(one) for name, one in tally.own.items()},
        "reached": tally.reached,
        "lost": tally.lost,
    }


def _tally(raw: Mapping[str, Any]) -> Tally:
    levels, sides = tuple(raw["levels"]), tuple(raw["sides"])
    last = raw["last"]
    return Tally(
        raw["subject"],
        sides,
        levels,
        tuple(raw["symbols"]),
        np.datetime64("NaT", "us") if last is None else instant64(parse_instant(last)),
        _array(raw["shares"]).reshape(-1, len(sides) * len(levels)),
        {name: _evidence(raw["pooled"][name], name) for name in DIRECTIONS},
        {name: _evidence(raw["own"][name], name) for name in DIRECTIONS},
        {name: float(raw["reached"][name]) for name in DIRECTIONS},
        int(raw["lost"]),
    )


def _of_evidence(evidence: Evidence) -> dict[str, Any]:
    return {
        "bets": evidence.bets.tolist(),
        "wealth": evidence.wealth.tolist(),
        "largest": evidence.largest.tolist(),
    }


def _evidence(raw: Mapping[str, Any], direction: str) -> Evidence:
    empty = Evidence.none(cast("Any", direction), len(raw["bets"]))
    return Evidence(
        empty.direction,
        np.array(raw["bets"], dtype=np.int64),
        np.array(raw["wealth"], dtype=np.float64).reshape(empty.wealth.shape),
        np.array(raw["largest"], dtype=np.float64),
    )


def _numbers(values: FloatArray) -> list[Any]:
    """Return nested lists in which a number that is not known is null."""
    known = values.astype(object)
    known[np.isnan(values)] = None
    return cast("list[Any]", known.tolist())


def _array(values: list[Any]) -> FloatArray:
    return np.array(values, dtype=np.float64)


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _instant(text: str | None) -> datetime | None:
    return None if text is None else parse_instant(text)
