"""However an ingest with several workers ends, none of them is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from margincast.data.store import STAGING, Store

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from margincast.cli import main; main()", "data", "ingest"]


def _children_of(process: int) -> list[int]:
    """Workers: processes that a process started with the interpreter, seen in /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status = (path / "stat").read_text().rpartition(")")[2].split()
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if int(status[1]) == process and b"spawn_main" in command:
            found.append(int(path.name))
    return found


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are seen in /proc")
@pytest.mark.parametrize(
    ("ending", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9), (signal.SIGINT, 130)]
)
def test_no_worker_outlives_the_ingest(tmp_path, ending, code):
    for name in ("BTC", "ETH"):
        folder = tmp_path / "trades" / name
        folder.mkdir(parents=True)
        rows = "".join(f"{1_704_067_200 + i},{100 + i % 7},1,buy\n" for i in range(500_000))
        (folder / f"{name}.csv").write_text("ts,price,size,side\n" + rows)
    store = tmp_path / "store"
    process = subprocess.Popen(  # noqa: S603  # our own command
        [*COMMAND, str(tmp_path / "trades"), "--out", str(store), "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(list((store / STAGING).glob("*/*"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = _children_of(process.pid)
    assert len(workers) == 2
    os.kill(process.pid, ending)
    # standard error is shared with the workers: it ends when the last of them has
    _, told = process.communicate(timeout=20)
    assert process.returncode == code, told
    assert not any(map(_is_alive, workers))
    if ending != signal.SIGKILL:
        assert "the same command continues from there" in told
    assert Store(store).records() == {}
