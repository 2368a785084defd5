"""A caller that does not wait: requests leave at their appointed times, answered or not.

With a constant arrival rate a slow answer makes the next ones late in truth; a caller that waits
for an answer before it asks again would hide that ("coordinated omission"). Latency counts from the
moment a request was to leave; how late the caller itself was, and the processor time it took, are
told beside it. ``--rate 0`` asks as fast as ``--connections`` allow, for throughput.

Run by :mod:`benchmarks.service_load` in a process of its own; prints one line of JSON.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import httptools
import numpy as np
import uvloop

MOST_CONNECTIONS = 400


class Caller:
    """Sends requests over as many connections as it takes.

    Args:
        port: of the server on this machine.
        requests: whole requests as bytes, in turn.
        until: requests that will be made.
    """

    def __init__(self, port: int, requests: Sequence[bytes], until: int) -> None:
        self.port, self._requests = port, itertools.cycle(requests)
        self.latency, self.statuses = array("d"), Counter[str]()
        self.idle: deque[Connection] = deque()
        self.late: deque[float] = deque()
        self.open = 0
        self._left = until
        self.done = asyncio.Event()

    async def connect(self) -> None:
        """Open one more connection."""
        self.open += 1
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.port)
        except OSError:
            self.open -= 1
            if self.late:
                self.late.popleft()
                self.finish("refused", None)

    def send(self, intended: float) -> None:
        """Send the next request, now or as soon as a connection is free."""
        if self.idle:
            self.idle.pop().ask(next(self._requests), intended)
            return
        self.late.append(intended)
        if self.open < MOST_CONNECTIONS:
            task = asyncio.ensure_future(self.connect())
            task.add_done_callback(lambda _: None)

    def free(self, connection: "Connection") -> None:
        """Take a connection back."""
        if self.late:
            connection.ask(next(self._requests), self.late.popleft())
        else:
            self.idle.append(connection)

    def finish(self, status: str, seconds: float | None) -> None:
        """Note how a request ended."""
        self.statuses[status] += 1
        if seconds is not None:
            self.latency.append(seconds)
        self._left -= 1
        if self._left <= 0:
            self.done.set()


class Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._intended: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._caller.free(self)

    def ask(self, request: bytes, intended: float) -> None:
        """Send a request."""
        self._intended = intended
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Read an answer."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Note an answer, and be ready for the next request."""
        assert self._intended is not None
        status = str(self._parser.get_status_code())
        self._caller.finish(status, time.perf_counter() - self._intended)
        self._intended = None
        self._parser = httptools.HttpResponseParser(self)
        self._caller.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Note a request that was never answered."""
        self._caller.open -= 1
        if self in self._caller.idle:
            self._caller.idle.remove(self)
        if self._intended is not None:
            self._caller.finish("lost" if error is None else type(error).__name__, None)


async def call(arguments: argparse.Namespace, requests: Sequence[bytes]) -> dict[str, object]:
    """Make the requests and return what became of them."""
    open_loop = arguments.rate > 0
    total = int(arguments.rate * arguments.seconds) if open_loop else 10**9
    caller = Caller(arguments.port, requests, total)
    for _ in range(arguments.connections):
        await caller.connect()
    started = time.perf_counter() + 0.1
    if open_loop:
        behind = await _at_their_times(caller, started, total, arguments.rate)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(caller.done.wait(), 30.0)
    else:
        behind = array("d", [0.0])
        await _as_fast_as_it_goes(caller, started, arguments.seconds)
    elapsed = time.perf_counter() - started
    latency = np.array(caller.latency)
    quantiles = dict(
        zip(
            ("p50", "p99", "p99.9", "max"),
            np.quantile(latency, (0.5, 0.99, 0.999, 1.0)).tolist(),
            strict=True,
        )
    )
    return {
        "answered": len(latency),
        "per_second": len(latency) / elapsed,
        "statuses": dict(caller.statuses),
        "connections": caller.open,
        "behind_p99": float(np.quantile(np.array(behind), 0.99)),
        "cores": time.process_time() / elapsed,
        **quantiles,
    }


async def _at_their_times(
    caller: Caller, started: float, total: int, rate: float
) -> "array[float]":
    """Send each request at its time; returns by how much the caller itself was late, seconds."""
    behind = array("d")
    for intended in _times(started, total, rate):
        wait = intended - time.perf_counter()
        if wait > 0.0:
            await asyncio.sleep(wait)
        behind.append(time.perf_counter() - intended)
        caller.send(intended)
    return behind


def _times(started: float, total: int, rate: float) -> Iterator[float]:
    return (started + number / rate for number in range(total))


async def _as_fast_as_it_goes(caller: Caller, started: float, seconds: float) -> None:
    while caller.idle:
        caller.send(time.perf_counter())
    # whoever is free sends at once: keep one request waiting for every connection
    while time.perf_counter() - started < seconds:
        while len(caller.late) < caller.open:
            caller.late.append(time.perf_counter())
        await asyncio.sleep(0.001)


def main() -> None:
    """Call a server as the command line says."""
    parser = argparse.ArgumentParser(description="open-loop caller")
    parser.add_argument("port", type=int)
    parser.add_argument("requests", type=Path, help="JSON list of whole requests, as text")
    parser.add_argument("--rate", type=float, default=500.0, help="a second; 0: as fast as it goes")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, default=16)
    arguments = parser.parse_args()
    requests = [text.encode() for text in json.loads(arguments.requests.read_text())]
    print(json.dumps(uvloop.run(call(arguments, requests))))


if __name__ == "__main__":
    main()
