"""What all routes share: who asks, whether he may, and how an answer is written.

Responsible for strictness in one place: unknown or repeated query keys, unknown contracts and
missing scopes are refused the same way everywhere.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi.responses import Response

from margincast.core.errors import did_you_mean
from margincast.serving.api.guard import API_POLICY, PRIVATE, matches
from margincast.serving.api.keys import Caller
from margincast.serving.api.problem import Refusal
from margincast.serving.api.state import State
from margincast.serving.api.view import View, encode
from margincast.serving.snapshot import SideLevels
from margincast.specs.service import Scope

Documented = dict[int | str, dict[str, Any]]
_WHEN = {
    304: "The caller has this version already.",
    400: "The request cannot be read.",
    401: "No key, or one that is not valid.",
    403: "The key does not have the scope.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "It cannot be computed from what is in force.",
    413: "The body is too large.",
    422: "A value is not allowed.",
    429: "Too many requests.",
    503: "Nothing is published yet, or the answer took too long.",
}


def refusals(*statuses: int) -> Documented:
    """Return the documentation of refusals: those of every route, and some more."""
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: Documented = {}
    for status in sorted({400, 401, 403, 408, 413, 422, 429, 503, *statuses}):
        found[status] = {"description": _WHEN[status]}
        if status != 304:
            found[status]["content"] = problem
    return found


# dependencies are coroutines: FastAPI would hand plain functions to a thread each


async def state_of(request: Request) -> State:
    """Return the worker's state."""
    state = request.scope["service"]
    assert isinstance(state, State)
    return state


async def caller_of(request: Request) -> Caller:
    """Return who asks."""
    caller = request.scope["caller"]
    assert isinstance(caller, Caller)
    return caller


def needs(scope: Scope) -> Any:  # noqa: ANN401  # what FastAPI takes as a dependency
    """Return the dependency that lets in only who has a scope."""

    async def check(request: Request) -> None:
        caller = await caller_of(request)
        if scope not in caller.scopes:
            raise Refusal(403, f"this needs a key with the scope {scope}; {caller.name} has none")

    return Depends(check)


async def strict_query(request: Request) -> None:
    """Refuse a query key that stands twice, and any where none is taken.

    Which of two is meant cannot be known. Of a route that takes some, FastAPI refuses the others.

    Raises:
        Refusal: with the key.
    """
    names = Counter(name for name, _ in parse_qsl(request.url.query, keep_blank_values=True))
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise Refusal(400, f"the query says {', '.join(twice)[:80]} more than once")
    if names and not request.scope["route"].dependant.query_params:
        raise Refusal(422, f"this path takes no query, found {', '.join(sorted(names))[:80]}")


async def strict_body(request: Request) -> None:
    """Refuse a JSON body in which a key of an object stands twice: readers differ on which counts.

    Source: RFC 8259, section 4. What is no JSON at all is refused by FastAPI.

    Raises:
        Refusal: with the key.
    """

    def each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(
                name for name, count in Counter(one for one, _ in pairs).items() if count > 1
            )
            raise Refusal(400, f"the body says {twice[:64]!a} more than once in an object")
        return found

    with contextlib.suppress(ValueError, RecursionError):
        json.loads(await request.body(), object_pairs_hook=each_once)


StateOf = Annotated[State, Depends(state_of)]
CallerOf = Annotated[Caller, Depends(caller_of)]


async def view_of(state: StateOf) -> View:
    """Return what is answered from.

    Raises:
        Refusal: nothing was published yet.
    """
    return state.in_force()


ViewOf = Annotated[View, Depends(view_of)]


def known_sides(view: View, symbol: str, side: str | None) -> list[SideLevels]:
    """Return the sides of a contract that are asked for.

    Raises:
        Refusal: there is no such contract.
    """
    found = view.sides(symbol, side or "")
    if not found:
        hint = did_you_mean(symbol[:64], view.snapshot.symbols)
        raise Refusal(404, f"no margins of contract {symbol[:64]!r}{hint}")
    return found


def answered(request: Request, view: View, body: bytes | Callable[[], bytes]) -> Response:
    """Return an answer that hangs on the snapshot alone, or say that the caller has it already."""
    headers = {name.decode(): value.decode() for name, value in (PRIVATE, API_POLICY)}
    headers["etag"] = view.etag.decode()
    if matches(request.scope["headers"], view.etag):
        return Response(status_code=304, headers=headers)
    content = body if isinstance(body, bytes) else body()
    return Response(content, media_type="application/json", headers=headers)


def fresh(value: object) -> Response:
    """Return an answer that hangs on more than the snapshot, and is not to be kept."""
    headers = {API_POLICY[0].decode(): API_POLICY[1].decode(), "cache-control": "no-store"}
    return Response(encode(value), media_type="application/json", headers=headers)
