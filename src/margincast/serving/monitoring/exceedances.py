"""Whether promises are exceeded more or less often than tolerated: tallies turned into checks.

Responsible for the sentence that says so, and for the tables behind it.
"""

import numpy as np
import pandas as pd

from margincast.core.types import FloatArray
from margincast.serving.monitoring.alarm import Check
from margincast.serving.monitoring.betting import (
    DIRECTIONS,
    Direction,
    confidence_sequence,
    e_benjamini_hochberg,
)
from margincast.serving.monitoring.tally import Rates, Tally
from margincast.specs.monitor import AlarmName, Exceedances

FORECASTS: dict[Direction, AlarmName] = {
    "too many": "forecasts exceeded too often",
    "too few": "forecasts exceeded too rarely",
}
CONTRACTS: dict[Direction, AlarmName] = {
    "too many": "contracts exceeded too often",
    "too few": "contracts exceeded too rarely",
}
MARGINS: dict[Direction, AlarmName] = {"too many": "margins exceeded too often"}
"""A margin holds floors and buffers: that it is exceeded rarely is no fault."""
_NAMED = 3


def rates_of(thresholds: Exceedances) -> Rates:
    """Return the rates that are bet against."""
    return Rates(thresholds.most_ratio, thresholds.least_ratio)


def pooled_evidence(tally: Tally, confidence: float) -> pd.DataFrame:
    """Return the evidence of all contracts together.

    Returns:
        A row a side and level: ``side``, ``level``, ``bets``, ``exceedance_ratio`` at the bets,
        ``ratio_lower`` and ``ratio_upper`` (see
        :func:`~margincast.serving.monitoring.betting.confidence_sequence`), ``e_too_many`` and
        ``e_too_few``.
    """
    sides = np.repeat(tally.sides, len(tally.levels))
    levels = np.tile(tally.levels, len(tally.sides))
    rows = []
    for stream, (side, level) in enumerate(zip(sides, levels, strict=True)):
        shares = tally.shares[:, stream]
        shares = shares[~np.isnan(shares)]
        bounds = np.array(confidence_sequence(shares, confidence)) / (1.0 - level)
        rows.append(
            {
                "side": str(side),
                "level": float(level),
                "bets": len(shares),
                "exceedance_ratio": _mean(shares) / (1.0 - level),
                "ratio_lower": float(bounds[0]),
                "ratio_upper": float(bounds[1]),
                **{
                    _column(name): float(tally.pooled[name].e_values[stream]) for name in DIRECTIONS
                },
            }
        )
    return pd.DataFrame(rows)


def contracts_that_stand_out(tally: Tally, rate: float) -> pd.DataFrame:
    """Return the contracts, sides and levels that stand out, the strongest first.

    Args:
        tally: settled bets.
        rate: share of the false among them.

    Returns:
        A row each: ``symbol``, ``side``, ``level``, ``direction``, ``bets``, ``e_value``.
    """
    shape = (len(tally.symbols), len(tally.sides), len(tally.levels))
    rows = []
    for direction in DIRECTIONS:
        evidence = tally.own[direction]
        if not len(evidence.bets):
            continue
        values = evidence.e_values
        for stream in np.flatnonzero(e_benjamini_hochberg(values, rate)):
            symbol, side, level = np.unravel_index(stream, shape)
            rows.append(
                {
                    "symbol": tally.symbols[symbol],
                    "side": tally.sides[side],
                    "level": tally.levels[level],
                    "direction": direction,
                    "bets": int(evidence.bets[stream]),
                    "e_value": float(values[stream]),
                }
            )
    columns = ["symbol", "side", "level", "direction", "bets", "e_value"]
    found = pd.DataFrame(rows, columns=columns)
    return found.sort_values("e_value", ascending=False, ignore_index=True)


def pooled_checks(
    tally: Tally, table: pd.DataFrame, alarms: dict[Direction, AlarmName], thresholds: Exceedances
) -> list[Check]:
    """Return the checks of all contracts together.

    Args:
        tally: settled bets.
        table: :func:`pooled_evidence` of it.
        alarms: to raise, by direction.
        thresholds: what raises them.
    """
    checks = []
    for direction, alarm in alarms.items():
        limit = 1.0 / thresholds.false_alarm_rate
        reached = tally.reached[direction]
        strongest = table.iloc[int(table[_column(direction)].argmax())]
        ratio = thresholds.most_ratio if direction == "too many" else thresholds.least_ratio
        bound = "more" if direction == "too many" else "less"
        reason = (
            f"e-value of {bound} than {ratio:g} times the promised exceedances reached "
            f"{reached:.3g} in {len(tally.shares)} bets; strongest now {strongest['side']} "
            f"{strongest['level']:g}: {strongest['exceedance_ratio']:.2f} times "
            f"({strongest['ratio_lower']:.2f} to {strongest['ratio_upper']:.2f})"
            if len(tally.shares)
            else "no outcome is known yet"
        )
        value = reached if len(tally.shares) else None
        checks.append(Check(alarm, tally.subject, value, limit, reason, lasting=True))
    return checks


def contract_checks(tally: Tally, standing_out: pd.DataFrame) -> list[Check]:
    """Return the checks of single contracts."""
    checks = []
    for direction, alarm in CONTRACTS.items():
        own = standing_out[standing_out["direction"] == direction]
        named = ", ".join(
            f"{row['symbol']} {row['side']} {row['level']:g} (e-value {row['e_value']:.3g})"
            for row in own.head(_NAMED).to_dict(orient="records")
        )
        streams = len(tally.own[direction].bets)
        reason = f"{len(own)} of {streams} contracts, sides and levels stand out"
        checks.append(
            Check(
                alarm,
                tally.subject,
                float(len(own)) if len(tally.shares) else None,
                0.0,
                (f"{reason}: {named}" if named else reason)
                if len(tally.shares)
                else "no outcome is known yet",
            )
        )
    return checks


def _column(direction: Direction) -> str:
    return f"e_{direction.replace(' ', '_')}"


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else float("nan")
