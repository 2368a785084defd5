"""What if: margins of a book, forecast or position that are not there.

Responsible for answers computed by the very functions that margins are made and accounts judged
with, from the publication in force.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import SIDES
from margincast.margin.account import Collateral, Pool, Position, PositionTiers, distance, pools_of
from margincast.margin.background import Background
from margincast.margin.levels import costs_of, levels_of
from margincast.margin.liquidation_cost import Book
from margincast.margin.liquidation_price import Requirement
from margincast.margin.rounding import exact
from margincast.margin.tier_rows import places_in, tier_rows
from margincast.serving.api.shapes import (
    AccountQuestion,
    BookLevel,
    BookQuestion,
    MarginQuestion,
)
from margincast.serving.api.view import Json, side_of
from margincast.serving.publications.publication import Publication
from margincast.serving.snapshot import SideLevels, Snapshot, contracts_of


def supposed_margins(publication: Publication, question: MarginQuestion) -> list[Json]:
    """Return the margins that the next publication would have.

    What is remembered from the one in force holds: speed limits, hold, buffer and notice. What is
    not supposed otherwise (forecasts, costs, overrides) is as in the publication.

    Args:
        publication: in force.
        question: what is supposed.

    Raises:
        InputError: the contract is not in the publication, its book is crossed or not in order.
    """
    inputs, policy = publication.inputs, publication.policy
    if question.symbol not in inputs.symbols:
        raise InputError(f"the publication has no inputs of contract {question.symbol!r}")
    number = inputs.symbols.index(question.symbol)
    rows = tier_rows([question.symbol], publication.schedule, policy)
    place = places_in(publication.rows, rows)
    at = inputs.background.at + np.timedelta64(timedelta(minutes=question.after_minutes))
    forecasts = inputs.forecasts[[number]] * question.forecast_multiple
    for side, forecast in question.forecasts.items():
        forecasts[0, SIDES.index(side)] = forecast
    costs, reasons = inputs.costs[place], inputs.cost_reasons[place]
    if question.book is not None:
        book = book_of(question.book)
        costs, reasons = costs_of(rows, policy, {question.symbol: book})
    supposed = replace(
        inputs,
        symbols=rows.symbols,
        forecasts=forecasts,
        # forecasts that are supposed are as fresh as those of the publication were
        data_as_of=inputs.data_as_of[[number]] + (at - inputs.background.at),
        reasons=inputs.reasons[[number]],
        costs=costs,
        cost_reasons=reasons,
        background=Background.of(
            at,
            publication.remembered(rows),
            inputs.background.long_run[place],
            inputs.background.stressed[place],
        ),
        initial=inputs.initial.contracts(np.array([number])),
    )
    moment = at.astype("datetime64[us]").item().replace(tzinfo=UTC)
    by_hand = [one for one in publication.overrides if one.begins <= moment < one.expires]
    made = levels_of(rows, supposed, policy, by_hand).table
    as_of = supposed.data_as_of.astype("datetime64[us]")
    table = made.assign(
        data_as_of=as_of[rows.contract],
        model_version=publication.origin.model_version,
        feature_set_hash=publication.origin.feature_set_hash,
        policy_hash=publication.origin.policy_hash,
    )
    return [side_of(one) for one in contracts_of(table)[question.symbol].values()]


def book_of(question: BookQuestion) -> Book:
    """Return an order book.

    Raises:
        InputError: its sides are not in order, or cross.
    """

    def columns(levels: list[BookLevel]) -> tuple[list[float], list[float]]:
        return [one.price for one in levels], [one.size for one in levels]

    (bids, bid_sizes), (asks, ask_sizes) = columns(question.bids), columns(question.asks)
    if bids != sorted(set(bids), reverse=True) or asks != sorted(set(asks)):
        raise InputError("book: bids fall and asks rise, each price once, the best one first")
    if bids[0] >= asks[0]:
        raise InputError(f"book: it is crossed, bid {bids[0]:g} and ask {asks[0]:g}")
    deepest = max(len(bids), len(asks))

    def padded(values: list[float]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        return np.array([*values, *[np.nan] * (deepest - len(values))])

    return Book(padded(bids), padded(bid_sizes), padded(asks), padded(ask_sizes))


@dataclass(frozen=True)
class Judged:
    """An account as it stands, and after the moves that are tried on it."""

    now: list[Json]
    after_moves: list[Json]


def judged(snapshot: Snapshot, question: AccountQuestion, at: datetime) -> Judged:
    """Return equity, requirements and distances to liquidation of an account.

    Args:
        snapshot: margins in force.
        question: positions, collateral, and moves of mark prices; a contract that is not named in
            the moves stays where it is.
        at: now, UTC: says which rates are charged already.

    Raises:
        InputError: a contract without margins, a position above the last tier, one that stands
            twice, or tiers whose rates fall while a change is announced.
    """
    unknown = sorted(set(question.moves) - {one.symbol for one in question.positions})
    followed = {one.contract for one in question.collateral}
    if set(unknown) - followed:
        raise InputError(f"moves: no position or collateral follows {', '.join(unknown)[:80]}")
    return Judged(
        [_pool(pool) for pool in _pools(snapshot, question, {}, at)],
        [_pool(pool) for pool in _pools(snapshot, question, question.moves, at)]
        if question.moves
        else [],
    )


def _pools(
    snapshot: Snapshot, question: AccountQuestion, moves: dict[str, float], at: datetime
) -> tuple[Pool, ...]:
    positions = [
        Position(
            one.symbol,
            one.side,
            size=one.size,
            entry_price=one.entry_price,
            mark_price=_moved(one.mark_price, moves.get(one.symbol, 0.0)),
            tiers=_tiers(snapshot, one.symbol, one.side, question.rates, at),
            isolated_margin_usd=one.isolated_margin_usd,
        )
        for one in question.positions
    ]
    for one in positions:
        one.tiers.tier(one.notional_usd)  # refuses what lies above the last tier
    collateral = [
        Collateral(
            one.asset,
            one.amount,
            _moved(one.price_usd, moves.get(one.contract or "", 0.0)),
            exact(one.haircut),
            one.contract,
        )
        for one in question.collateral
    ]
    return pools_of(positions, collateral)


def _moved(price: float, move: float) -> float:
    return float(exact(price) * (1 + exact(move))) if move else price


def _tiers(snapshot: Snapshot, symbol: str, side: str, rates: str, at: datetime) -> PositionTiers:
    levels = next(
        (one for name, one in snapshot.contracts.get(symbol, {}).items() if name == side), None
    )
    if levels is None:
        raise InputError(f"no margins of contract {symbol!r}, {side}")
    floors, caps = levels.values("tier_floor_usd"), levels.values("tier_cap_usd")
    mmrs = charged(levels, at) if rates == "in_force" else levels.values("mmr")
    return PositionTiers(Requirement.of(floors, caps, mmrs), tuple(levels.values("imr")))


def charged(levels: SideLevels, at: datetime) -> list[float]:
    """Return the maintenance margin rate that each tier is charged at a moment."""
    moment = np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us")
    begun = levels.columns["effective_from"][levels.place] <= moment
    both = (levels.columns[name][levels.place] for name in ("mmr", "mmr_in_force"))
    return list(np.where(begun, *both).tolist())


def _pool(pool: Pool) -> Json:
    far = distance(pool) if pool.positions else None
    return {
        "pool": pool.name,
        "equity_usd": float(pool.equity_usd),
        "maintenance_margin_usd": float(pool.maintenance_usd),
        "initial_margin_usd": float(pool.initial_usd),
        "margin_ratio": pool.margin_ratio,
        "is_below_maintenance": pool.is_below_maintenance,
        "down": _number(far.down if far else None),
        "up": _number(far.up if far else None),
    }


def _number(value: Fraction | None) -> float | None:
    return None if value is None else float(value)
