"""Routes of what is not there: an account, a book or a forecast that a caller supposes."""

import asyncio

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from margincast.core.errors import InputError
from margincast.serving.api.asking import (
    StateOf,
    ViewOf,
    fresh,
    known_sides,
    needs,
    refusals,
    strict_body,
    strict_query,
)
from margincast.serving.api.problem import Refusal
from margincast.serving.api.shapes import (
    AccountAnswer,
    AccountQuestion,
    MarginAnswer,
    MarginQuestion,
)
from margincast.serving.api.supposing import judged, supposed_margins
from margincast.serving.api.view import side_of

router = APIRouter(
    dependencies=[needs("score"), Depends(strict_query), Depends(strict_body)], tags=["what if"]
)


@router.post("/v1/what-if/account", response_model=AccountAnswer, responses=refusals(404))
async def account(question: AccountQuestion, view: ViewOf, state: StateOf) -> Response:
    """Equity, requirements and distance to liquidation of an account, now and after some moves."""
    _require_batch(
        state.service.limits.batch,
        positions=len(question.positions),
        collateral=len(question.collateral),
        moves=len(question.moves),
    )
    for position in question.positions:
        known_sides(view, position.symbol, position.side)
    try:
        found = await asyncio.to_thread(judged, view.snapshot, question, state.now())
    except InputError as error:
        raise Refusal(422, str(error)) from error
    return fresh(
        {"publication": view.publication, "now": found.now, "after_moves": found.after_moves}
    )


@router.post("/v1/what-if/margin", response_model=MarginAnswer, responses=refusals(404, 409))
async def margin(question: MarginQuestion, view: ViewOf, state: StateOf) -> Response:
    """Margins that the next publication would have with other forecasts or another order book."""
    sides = known_sides(view, question.symbol, None)
    if question.book is not None:
        _require_batch(
            state.service.limits.batch,
            bids=len(question.book.bids),
            asks=len(question.book.asks),
        )
    record = await state.record_of(view)
    if record is None or view.snapshot.header.revision:
        raise Refusal(409, "what the margins in force were made of is not on record")
    try:
        supposed = await asyncio.to_thread(supposed_margins, record, question)
    except InputError as error:
        raise Refusal(422, str(error)) from error
    return fresh(
        {
            "symbol": question.symbol,
            "publication": view.publication,
            "published": [side_of(one) for one in sides],
            "supposed": supposed,
        }
    )


def _require_batch(most: int, **counts: int) -> None:
    for name, count in counts.items():
        if count > most:
            raise Refusal(422, f"{name}: at most {most} in one request, found {count}")
