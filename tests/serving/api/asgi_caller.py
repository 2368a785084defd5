"""Ask an ASGI application without a network: what a server would hand it, byte by byte."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote


@dataclass(frozen=True)
class Reply:
    """What the application answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    @cached_property
    def json(self) -> object:
        return json.loads(self.content)


async def ask(
    app: object,
    method: str,
    target: str,
    headers: dict[str, str],
    pieces: Sequence[bytes] = (),
) -> Reply:
    """Send one request; ``target`` is a path, percent-encoded where it must be, and its query."""
    path, _, query = target.partition("?")
    raw = [(name.lower().encode(), value.encode("utf-8")) for name, value in headers.items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": unquote(path), "raw_path": path.encode(), "root_path": "",
        "query_string": query.encode(), "headers": raw, "client": ("10.0.0.1", 5), "state": {},
        "server": ("service", 80),
    }  # fmt: skip
    waiting = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces or [b""], start=1)
    ]
    if not pieces:
        waiting[0]["more_body"] = False
    sent: list[dict] = []

    async def receive() -> dict:
        return waiting.pop(0) if waiting else await asyncio.Future()

    async def send(message: dict) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    assert len(found) == len(start["headers"]), "a header stands twice"
    return Reply(start["status"], found, b"".join(one["body"] for one in rest))
