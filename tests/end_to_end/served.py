"""``margincast serve`` as a process of its own, for tests that need the network."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CALL = [sys.executable, "-c", "from margincast.cli import main; main()"]
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Served:
    """A running service."""

    address: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def answers(self, path: str = "/ready") -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(self.address + path, timeout=5) as answer,  # noqa: S310  # ours
        ):
            return answer.status == 200
        return False


def wait_until(true, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextlib.contextmanager
def serving(workspace: Path, *overrides: str) -> Iterator[Served]:
    """Serve a workspace on a free port until the block ends; it must end by itself when told to."""
    log = workspace / "serve.log"
    options = [part for one in ("address.port=0", *overrides) for part in ("--set", one)]
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603  # our own command
            [*CALL, "serve", str(workspace), *options], stdout=stream, stderr=stream,
            start_new_session=True,
        )  # fmt: skip
    try:

        def address() -> "re.Match[str] | None":
            assert process.poll() is None, log.read_text()
            return re.search(r"http://[0-9.]+:[0-9]+", log.read_text())

        wait_until(address, "no address was printed")
        found = address()
        assert found is not None
        served = Served(found[0], process, log)
        wait_until(served.answers, log.read_text())
        yield served
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_SECONDS) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
        assert not served.answers("/health")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
