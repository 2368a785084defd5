"""The service as processes: half-open, slow and giant requests, dying workers, counts of all."""

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.end_to_end.served import serving, wait_until
from tests.serving.published_case import publish, service_workspace

from margincast.jobs.serve import create_key, service_of
from margincast.serving.ledger import Ledger

pytestmark = pytest.mark.slow

OVERRIDES = (
    "limits.header_time=1s", "limits.request_time=2s", "limits.connections=40", "limits.streams=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    newest = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    return service_workspace(tmp_path_factory.mktemp("process") / "workspace", newest=newest)


@pytest.fixture(scope="module")
def key(workspace):
    return create_key(workspace, "test", ["read", "score"], expires=None, who="a test")


@pytest.fixture(scope="module")
def served(workspace, key):
    with serving(workspace, *OVERRIDES) as served:
        yield served
    # every start and key stands in the log, unbroken
    audit = Ledger(workspace / service_of(workspace)[0].access.audit_file)
    assert [entry.kind for entry in audit.verify()] == ["key", "service start"]


def talk(port, *pieces, pause=0.0, patience=10.0):
    """Send raw bytes and return all that comes back until the service hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        found = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            while part := connection.recv(65_536):
                found += part
        except (ConnectionResetError, BrokenPipeError):
            pass
        return found


def status_of(answer):
    assert answer.startswith(b"HTTP/1.1 "), answer
    assert b"Traceback" not in answer
    return int(answer[9:12])


def get(path, key, *, close=True, method="GET"):
    end = "connection: close\r\n\r\n" if close else "\r\n"
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{end}".encode()


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([], 408),
        ([b"GET /health HTTP/1.1\r\nhost: x\r\n"], 408),
        ([b"G"], 408),
        ([b"GET /health HTTP/1.1\r\n" + b"x: y\r\n" * 5_000], 431),
        ([b"GET /health HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n"], 431),
        ([b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"], 431),
        ([b"nonsense\r\n\r\n"], 400),
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], 400),
        ([b"GET / HTTP/9.9\r\n\r\n"], 400),
        ([b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n"], 400),
        ([b"GET /health HTTP/1.1\r\n\r\n"], 400),
        ([b"GET /health HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n"], 400),
        ([b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"],
         400),
    ],
    ids=["silent", "half a head", "a byte", "many headers", "a long header", "a long address",
         "nonsense", "TLS", "another version", "a zero byte",
         "no host", "two hosts", "two lengths"],
)  # fmt: skip
def test_what_is_no_request_is_refused_in_time(served, pieces, status):
    started = time.monotonic()
    assert status_of(talk(served.port, *pieces)) == status
    assert time.monotonic() - started < 5.0


def test_a_head_that_drips_is_cut_off(served):
    drops = [bytes([one]) for one in b"GET /health HTTP/1.1\r\nhost: x\r\n" + 40 * b"a: b\r\n"]
    answer = talk(served.port, *drops, pause=0.03)
    assert answer == b"" or status_of(answer) == 408


def test_a_body_that_does_not_come_is_cut_off(served, key):
    head = get("/v1/what-if/account", key, method="POST")[:-2] + b"content-length: 100\r\n\r\n"
    answer = talk(served.port, head + b'{"positions"')
    assert status_of(answer) == 408


def test_a_giant_body_is_refused_before_it_has_come(served, key):
    head = get("/v1/what-if/account", key, method="POST")[:-2]
    assert status_of(talk(served.port, head + b"content-length: 999999999\r\n\r\n")) == 413


def test_a_body_that_grows_without_end_is_cut_off(served, key):
    head = get("/v1/what-if/account", key, method="POST")[:-2]
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = talk(served.port, head + b"transfer-encoding: chunked\r\n\r\n", *(400 * [chunk]))
    # who goes on sending may not get to read the refusal
    assert answer == b"" or status_of(answer) == 413
    assert served.answers()


def test_requests_in_a_row_on_one_connection_are_all_answered(served, key):
    many = b"".join(get("/v1/margins/SIM-BTC", key, close=False) for _ in range(20))
    answer = talk(served.port, many + get("/health", key))
    assert answer.count(b"HTTP/1.1 200 OK") == 21


def test_many_requests_sent_at_once_are_not_one_large_head(served, key):
    many = 900 * b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    # the last one comes in two parts, of which the first ends what was sent at once
    last = get("/health", key)
    answer = talk(served.port, many + last[:9], last[9:], pause=0.2)
    assert answer.count(b"HTTP/1.1 200 OK") == 901


def test_a_key_in_a_trailer_opens_nothing(served, key):
    head = b"POST /v1/what-if/account HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    trailer = f"0\r\nauthorization: Bearer {key}\r\n\r\n".encode()
    answer = talk(served.port, head + b"transfer-encoding: chunked\r\n\r\n" + trailer)
    assert status_of(answer) == 401


def test_a_request_before_nonsense_is_no_defect(served, key):
    talk(served.port, get("/v1/margins", key, close=False) + b"\x00nonsense\r\n\r\n")
    assert "incident" not in served.log.read_text()


def test_who_asks_and_does_not_read_is_cut_off(served, key):
    asked = get("/v1/margins", key, close=False)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.connect(("127.0.0.1", served.port))
        deaf.settimeout(0.5)
        # until neither side's buffers hold more: the service has stopped reading too
        with contextlib.suppress(TimeoutError):
            while True:
                deaf.sendall(asked)

        def cut_off():
            try:
                deaf.send(b"G", socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                return True
            return False

        wait_until(cut_off, "a caller who does not read holds its connection")
    assert served.answers()


def test_more_connections_than_allowed_are_turned_away_and_the_others_served(served):
    held = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(100)]
    try:
        refused = 0
        for one in held:
            one.settimeout(0.05)
            try:
                refused += one.recv(4_096).startswith(b"HTTP/1.1 503")
            except TimeoutError:
                continue
        assert refused >= 20
    finally:
        for one in held:
            one.close()
    wait_until(served.answers, "the service did not come back")


def ask(served, path, key):
    request = urllib.request.Request(  # noqa: S310  # ours
        served.address + path, headers={"authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # ours
        return answer.read()


def test_counts_are_those_of_all_workers(served, key):
    def count():
        text = ask(served, "/metrics", key).decode()
        start = 'margincast_requests_total{route="/v1/model",status="200"} '
        lines = [line for line in text.splitlines() if line.startswith(start)]
        memory = [line for line in text.splitlines() if "resident_bytes{" in line]
        return (float(lines[0].rpartition(" ")[2]) if lines else 0.0), len(memory)

    before, workers = count()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ask(served, "/v1/model", key), range(40)))
    after, _ = count()
    assert after - before == 40
    assert workers == 2


def test_a_publication_reaches_every_worker_and_no_request_is_dropped(served, workspace, key):
    stop, seen = [], []

    def keep_asking():
        while not stop:
            answer = json.loads(ask(served, "/v1/margins/SIM-BTC", key))
            seen.append(answer["publication"]["number"])

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking) for _ in range(4)]
        number = publish(workspace, (0.012, 0.0041, 0.0054), at=datetime.now(UTC)).number
        time.sleep(3)
        stop.append(True)
        for one in asking:
            one.result()
    assert seen[0] == number - 1
    assert set(seen[-20:]) == {number}


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def test_a_worker_that_is_killed_is_started_again(served, key):
    victim, other = (int(number) for number in children(served.process)[-2:])
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: str(victim) not in children(served.process), "the dead one stays")
    wait_until(lambda: len(children(served.process)) >= 3, "nobody took its place")
    assert str(other) in children(served.process)

    def both_count():
        try:
            text = ask(served, "/metrics", key).decode()
        except (urllib.error.URLError, OSError):
            return False
        found = [line for line in text.splitlines() if "resident_bytes{" in line]
        return len(found) == 2 and not any(f'pid="{victim}"' in line for line in found)

    wait_until(both_count, "the gauges of the dead one stay")


def test_workers_end_with_the_process_that_holds_the_port(workspace, tmp_path):
    own, ended = tmp_path / "workspace", []
    shutil.copytree(workspace, own)

    def kill_the_holder():
        with serving(own, "address.workers=1") as served:
            worker = children(served.process)[-1]
            os.kill(served.process.pid, signal.SIGKILL)
            wait_until(lambda: not Path("/proc", worker).exists(), "the worker lives on")
            ended.append(not served.answers("/health"))

    # a holder that was killed did not end by itself, which `serving` asks for
    with pytest.raises(AssertionError):
        kill_the_holder()
    assert ended == [True]
