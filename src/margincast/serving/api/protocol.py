"""Connections: how long a head may take to come and an answer to be taken, and how large a head is.

Responsible for callers who begin a request and do not end it, or ask and do not read, which uvicorn
alone would wait for without end ("slowloris", RFC 9112 leaves the time to the server).
"""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from margincast.serving.api.problem import MEDIA_TYPE
from margincast.specs.service import Limits


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with limits on connections and on a request's head.

    Args:
        limits: of the service.
        args: of uvicorn's protocol.
        kwargs: likewise.
    """

    def __init__(self, limits: Limits, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # uvicorn's
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._head_bytes = 0
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a new caller the time of a head to send one."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "too many connections are open; close some, or come again later")
            return
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give a caller who does not read the time of a request to begin to."""
        super().pause_writing()
        seconds = self._limits.request_time.total_seconds()
        # closing would wait until all is sent, which is what does not happen
        self._unread = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Write on: the caller reads."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Count what comes before the end of a head."""
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self._limits.header_bytes:
            self._too_large()

    def on_message_begin(self) -> None:
        """Begin to count.

        What came together with the end of the request before is no part of the count: a caller may
        send many requests at once. A head that is complete is measured as it is.
        """
        if not self._in_head:
            self._in_head, self._head_bytes = True, 0
            self._start()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; drop a trailer, which must not pass for one (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Take a head that has come, if it is not too large."""
        self._in_head = False
        self._stop()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.header_bytes:
            self._too_large()
            return
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts != 1 and self.parser.get_http_version() == "1.1":
            self._refuse(400, f"a request names its host once (RFC 9112, 3.2), found {hosts}")
            return
        super().on_headers_complete()

    def _too_large(self) -> None:
        self._refuse(431, f"a request's head may have {self._limits.header_bytes:,} bytes")

    def _start(self) -> None:
        self._timer = self.loop.call_later(self._limits.header_time.total_seconds(), self._too_slow)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self._refuse(408, "the head of the request came too slowly")

    def _refuse(self, status: int, detail: str) -> None:
        """Say why, and hang up; of a request whose head is not there nobody else knows."""
        self._stop()
        if self.transport.is_closing():
            return
        title = HTTPStatus(status).phrase
        body = json.dumps(
            {"type": "about:blank", "title": title, "status": status, "detail": detail}
        ).encode()
        head = (
            f"HTTP/1.1 {status} {title}\r\ncontent-type: {MEDIA_TYPE.decode()}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        if self.cycle is not None:
            # a request before this one may still be computed: nobody will hear its answer
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as every other refusal."""
        self._refuse(400, msg)


def limited(limits: Limits) -> Callable[..., asyncio.Protocol]:
    """Return the protocol with the limits of a service, as uvicorn makes one a connection."""
    return partial(LimitedProtocol, limits)
