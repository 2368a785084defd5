"""``margincast account``: one account under published margin levels."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np

from margincast.backtest.stress.scenarios import GRID
from margincast.backtest.stress.sufficiency import (
    StressedAccount,
    Sufficiency,
    under_moves,
    under_shocks,
)
from margincast.core.errors import InputError, did_you_mean
from margincast.core.types import Side
from margincast.jobs.account_inputs import (
    CURRENCY,
    Levels,
    read_collateral,
    read_haircuts,
    read_levels,
    read_marks,
    read_positions,
    read_scenarios,
)
from margincast.jobs.account_tables import show
from margincast.jobs.console import output
from margincast.margin.account import Collateral, Pool, Position, distance, pools_of
from margincast.margin.explanation import percent
from margincast.margin.liquidation_price import Distance
from margincast.margin.rounding import exact

Record = dict[str, object]


def run(
    positions: Path,
    levels: Path,
    *,
    collateral: Path | None = None,
    haircuts: Path | None = None,
    marks: Path | None = None,
    scenarios: Path | None = None,
    leader: str | None = None,
    as_json: bool = False,
) -> Record:
    """Print the account and return it as a record for JSON.

    Args:
        positions: CSV or JSON.
        levels: ``margin_levels.parquet``.
        collateral: CSV or JSON; none: only isolated positions have equity.
        haircuts: of ``margincast haircuts``, or CSV or JSON.
        marks: mark prices, CSV or JSON, where positions do not hold them.
        scenarios: moves to add to the shocks, CSV or JSON.
        leader: leading contract of the shocks; the calmest of the levels if not given.
        as_json: print JSON and nothing else.

    Raises:
        InputError: a file that cannot be used; says where and why.
    """
    published, prices = read_levels(levels), read_marks(marks)
    held = read_positions(positions, published, prices)
    rules = read_haircuts(haircuts)
    assets = read_collateral(collateral, rules, prices, held)
    pools = pools_of(held, assets)
    notes = [rules[each.asset].note for each in assets if each.asset in rules]
    notes += _notes(held, published)
    account = _stressed(pools, published)
    stress = under_shocks(account, GRID, _leader(leader, account.forecasts))
    stress += under_moves(account, read_scenarios(scenarios))
    record: Record = {
        "currency": CURRENCY,
        "levels_effective_from": _moment(published),
        "total": _total(pools),
        "pools": [_pool(pool) for pool in pools],
        "positions": [
            _position(each, pool, published) for pool in pools for each in pool.positions
        ],
        "collateral": [_asset(each) for each in assets],
        "stress": [_line(line) for line in stress],
        "notes": [note for note in notes if note],
    }
    if as_json:
        text = json.dumps(record, indent=1, allow_nan=False, default=_jsonable)
        output.print(text, markup=False, soft_wrap=True)
        return record
    show(record, stress)
    return record


def _pool(pool: Pool) -> Record:
    together = distance(pool)
    return {
        "name": pool.name,
        "equity_usd": float(pool.equity_usd),
        "unrealised_usd": float(pool.unrealised_usd),
        "initial_usd": float(pool.initial_usd),
        "maintenance_usd": float(pool.maintenance_usd),
        "margin_ratio": pool.margin_ratio,
        "is_below_initial": pool.equity_usd < pool.initial_usd,
        "is_below_maintenance": pool.is_below_maintenance,
        "common_move_down": _fraction(together.down if together else None),
        "common_move_up": _fraction(together.up if together else None),
    }


def _total(pools: tuple[Pool, ...]) -> Record:
    return {
        "equity_usd": float(sum(pool.equity_usd for pool in pools)),
        "unrealised_usd": float(sum(pool.unrealised_usd for pool in pools)),
        "initial_usd": float(sum(pool.initial_usd for pool in pools)),
        "maintenance_usd": float(sum(pool.maintenance_usd for pool in pools)),
    }


def _position(each: Position, pool: Pool, levels: Levels) -> Record:
    notional = each.notional_usd
    row = levels[each.symbol, each.side].row(notional)
    return {
        "symbol": each.symbol,
        "side": each.side,
        "pool": pool.name,
        "notional_usd": float(notional),
        "unrealised_usd": float(each.unrealised_usd),
        "initial_usd": float(each.tiers.initial_usd(notional)),
        "maintenance_usd": float(each.tiers.maintenance.at(notional)),
        "tier": row["tier"],
        "mmr": row["mmr_in_force"],
        "imr": row["imr"],
        "status": row["status"],
        "binding_rule": row["binding_rule"],
        "reason": row["reason"],
        "mark_price": each.mark_price,
        **_prices(distance(pool, each.symbol), each.mark_price),
    }


def _prices(found: Distance | None, mark_price: float) -> Record:
    moves = {"below": found.down if found else None, "above": found.up if found else None}
    prices: Record = {}
    for name, move in moves.items():
        price = None if move is None else float((1 + move) * exact(mark_price))
        prices |= {f"liquidation_price_{name}": price, f"distance_{name}": _fraction(move)}
    return prices


def _asset(each: Collateral) -> Record:
    return {
        "asset": each.asset,
        "amount": each.amount,
        "price_usd": each.price_usd,
        "value_usd": float(each.value_usd),
        "haircut": float(each.haircut) if each.amount > 0.0 else 0.0,
        "counted_usd": float(each.counted_usd),
        "moves_with": each.contract,
    }


def _line(line: Sufficiency) -> Record:
    kept = {"liquidated": list(line.liquidated), "is_sufficient": line.is_sufficient}
    return asdict(line) | kept


def _fraction(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


def _moment(levels: Levels) -> str:
    moments = [row["effective_from"] for each in levels.values() for row in each.rows]
    return max(moment for moment in moments if isinstance(moment, datetime)).isoformat()


def _notes(positions: list[Position], levels: Levels) -> list[str]:
    """Say of every position whose margin is no plain forecast what stands behind it."""
    notes = []
    for each in positions:
        row = levels[each.symbol, each.side].row(each.notional_usd)
        name = f"{each.symbol} {each.side}"
        if row["status"] != "ok":
            notes.append(f"{name}: margin is a fallback, {row['reason']}")
        if isinstance(row.get("override"), str):
            notes.append(
                f"{name}: margin set by hand, {row['override']} ({row['override_reason']}; "
                f"{row['override_approver']}, until {row['override_expires']:%F %H:%M} UTC)"
            )
        if row["mmr_in_force"] != row["mmr"]:
            notes.append(
                f"{name}: MMR {percent(_float(row['mmr']))} announced from "
                f"{row['effective_from']:%F %H:%M} UTC, "
                f"{percent(_float(row['mmr_in_force']))} in force"
            )
    return notes


def _stressed(pools: tuple[Pool, ...], levels: Levels) -> StressedAccount:
    """Size of every contract's move and cost of closing, as the levels have them.

    Without a forecast a contract is taken to move as far as the one that does most, and as far
    relative to its MMR; without a cost closing is taken to cost the MMR, which holds it.
    """
    forecasts: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    for (symbol, _), published in levels.items():
        first = published.rows[0]
        rates.setdefault(symbol, []).append(_float(first["mmr_in_force"]))
        own = forecasts.setdefault(symbol, [])
        if first["status"] == "ok":
            own.append(_float(first["forecast"]))
    known = {symbol: float(np.mean(own)) for symbol, own in forecasts.items() if own}
    widest = max((known[name] / float(np.mean(rates[name])) for name in known), default=1.0)
    largest = max(known.values(), default=0.0)
    sizes = {
        name: known.get(name, max(largest, widest * float(np.mean(own))))
        for name, own in rates.items()
    }
    closing: dict[tuple[str, Side], float] = {}
    for pool in pools:
        for each in pool.positions:
            row = levels[each.symbol, each.side].row(each.notional_usd)
            cost = _float(row["liquidation_cost"])
            closing[each.symbol, each.side] = (
                cost if np.isfinite(cost) else _float(row["mmr_in_force"])
            )
    return StressedAccount(pools, sizes, closing)


def _float(value: object) -> float:
    assert isinstance(value, float)
    return value


def _leader(wanted: str | None, forecasts: Mapping[str, float]) -> str:
    if wanted is None:
        return min(forecasts, key=lambda name: (forecasts[name], name))
    if wanted not in forecasts:
        raise InputError(
            f"--leader {wanted!r} is no contract of the levels{did_you_mean(wanted, forecasts)}"
        )
    return wanted


def _jsonable(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} has no JSON form")
