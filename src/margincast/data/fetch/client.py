"""One HTTP connection to a public archive: how it waits, retries are told from refusals, and stops.

No number of the margin is computed here; this is the manners with which its data are asked for: a
server that says "too many requests" is left alone by all connections for as long as it says, and
one that hangs or trickles is not waited for without end.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import quote, urljoin, urlsplit

import requests
import urllib3

from margincast import __version__
from margincast.core.errors import InputError

_CHUNK_BYTES = 1 << 18
_MOST_REDIRECTS = 3
_TEMPORARY = frozenset({408, 425, 429})
_ANSWERS = frozenset({200, 206, 404, 416})
_NOT_FOUND = 404


@dataclass(frozen=True)
class Patience:
    """How long and how often to try; the defaults suit a public archive behind a cache."""

    attempts: int = 6
    first_wait_seconds: float = 1.0
    """Wait after the first failed attempt; it doubles with each further one."""
    longest_wait_seconds: float = 30.0
    longest_retry_after_seconds: float = 300.0
    """A server that asks for more than this is taken at its word: the file fails for now."""
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 30.0
    """Longest silence, and the span over which ``slowest_bytes_per_second`` is measured."""
    slowest_bytes_per_second: float = 1024.0


class TemporaryError(Exception):
    """The attempt failed, another may succeed; ``wait_seconds`` overrides the usual back-off."""

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class RefusedError(Exception):
    """The file cannot be had, and asking again will not change it."""


class StoppedError(Exception):
    """The run is over; whoever waits or reads must leave."""


class Pace:
    """What the connections of one run share: the stop signal and the server's wish for quiet."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._quiet_until = 0.0

    @property
    def stopped(self) -> bool:
        """Whether the run is over."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End the run: sleepers wake, readers leave at their next piece."""
        self._stop.set()

    def check(self) -> None:
        """Leave if the run is over.

        Raises:
            StoppedError: it is.
        """
        if self._stop.is_set():
            raise StoppedError

    def sleep(self, seconds: float) -> None:
        """Wait, unless the run ends first.

        Raises:
            StoppedError: the run ended.
        """
        if self._stop.wait(seconds):
            raise StoppedError

    def hold(self, seconds: float) -> None:
        """Keep every connection from asking for so long."""
        with self._lock:
            self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)

    def take_turn(self) -> None:
        """Wait until the server may be asked again.

        Raises:
            StoppedError: the run ended.
        """
        self.check()
        while (left := self._quiet_until - time.monotonic()) > 0:
            self.sleep(left)


def checked_address(address: str) -> str:
    """Return a base address without its last slash.

    Raises:
        InputError: not an http or https address of a host, or it carries a password, query or
            fragment.

    >>> checked_address("https://data.binance.vision/")
    'https://data.binance.vision'
    """
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable, parts = False, urlsplit("")
    if (
        not usable
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
        or address.split() != [address]
    ):
        raise InputError(
            f"{address!r} is not the address of an archive; write http://HOST or https://HOST, "
            "with a port or folder where needed, without user name, query or fragment"
        )
    return address.rstrip("/")


class Client:
    """A keep-alive connection to one archive, for one thread."""

    def __init__(self, address: str, patience: Patience, pace: Pace) -> None:
        self._address = checked_address(address)
        self.patience = patience
        self.pace = pace
        self.bytes_received = 0
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"margincast/{__version__}"
        # the checksum is that of the bytes as they are stored; a packed transfer could not resume
        self._session.headers["Accept-Encoding"] = "identity"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.close()

    def exists(self, path: str) -> bool:
        """Ask whether a file is there, without its content.

        Raises:
            TemporaryError, RefusedError, StoppedError: it cannot be said.
        """
        with self.request("HEAD", path) as response:
            # there is no body; reading it gives the connection back for the next request
            for _ in self.chunks(response):
                pass
            return response.status_code != _NOT_FOUND

    def text(self, path: str, most_bytes: int) -> str | None:
        """Read a short text file; None where the archive has none of this name.

        Raises:
            TemporaryError: no answer, or one longer than ``most_bytes``.
            RefusedError: the server will not give it.
            StoppedError: the run ended.
        """
        with self.request("GET", path) as response:
            content = bytearray()
            for chunk in self.chunks(response):
                content += chunk
                if len(content) > most_bytes:
                    break
            # a short answer is read to its end even where only its status counts: the connection
            # can then be used again
            if response.status_code == _NOT_FOUND:
                return None
            if len(content) > most_bytes:
                raise TemporaryError(f"{path} is longer than {most_bytes} bytes")
            return content.decode("utf-8", errors="replace")

    @contextmanager
    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[requests.Response]:
        """Send a request; the body is read with :meth:`chunks` inside the ``with`` block.

        Yields:
            A response with status 200, 206, 404 or 416.

        Raises:
            TemporaryError: no answer in time, or one that asks to try again.
            RefusedError: any other answer, or a redirect to another address.
            StoppedError: the run ended.
        """
        self.pace.take_turn()
        with self._answer(method, f"{self._address}/{quote(path)}", headers or {}) as response:
            self._judge(response)
            yield response

    def chunks(self, response: requests.Response) -> Iterator[bytes]:
        """Read a body as it arrives.

        Pieces are handed on as the network delivers them, not when a block is full, so that a
        server that trickles is noticed and what it sent is kept.

        Raises:
            TemporaryError: the body breaks off, falls silent or arrives too slowly.
            StoppedError: the run ended.
        """
        since, received = time.monotonic(), 0
        while True:
            try:
                chunk: bytes = response.raw.read1(_CHUNK_BYTES, decode_content=False)
            except urllib3.exceptions.HTTPError as error:
                raise TemporaryError(f"the transfer broke off ({_first_line(error)})") from None
            self.pace.check()
            if not chunk:
                return
            self.bytes_received += len(chunk)
            received += len(chunk)
            yield chunk
            elapsed = time.monotonic() - since
            if elapsed >= self.patience.read_timeout_seconds:
                if received < elapsed * self.patience.slowest_bytes_per_second:
                    raise TemporaryError(f"{received} bytes in {elapsed:.0f} s are too slow")
                since, received = time.monotonic(), 0

    def _answer(self, method: str, url: str, headers: Mapping[str, str]) -> requests.Response:
        timeout = (self.patience.connect_timeout_seconds, self.patience.read_timeout_seconds)
        for _ in range(_MOST_REDIRECTS + 1):
            try:
                response = self._session.request(
                    method, url, headers=headers, stream=True, allow_redirects=False,
                    timeout=timeout,
                )  # fmt: skip
            except requests.RequestException as error:
                raise TemporaryError(f"no answer ({_first_line(error)})") from None
            if not response.is_redirect:
                return response
            target = urljoin(url, response.headers["location"])
            response.close()
            scheme, host, *_ = urlsplit(target)
            if (scheme, host) != urlsplit(url)[:2]:
                raise RefusedError(
                    f"redirected to {scheme}://{host}, which is not followed; if you trust it, "
                    "give that address with --base-url"
                )
            url = target
        raise RefusedError(f"redirected more than {_MOST_REDIRECTS} times")

    def _judge(self, response: requests.Response) -> None:
        status = response.status_code
        if status in _ANSWERS:
            return
        answer = f"HTTP {status} {response.reason or ''}".rstrip()
        if status not in _TEMPORARY and status < 500:
            hint = "; the archive refuses this network or region" if status in {403, 451} else ""
            raise RefusedError(answer + hint)
        wait_seconds = _retry_after(response.headers.get("Retry-After"))
        if wait_seconds is None:
            raise TemporaryError(answer)
        if wait_seconds > self.patience.longest_retry_after_seconds:
            raise RefusedError(
                f"{answer}: the server asks to come back in {wait_seconds:.0f} s; run the same "
                "command again then"
            )
        self.pace.hold(wait_seconds)
        raise TemporaryError(answer, wait_seconds=0.0)


def _retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header (RFC 9110, 10.2.3) asks for; None if unreadable."""
    if value is None:
        return None
    try:
        return urllib3.Retry().parse_retry_after(value)
    except urllib3.exceptions.InvalidHeader:
        return None


def _first_line(error: Exception) -> str:
    """The innermost reason: outside it the libraries repeat address, class and retries."""
    inner: object = error.args[0] if error.args else error
    inner = getattr(inner, "reason", None) or inner
    return (str(inner) or type(error).__name__).splitlines()[0]
