"""The stream of changes: who listens is told of new margins as they come into force.

Server-sent events (WHATWG HTML, 9.2): ``event: margins`` with the version as its ``id``. The first
says what is in force; each further one names the contracts that changed and their rates. What is
sent is written once for all listeners.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import Field

from margincast.serving.api.asking import CallerOf, StateOf, ViewOf, needs, refusals, strict_query
from margincast.serving.api.keys import Caller
from margincast.serving.api.problem import Refusal
from margincast.serving.api.shapes import Question
from margincast.serving.api.state import State
from margincast.serving.api.view import Json, changes_of, encode, written
from margincast.serving.board import Change
from margincast.serving.snapshot import Snapshot

router = APIRouter(dependencies=[needs("read"), Depends(strict_query)], tags=["stream"])
HEARTBEAT_SECONDS = 15.0
"""Proxies close what says nothing for longer (nginx: 60 s)."""
MOST_WAITING = 32
"""Changes that may wait for a slow listener before he is sent away."""
_BEAT = b": still here\n\n"


class StreamQuery(Question):
    """Which contracts are told of."""

    symbols: Annotated[
        str, Field(max_length=4_096, description="Names, separated by commas; empty: all.")
    ] = ""


@router.get(
    "/v1/stream",
    response_class=StreamingResponse,
    responses={
        **refusals(),
        200: {
            "description": "Events, until the caller leaves.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
    },
)
async def stream(
    query: Annotated[StreamQuery, Query()], state: StateOf, view: ViewOf, caller: CallerOf
) -> StreamingResponse:
    """Changes of margins as server-sent events; ends when the key is no longer valid."""
    if state.streams >= state.service.limits.streams:
        raise Refusal(429, "all streams are taken; come again later", [(b"retry-after", b"30")])
    wanted = frozenset(name for name in query.symbols.split(",") if name)
    return StreamingResponse(
        _events(state, view.snapshot, wanted, caller),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _events(
    state: State, first: Snapshot, wanted: frozenset[str], caller: Caller
) -> AsyncIterator[bytes]:
    state.streams += 1
    state.metrics.streams.inc()
    try:
        with state.board.subscribed(MOST_WAITING) as waiting:
            yield event_of(Change(None, first), wanted, with_margins=False)
            while True:
                try:
                    change = await asyncio.wait_for(waiting.get(), HEARTBEAT_SECONDS)
                    text = b"" if change is None else event_of(change, wanted, with_margins=True)
                except TimeoutError:
                    text = _BEAT
                # a key may end before its stream does
                if not text or not state.keys.still_opens(caller, state.now()):
                    return
                yield text
    finally:
        state.streams -= 1
        state.metrics.streams.dec()


def event_of(change: Change, wanted: frozenset[str], *, with_margins: bool) -> bytes:
    """Return the event of a change.

    Args:
        change: what was in force, and what is now.
        wanted: contracts that are told of; none: all.
        with_margins: whether the rates of the contracts that changed are told.
    """
    header = change.now.header
    told = _rates_of(change) if with_margins else {}
    changed = [text for symbol, text in told.items() if not wanted or symbol in wanted]
    data: Json = {
        "number": header.number,
        "revision": header.revision,
        "published_at": written(header.published_at),
        "problem": header.problem,
        "fallbacks": [symbol for symbol in change.now.fallbacks if not wanted or symbol in wanted],
    }
    body = b'%b,"changed":[%b]}' % (encode(data)[:-1], b",".join(changed))
    return b"id: %b\nevent: margins\ndata: %b\n\n" % (header.version.encode(), body)


@lru_cache(maxsize=2)
def _rates_of(change: Change) -> Mapping[str, bytes]:
    """Return the rates of the contracts that changed, as JSON: written once for all listeners."""
    return {
        symbol: encode(
            {"symbol": symbol, "sides": changes_of(change.now.contracts.get(symbol, {}))}
        )
        for symbol in change.now.changed_since(change.before)
    }
