"""The route of a feed: rows for the live engine, handed on as they came."""

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Body, Depends
from fastapi.responses import Response

from margincast.serving.api.asking import StateOf, fresh, needs, refusals, strict_query
from margincast.serving.api.problem import Refusal
from margincast.serving.api.shapes import ReceiptAnswer
from margincast.serving.live.folder import SOCKET
from margincast.serving.live.listener import send_rows

router = APIRouter(dependencies=[needs("publish"), Depends(strict_query)], tags=["live"])
NDJSON = "application/x-ndjson"


@router.post("/v1/events", response_model=ReceiptAnswer, responses=refusals(404))
async def events(
    state: StateOf, rows: Annotated[bytes, Body(media_type=NDJSON, min_length=1)]
) -> Response:
    """Rows of a feed, a JSON object a line; says how many were taken, and why others were not."""
    if state.engine is None:
        raise Refusal(404, "this service follows no live engine")
    path = state.engine.folder.path / SOCKET
    try:
        receipt = await asyncio.to_thread(send_rows, path, rows)
    except (OSError, ValueError) as error:
        raise Refusal(
            503, "no live engine takes rows; send them again", [(b"retry-after", b"1")]
        ) from error
    return fresh(asdict(receipt))
