"""Where rows come in: standard input, and a socket of this machine for the service to forward to.

Responsible for reading without trusting: a line has a longest length, a connection a longest
silence, and what is said back is what became of the rows.

A client of the socket sends lines of JSON, ends its side, and is answered with one line::

    {"taken": 3, "refused": {"side is neither buy nor sell": 1}, "dropped": 0}
"""

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO

from margincast.core.errors import InputError
from margincast.serving.live.receipt import Receipt

LINES_AT_ONCE = 200
LONGEST_SILENCE_SECONDS = 10.0

Receive = Callable[[Iterable[bytes]], Receipt]


def read_feed(feed: BinaryIO | BufferedIOBase, receive: Receive, line_bytes: int) -> Receipt:
    """Hand over the lines of a feed until it ends; returns what became of all of them."""
    total = Receipt(0, {}, 0)
    for lines in _batches(feed, line_bytes):
        total = total.plus(receive(lines))
    return total


def _batches(feed: BinaryIO | BufferedIOBase, line_bytes: int) -> Iterator[list[bytes]]:
    """Yield what is there, line by line, at most so many at once."""
    while True:
        first = _line(feed, line_bytes)
        if first is None:
            return
        lines = [first]
        # a line that is complete in the buffer costs no waiting
        while len(lines) < LINES_AT_ONCE and b"\n" in _buffered(feed):
            more = _line(feed, line_bytes)
            if more is None:
                break
            lines.append(more)
        yield lines


def _line(feed: BinaryIO | BufferedIOBase, line_bytes: int) -> bytes | None:
    """Read a line; of one that is too long so much that its length shows, and skip the rest."""
    line = feed.readline(line_bytes + 2)
    if not line:
        return None
    rest = line
    while not rest.endswith(b"\n") and len(rest) == line_bytes + 2:
        rest = feed.readline(line_bytes + 2)
    return line.rstrip(b"\r\n") if line.endswith(b"\n") else line


def _buffered(feed: BinaryIO | BufferedIOBase) -> bytes:
    peek = getattr(feed, "peek", None)
    return b"" if peek is None else peek(1)


class Listener:
    """A socket of this machine that takes rows.

    Args:
        path: of the socket; one left behind by an engine that is gone is replaced.
        receive: takes the lines.
        line_bytes: longest line.
    """

    def __init__(self, path: Path, receive: Receive, line_bytes: int) -> None:
        self._path = path
        if _answers(path):
            raise InputError(f"{path}: another live engine listens there; stop it first")
        path.unlink(missing_ok=True)

        class Handler(socketserver.StreamRequestHandler):
            timeout = LONGEST_SILENCE_SECONDS

            def handle(self) -> None:
                try:
                    receipt = read_feed(self.rfile, receive, line_bytes)
                    self.wfile.write(json.dumps(asdict(receipt)).encode() + b"\n")
                except OSError:
                    return  # the client is gone, or was silent for too long

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        self._server = Server(str(path), Handler)
        path.chmod(0o660)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="listener", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Take no more rows."""
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


def send_rows(path: Path, body: bytes, seconds: float = 5.0) -> Receipt:
    """Send lines of JSON to a live engine, and return what became of them.

    Raises:
        OSError: no engine listens, or it does not answer in time.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        client.connect(str(path))
        client.sendall(body)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answer:
            found = json.loads(answer.readline())
    return Receipt(**found)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
