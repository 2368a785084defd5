"""The gate of the service: every request passes here before anything else is done for it.

Responsible for who may ask, how often and how much, for the headers of every answer, for counting,
and for the short way of the one question that comes all the time: the margin of a contract.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from margincast.core.errors import InputError
from margincast.serving.api.keys import Caller
from margincast.serving.api.problem import MEDIA_TYPE, Refusal
from margincast.serving.api.state import State

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

LOG = logging.getLogger("margincast.service")
OPEN = {"/", "/health", "/ready"}
"""What anybody may read: the empty page, and whether the service runs."""
STATIC = "/static/"
STREAM = "/v1/stream"
MARGIN = "/v1/margins/"
_QUICK = re.compile(
    rb"(?:side=(long|short))?(?:(?:\A|&)notional_usd=([0-9]{1,15}(?:\.[0-9]{1,8})?))?"
)
"""The usual ways to ask for a margin; others go the long way, with the same answer."""
COMMON: RawHeaders = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
API_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
JSON_TYPE = (b"content-type", b"application/json")
# an answer is for one caller, and valid as long as its ETag says
PRIVATE = (b"cache-control", b"private, no-cache")


class Guard:
    """The service as an ASGI application.

    Args:
        app: what answers who is let in.
        state: of this worker.
    """

    def __init__(self, app: App, state: State) -> None:
        self.app, self.state = app, state
        self._anonymous = frozenset(state.service.access.anonymous)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            # a websocket: there are none
            await send({"type": "websocket.close", "code": 1008})
            return
        exchange = Exchange(scope, send, self.state)
        try:
            await self._answer(scope, receive, exchange)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except TimeoutError:
            await exchange.refuse(Refusal(503, "the answer took too long; ask for less"))
        except Exception as error:  # noqa: BLE001  # the last one who can answer
            # an answer that has begun was given where the defect was written down
            if not exchange.status:
                await exchange.refuse(incident(error))
        finally:
            exchange.count()

    async def _answer(self, scope: Scope, receive: Receive, exchange: "Exchange") -> None:
        path: str = scope["path"]
        caller = self._caller(scope, path)
        if path.startswith(MARGIN) and scope["method"] == "GET":
            quick = self._quick(scope, path, caller)
            if quick is not None:
                await exchange.reply(*quick)
                return
        scope["caller"], scope["service"] = caller, self.state
        replay = await self._body(scope, receive)
        if path == STREAM:
            await self.app(scope, replay, exchange.send)
            return
        async with asyncio.timeout(self.state.service.limits.request_time.total_seconds()):
            await self.app(scope, replay, exchange.send)

    def _caller(self, scope: Scope, path: str) -> Caller:
        """Say who asks, and take his token.

        Raises:
            Refusal: a wrong key, no key where one is needed, or too many requests.
        """
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        client = scope.get("client")
        address = f"address {client[0]}" if client else "address unknown"
        is_open = path in OPEN or path.startswith(STATIC)
        caller: Caller | None = Caller(address, self._anonymous)
        if shown:
            kind, _, key = shown[0].decode("latin-1").partition(" ")
            valid = len(shown) == 1 and kind.lower() == "bearer"
            caller = self.state.keys.caller(key.strip(), self.state.now()) if valid else None
        wait = self.state.wait_for(address if caller is None else caller.name)
        if wait > 0.0:
            self.state.metrics.refused.labels("rate").inc()
            raise Refusal(
                429,
                "more requests than are allowed; wait as long as retry-after says",
                [(b"retry-after", b"%d" % (int(wait) + 1))],
            )
        if caller is None or not (caller.scopes or is_open):
            self.state.metrics.refused.labels("key").inc()
            detail = (
                "the key is not valid: it is unknown, expired or revoked"
                if shown
                else "show a key: `Authorization: Bearer mc_...`"
            )
            raise Refusal(401, detail, [(b"www-authenticate", b'Bearer realm="margincast"')])
        return caller

    def _quick(
        self, scope: Scope, path: str, caller: Caller
    ) -> tuple[int, RawHeaders, bytes] | None:
        """Return the answer to a usual question about a margin; None: it goes the long way."""
        asked = _QUICK.fullmatch(scope["query_string"])
        view = self.state.view
        if asked is None or view is None or "read" not in caller.scopes:
            return None
        side, notional = ((part or b"").decode() for part in asked.groups())
        headers = [JSON_TYPE, PRIVATE, (b"etag", view.etag), API_POLICY]
        if matches(scope["headers"], view.etag):
            # a 304 is right only for what would be answered
            known = view.sides(path[len(MARGIN) :], side)
            return (304, headers[1:], b"") if known else None
        try:
            body = view.margins(path[len(MARGIN) :], side, notional)
        except InputError:
            return None
        return None if body is None else (200, headers, body)

    async def _body(self, scope: Scope, receive: Receive) -> Receive:
        """Read the body within its limits, and return it as an ASGI application receives it.

        Raises:
            Refusal: it is too large, or comes too slowly.
        """
        limits = self.state.service.limits
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if lengths and not lengths[0].isdigit():
            raise Refusal(400, "content-length is no number", [_CLOSE])
        if lengths and int(lengths[0]) > limits.body_bytes:
            raise self._too_large(limits.body_bytes)
        body = bytearray()
        try:
            async with asyncio.timeout(limits.request_time.total_seconds()):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "the request ended before its body", [_CLOSE])
                    body += message.get("body", b"")
                    if len(body) > limits.body_bytes:
                        raise self._too_large(limits.body_bytes)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            self.state.metrics.refused.labels("slow").inc()
            raise Refusal(408, "the body came too slowly", [_CLOSE]) from None
        waiting: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        return replay

    def _too_large(self, limit: int) -> Refusal:
        self.state.metrics.refused.labels("size").inc()
        return Refusal(413, f"a body may have {limit:,} bytes; send less at once", [_CLOSE])


_CLOSE = (b"connection", b"close")


class Exchange:
    """One request and its answer: adds what all answers have, and counts it."""

    def __init__(self, scope: Scope, send: Send, state: State) -> None:
        self._scope, self._send, self._state = scope, send, state
        self._started = time.perf_counter()
        self.status = 0

    async def send(self, message: Message) -> None:
        """Pass a part of an answer on, with the headers that all have."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own: RawHeaders = list(message.get("headers", ()))
            names = {name for name, _ in own}
            message["headers"] = [*own, *(pair for pair in COMMON if pair[0] not in names)]
        await self._send(message)

    async def reply(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a whole answer."""
        self.status = status
        length = [] if status == 304 else [(b"content-length", b"%d" % len(body))]
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, *length, *COMMON],
            }
        )
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, refusal: Refusal) -> None:
        """Send a refusal, unless an answer has begun."""
        if self.status:
            return
        headers = [(b"content-type", MEDIA_TYPE), API_POLICY, *refusal.headers]
        await self.reply(refusal.status, headers, refusal.body)

    def count(self) -> None:
        """Count the answer under its route."""
        path: str = self._scope["path"]
        route = getattr(self._scope.get("route"), "path", None)
        if route is None:
            route = MARGIN + "{symbol}" if path.startswith(MARGIN) else "unknown"
        metrics = self._state.metrics
        metrics.requests.labels(route, str(self.status)).inc()
        if route != STREAM:
            metrics.seconds.labels(route).observe(time.perf_counter() - self._started)


def incident(error: Exception) -> Refusal:
    """Write a defect down, and return what a caller is told of it: a number to ask about."""
    number = secrets.token_hex(4)
    LOG.error("incident %s", number, exc_info=error)
    return Refusal(500, f"a defect of the service, recorded as incident {number}")


def matches(headers: RawHeaders, etag: bytes) -> bool:
    """Say whether a caller has this version already (RFC 9110, 13.1.2; weak comparison)."""
    for name, value in headers:
        if name == b"if-none-match":
            known = [part.strip().removeprefix(b"W/") for part in value.split(b",")]
            return value.strip() == b"*" or etag in known
    return False
