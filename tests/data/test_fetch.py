"""Fetching against a local archive that serves real-format files and misbehaves."""

import csv
import hashlib
import io
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from margincast.core.errors import InputError
from margincast.data.fetch.client import Patience, checked_address
from margincast.data.fetch.connections import MOST_FAILURES_IN_A_ROW, fetch_files
from margincast.jobs.fetch import ADDRESS_VARIABLE, run

QUICK = Patience(
    attempts=4,
    first_wait_seconds=0.01,
    longest_wait_seconds=0.02,
    longest_retry_after_seconds=5.0,
    connect_timeout_seconds=5.0,
    read_timeout_seconds=5.0,
)
HASTY = replace(QUICK, read_timeout_seconds=0.4)
"""For servers that fall silent; too hasty where requests are counted on a busy machine."""
HEADER = [
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
]  # fmt: skip


def kline_zip(name, rows=24, seed=0):
    """One file as the venue packs it: a zip with one CSV of the same name, header included."""
    draw = random.Random(seed)  # noqa: S311  # made-up prices, not secrets
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for row in range(rows):
        opened = 1_704_067_200_000 + row * 60_000
        prices = [f"{draw.uniform(42_000, 43_000):.2f}" for _ in range(4)]
        volumes = [f"{draw.uniform(0, 500):.3f}" for _ in range(2)]
        count, *taker = draw.randrange(9_999), *(f"{draw.uniform(0, 99):.3f}" for _ in range(2))
        writer.writerow(
            [opened, *prices, volumes[0], opened + 59_999, volumes[1], count, *taker, 0]
        )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name.replace(".zip", ".csv")), text.getvalue())
    return packed.getvalue()


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    range: str | None
    at: float


class Archive(ThreadingHTTPServer):
    """The archive and its moods: ``faults[path]`` are used up one a request, then all is well."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults = {}, defaultdict(list)
        self.ranges, self.delay_seconds = True, 0.0
        self.asked, self.sent_bytes = [], Counter()
        self.active, self.most_active, self.connections = 0, 0, 0
        self.lock, self.release = threading.Lock(), threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"

    def publish(self, path, content):
        name = path.rpartition("/")[2]
        self.files[path] = content
        self.files[path + ".CHECKSUM"] = checksum_text(content, name)

    def bodies(self, path=None):
        """GET requests for data files, or for one of them."""
        return [
            one for one in self.asked
            if one.method == "GET" and (one.path == path if path else one.path.endswith(".zip"))
        ]  # fmt: skip

    def handle_error(self, request, client_address):
        """A client that leaves in the middle is what half of these tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        archive, path = self.server, unquote(self.path).lstrip("/")
        with archive.lock:
            archive.asked.append(
                Asked(self.command, path, self.headers.get("Range"), time.monotonic())
            )
            archive.active += 1
            archive.most_active = max(archive.most_active, archive.active)
            fault = archive.faults[path].pop(0) if archive.faults[path] else None
        time.sleep(archive.delay_seconds)
        try:
            self.answer(path, fault)
        finally:
            with archive.lock:
                archive.active -= 1

    def answer(self, path, fault):
        content = self.server.files.get(path)
        if fault is not None:
            fault(self, content)
        elif content is None:
            self.reply(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif self.server.ranges and (wanted := self.headers.get("Range")):
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if first >= len(content):
                self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            else:
                place = f"bytes {first}-{len(content) - 1}/{len(content)}"
                self.reply(206, content[first:], {"Content-Range": place})
        else:
            self.reply(200, content)

    def reply(self, status, body, headers=None, send=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            part = body if send is None else body[:send]
            # counted first: whoever asked may look at the count as soon as he has the bytes
            self.server.sent_bytes[unquote(self.path).lstrip("/")] += len(part)
            self.wfile.write(part)


def status(code, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.reply(code, b"no", named)


def truncated(handler, content):
    handler.reply(200, content, send=len(content) // 2)
    handler.close_connection = True


def reset(handler, content):
    handler.reply(200, content, send=len(content) // 2)
    handler.wfile.flush()
    time.sleep(0.05)  # what was sent arrives before the reset
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.rfile.close()  # it keeps the socket open
    handler.connection.close()
    handler.close_connection = True


def stalled(handler, content):
    handler.reply(200, content, send=len(content) // 2)
    handler.server.release.wait(30)
    handler.close_connection = True


def dribbling(handler, content):
    handler.reply(200, content, send=0)
    for place in range(len(content)):
        handler.wfile.write(content[place : place + 1])
        if handler.server.release.wait(0.01):
            return


def says(body):
    return lambda handler, _: handler.reply(200, body)


def checksum_text(content, name):
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


@pytest.fixture
def archive(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    with Archive() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


PATH = "data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01.zip"
NAME = PATH.rpartition("/")[2]
CONTENT = kline_zip(NAME, rows=3_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def fetch(archive, out, paths=(PATH,), connections=1):
    hangs = {stalled, dribbling} & {fault for faults in archive.faults.values() for fault in faults}
    patience = HASTY if hangs else QUICK
    outcomes = fetch_files(
        archive.address, list(paths), out, connections=connections, patience=patience
    )
    return {outcome.path: outcome for outcome in outcomes}


def part_file(out, digest=DIGEST):
    return out / f"{PATH}.{digest[:16]}.part"


def keep_part(out, content, digest=DIGEST):
    part_file(out, digest).parent.mkdir(parents=True, exist_ok=True)
    part_file(out, digest).write_bytes(content)


def assert_only_the_verified_file(out):
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == {PATH, PATH + ".CHECKSUM"}
    assert (out / PATH).read_bytes() == CONTENT
    assert (out / (PATH + ".CHECKSUM")).read_bytes() == checksum_text(CONTENT, NAME)


def test_a_file_arrives_with_its_checksum_and_is_what_the_venue_packed(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    outcome = fetch(archive, tmp_path)[PATH]
    assert outcome.result == "fetched"
    assert outcome.bytes_received == len(CONTENT) + len(checksum_text(CONTENT, NAME))
    assert_only_the_verified_file(tmp_path)
    with zipfile.ZipFile(tmp_path / PATH) as packed:
        assert packed.namelist() == [NAME.replace(".zip", ".csv")]
        assert packed.testzip() is None


def test_a_second_run_asks_for_no_body(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    fetch(archive, tmp_path)
    before = len(archive.asked)
    assert fetch(archive, tmp_path)[PATH].result == "already there"
    assert [one.path for one in archive.asked[before:]] == [PATH + ".CHECKSUM"]


def test_a_file_the_venue_has_replaced_is_fetched_again(archive, tmp_path):
    archive.publish(PATH, kline_zip(NAME, seed=1))
    fetch(archive, tmp_path)
    archive.publish(PATH, CONTENT)
    assert fetch(archive, tmp_path)[PATH].result == "fetched"
    assert_only_the_verified_file(tmp_path)


def test_a_damaged_copy_is_fetched_again(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    fetch(archive, tmp_path)
    (tmp_path / PATH).write_bytes(CONTENT[:-1])
    assert fetch(archive, tmp_path)[PATH].result == "fetched"
    assert_only_the_verified_file(tmp_path)


def test_a_copy_without_its_checksum_file_gets_it(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_bytes(CONTENT)
    assert fetch(archive, tmp_path)[PATH].result == "already there"
    assert_only_the_verified_file(tmp_path)


@pytest.mark.parametrize(
    "faults",
    [
        [status(500), status(502)],
        [status(503, Retry_After="0")],
        [status(429, Retry_After="soon")],
        [truncated],
        [reset],
        [truncated, status(500), reset],
        [stalled],
        [dribbling],
        [says(CONTENT[:-1] + b"!")],
        [says(b"<html>come back later</html>")],
    ],
    ids=[
        "500 and 502", "503", "429 with nonsense", "truncated", "reset", "one after another",
        "stalled", "dribbling", "wrong bytes", "a page instead",
    ],
)  # fmt: skip
def test_a_passing_fault_of_the_body_is_overcome(archive, tmp_path, faults):
    archive.publish(PATH, CONTENT)
    archive.faults[PATH] = list(faults)
    assert fetch(archive, tmp_path)[PATH].result == "fetched"
    assert_only_the_verified_file(tmp_path)
    assert len(archive.bodies(PATH)) == len(faults) + 1


@pytest.mark.parametrize(
    "fault",
    [
        status(500),
        truncated,
        says(checksum_text(b"another file", NAME)),
        says(checksum_text(CONTENT, "BTCUSDT-1m-2024-02.zip")),
        says(b"<html>come back later</html>"),
        says(b"x" * 100_000),
        says(b""),
    ],
    ids=["500", "truncated", "wrong", "of another file", "a page", "endless", "empty"],
)
def test_a_passing_fault_of_the_checksum_is_overcome(archive, tmp_path, fault):
    archive.publish(PATH, CONTENT)
    archive.faults[PATH + ".CHECKSUM"] = [fault]
    assert fetch(archive, tmp_path)[PATH].result == "fetched"
    assert_only_the_verified_file(tmp_path)


def test_a_checksum_that_stays_wrong_leaves_nothing_under_the_final_name(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    archive.files[PATH + ".CHECKSUM"] = checksum_text(b"another file", NAME)
    outcome = fetch(archive, tmp_path)[PATH]
    assert outcome.result == "failed"
    assert "wrong checksum" in outcome.reason
    assert DIGEST[:16] in outcome.reason
    assert "4 attempts" in outcome.reason
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert len(archive.bodies(PATH)) == QUICK.attempts


def test_a_good_copy_stays_while_its_replacement_fails(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    fetch(archive, tmp_path)
    archive.files[PATH + ".CHECKSUM"] = checksum_text(b"another file", NAME)
    outcome = fetch(archive, tmp_path)[PATH]
    assert outcome.result == "failed"
    assert "left alone, unverified" in outcome.reason
    assert_only_the_verified_file(tmp_path)


def test_what_the_archive_lacks_is_no_failure(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    absent = PATH.replace("BTC", "LUNA")
    outcomes = fetch(archive, tmp_path, [absent, PATH])
    assert outcomes[absent].result == "not in the archive"
    assert outcomes[PATH].result == "fetched"
    # a refusal with a body must not cost the connection
    assert archive.connections == 1


def test_a_file_without_checksum_is_not_taken_on_trust(archive, tmp_path):
    archive.files[PATH] = CONTENT
    outcome = fetch(archive, tmp_path)[PATH]
    assert outcome.result == "failed"
    assert "no checksum" in outcome.reason
    assert archive.bodies(PATH) == []


@pytest.mark.parametrize("fault", [truncated, reset, stalled])
def test_only_the_missing_bytes_are_asked_for_again(archive, tmp_path, fault):
    archive.publish(PATH, CONTENT)
    archive.faults[PATH] = [fault]
    assert fetch(archive, tmp_path)[PATH].result == "fetched"
    half = len(CONTENT) // 2
    assert [one.range for one in archive.bodies(PATH)] == [None, f"bytes={half}-"]
    assert archive.sent_bytes[PATH] == len(CONTENT)


def test_a_partial_file_of_an_earlier_run_is_continued(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    keep_part(tmp_path, CONTENT[:1000])
    assert fetch(archive, tmp_path)[PATH].result == "fetched"
    assert archive.sent_bytes[PATH] == len(CONTENT) - 1000
    assert_only_the_verified_file(tmp_path)


def test_a_complete_partial_file_only_needs_its_name(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    keep_part(tmp_path, CONTENT)
    assert fetch(archive, tmp_path)[PATH].result == "fetched"
    assert archive.bodies() == []
    assert_only_the_verified_file(tmp_path)


@pytest.mark.parametrize(
    ("ranges", "kept", "ranges_asked"),
    [
        (False, CONTENT[:1000], ["bytes=1000-"]),
        (True, b"?" * 1000, ["bytes=1000-", None]),
        (True, CONTENT + b"?", [f"bytes={len(CONTENT) + 1}-", None]),
    ],
    ids=["server without ranges", "other bytes", "longer than the file (416)"],
)
def test_a_partial_file_that_cannot_be_continued_starts_again(
    archive, tmp_path, ranges, kept, ranges_asked
):
    archive.ranges = ranges
    archive.publish(PATH, CONTENT)
    keep_part(tmp_path, kept)
    assert fetch(archive, tmp_path)[PATH].result == "fetched"
    assert [one.range for one in archive.bodies(PATH)] == ranges_asked
    assert_only_the_verified_file(tmp_path)


def test_a_range_that_starts_elsewhere_is_not_appended(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    keep_part(tmp_path, CONTENT[:1000])
    place = f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"
    archive.faults[PATH] = [
        lambda handler, content: handler.reply(206, content, {"Content-Range": place})
    ]
    outcome = fetch(archive, tmp_path)[PATH]
    assert outcome.result == "fetched"
    # nor read
    assert outcome.bytes_received == len(CONTENT) + 2 * len(checksum_text(CONTENT, NAME))
    assert_only_the_verified_file(tmp_path)


def test_a_partial_file_of_replaced_content_is_not_continued(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    keep_part(tmp_path, b"old", digest=hashlib.sha256(b"old content").hexdigest())
    assert fetch(archive, tmp_path)[PATH].result == "fetched"
    assert [one.range for one in archive.bodies(PATH)] == [None]
    assert_only_the_verified_file(tmp_path)


def test_every_connection_rests_when_the_server_asks_for_it(archive, tmp_path):
    # more than a second's work for the connection that was not refused itself
    paths = [PATH.replace("2024-01", f"20{year}-01") for year in range(10, 33)]
    small = kline_zip(NAME)
    for path in paths:
        archive.publish(path, small)
    archive.delay_seconds = 0.025
    archive.faults[paths[0]] = [status(429, Retry_After="1")]
    outcomes = fetch(archive, tmp_path, paths, connections=2)
    assert {outcome.result for outcome in outcomes.values()} == {"fetched"}
    refused, again = (one.at for one in archive.bodies(paths[0]))
    # requests under way when the refusal was sent are not held against anyone
    assert [one for one in archive.asked if 0.4 < one.at - refused < 1.0] == []
    assert again - refused >= 1.0


@pytest.mark.parametrize(
    "later", ["3600", formatdate(time.time() + 7200, usegmt=True)], ids=["seconds", "date"]
)
def test_a_long_wait_is_left_to_the_user(archive, tmp_path, later):
    archive.publish(PATH, CONTENT)
    archive.faults[PATH] = [status(429, Retry_After=later)]
    outcome = fetch(archive, tmp_path)[PATH]
    assert outcome.result == "failed"
    assert "asks to come back in" in outcome.reason
    assert len(archive.bodies(PATH)) == 1


def test_a_refusal_is_not_repeated(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    archive.faults[PATH + ".CHECKSUM"] = [status(403)]
    outcome = fetch(archive, tmp_path)[PATH]
    assert outcome.result == "failed"
    assert outcome.reason.startswith("HTTP 403")
    assert "region" in outcome.reason
    assert len(archive.asked) == 1


def test_a_redirect_on_the_same_host_is_followed(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    archive.files["elsewhere.zip"] = CONTENT
    archive.faults[PATH] = [status(302, Location="/elsewhere.zip")]
    assert fetch(archive, tmp_path)[PATH].result == "fetched"
    assert [one.path for one in archive.bodies()] == [PATH, "elsewhere.zip"]


def test_a_redirect_to_another_host_is_not_followed(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    archive.files["elsewhere.zip"] = CONTENT
    other = f"http://localhost:{archive.server_port}/elsewhere.zip"
    archive.faults[PATH] = [status(302, Location=other)]
    outcome = fetch(archive, tmp_path)[PATH]
    assert outcome.result == "failed"
    assert "which is not followed" in outcome.reason
    assert [one.path for one in archive.bodies()] == [PATH]


def test_a_redirect_in_a_circle_ends(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    archive.faults[PATH] = [status(302, Location=f"/{PATH}")] * 9
    assert "redirected more than 3 times" in fetch(archive, tmp_path)[PATH].reason


def test_the_bound_on_connections_holds_and_is_used(archive, tmp_path):
    paths = [PATH.replace("2024-01", f"20{year}-01") for year in range(10, 24)]
    small = kline_zip(NAME)
    for path in paths:
        archive.publish(path, small)
    archive.delay_seconds = 0.02
    outcomes = fetch(archive, tmp_path, paths, connections=3)
    assert Counter(outcome.result for outcome in outcomes.values()) == {"fetched": 14}
    assert archive.most_active == 3
    assert archive.connections == 3


@pytest.mark.parametrize("connections", [0, 17])
def test_the_bound_itself_is_bounded(archive, tmp_path, connections):
    with pytest.raises(InputError, match="1 to 16 are allowed"):
        fetch(archive, tmp_path, connections=connections)


def test_an_archive_that_is_down_is_not_asked_for_every_file(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    paths = [f"data/spot/daily/klines/AAA{n}/1h/x.zip" for n in range(60)]
    impatient = Patience(attempts=2, first_wait_seconds=0.01)
    outcomes = list(fetch_files(address, paths, tmp_path, connections=2, patience=impatient))
    assert sorted(outcome.path for outcome in outcomes) == sorted(paths)
    assert {outcome.result for outcome in outcomes} == {"failed"}
    untried = [outcome for outcome in outcomes if outcome.reason.startswith("not tried")]
    assert len(untried) == len(paths) - MOST_FAILURES_IN_A_ROW
    assert "no answer" in outcomes[0].reason


@pytest.mark.parametrize("blocked", ["the folder", "a folder above it", "the file"])
def test_a_target_that_cannot_be_written_is_one_clear_error(archive, tmp_path, blocked):
    archive.publish(PATH, CONTENT)
    out = tmp_path / "out"
    if blocked == "the folder":
        out.write_text("a file")
    elif blocked == "a folder above it":
        out.mkdir()
        (out / "data").write_text("a file")
    else:
        (out / PATH).mkdir(parents=True)
    with pytest.raises(InputError, match=r"cannot write .*--out"):
        fetch(archive, out)


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_received(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*free space"):
            fetch(archive, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert part_file(tmp_path).read_bytes() == CONTENT[:40_000]
    assert not (tmp_path / PATH).exists()
    assert fetch(archive, tmp_path)[PATH].result == "fetched"
    assert archive.bodies(PATH)[-1].range == "bytes=40000-"
    assert_only_the_verified_file(tmp_path)


def test_two_runs_do_not_write_into_one_folder(archive, tmp_path):
    archive.publish(PATH, CONTENT)
    archive.faults[PATH] = [stalled]
    first = fetch_files(
        archive.address, [PATH, PATH + "x"], tmp_path, connections=2, patience=QUICK
    )
    with closing(first):
        next(first)
        with pytest.raises(InputError, match="another fetch is writing into"):
            fetch(archive, tmp_path)
    assert fetch(archive, tmp_path)[PATH].result == "fetched"


PROGRAM = """
import sys
from pathlib import Path
from margincast.jobs.fetch import run
run(["BTCUSDT"], ["klines"], "2024-01-01", "2024-01-31", Path(sys.argv[1]),
    interval="1m", base_url=sys.argv[2])
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_ends_at_once_and_the_next_continues(archive, tmp_path, ending):
    archive.publish(PATH, CONTENT)
    archive.faults[PATH] = [stalled]
    half = len(CONTENT) // 2
    process = subprocess.Popen(  # noqa: S603  # our own interpreter on the text above
        [sys.executable, "-c", PROGRAM, str(tmp_path), archive.address], stderr=subprocess.PIPE
    )
    part = part_file(tmp_path)
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size == half) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(ending)
    _, messages = process.communicate(timeout=5)  # the read time-out is 30 s
    assert process.returncode == -ending, messages
    assert part.stat().st_size == half
    assert not (tmp_path / PATH).exists()
    assert fetch(archive, tmp_path)[PATH].result == "fetched"
    assert [one.range for one in archive.bodies(PATH)] == [None, f"bytes={half}-"]
    assert_only_the_verified_file(tmp_path)


@pytest.mark.parametrize(
    "address",
    ["ftp://host", "data.binance.vision", "https://", "https://user:word@host", "http://h?x=1",
     "http://h#x", "http://h:notaport", "http://a host", "file:///etc/passwd", ""],
)  # fmt: skip
def test_an_address_that_cannot_be_meant_is_refused(address):
    with pytest.raises(InputError, match="is not the address of an archive"):
        checked_address(address)


# the command: from a range of days to a summary


def klines(day, symbol="BTCUSDT", market="futures/um"):
    period = "monthly" if len(day) == 7 else "daily"
    return f"data/{market}/{period}/klines/{symbol}/1h/{symbol}-1h-{day}.zip"


def command(archive, out, symbols=("BTCUSDT",), tables=("klines",), **options):
    dates = options.pop("start", "2024-01-01"), options.pop("end", "2024-02-03")
    return run(symbols, tables, *dates, out, base_url=archive.address, patience=QUICK, **options)


def test_months_days_and_gaps_are_fetched_and_counted(archive, tmp_path, capsys):
    for day in ("2024-01", "2024-02-01", "2024-02-03"):
        archive.publish(klines(day), kline_zip(day, seed=len(day)))
    summary = command(archive, tmp_path)
    (row,) = summary.rows
    assert (row.asked, row.fetched, row.already_there, row.not_in_archive) == (4, 3, 0, 1)
    assert [(str(first), str(last)) for first, last in row.missing] == [("2024-02-02",) * 2]
    assert row.bytes_received >= sum(len(archive.files[one.path]) for one in archive.bodies())
    assert summary.passed
    assert summary.remarks == ()
    assert (tmp_path / klines("2024-01")).exists()
    printed = capsys.readouterr()
    assert "BTCUSDT" in printed.out
    assert "not in the archive: BTCUSDT klines 2024-02-02" in printed.err

    before = len(archive.bodies())
    (again,) = command(archive, tmp_path).rows
    assert (again.asked, again.fetched, again.already_there) == (4, 0, 3)
    assert len(archive.bodies()) == before


def test_a_month_that_is_missing_is_asked_for_day_by_day(archive, tmp_path):
    for day in range(10, 32):
        archive.publish(klines(f"2024-01-{day}"), kline_zip(f"2024-01-{day}"))
    (row,) = command(archive, tmp_path, end="2024-01-31").rows
    assert (row.asked, row.fetched, row.not_in_archive, row.failed) == (31, 22, 9, 0)
    assert [(str(first), str(last)) for first, last in row.missing] == [
        ("2024-01-01", "2024-01-09")
    ]


def test_a_symbol_without_any_file_is_questioned(archive, tmp_path, capsys):
    archive.publish(klines("2024-02-01"), kline_zip("x"))
    summary = command(
        archive, tmp_path, ["BTCUSDT", "BTCUSD_PERP"], start="2024-02-01", end="2024-02-02"
    )
    assert summary.passed
    (remark,) = summary.remarks
    assert remark.startswith("BTCUSD_PERP: the archive of um has no file in this range")
    assert "looks like BTCUSDT" in remark
    assert remark in capsys.readouterr().err.replace("\n", " ")


def test_a_table_that_ceased_does_not_put_the_symbol_in_doubt(archive, tmp_path):
    summary = command(
        archive, tmp_path, tables=["bookTicker"], start="2024-06-01", end="2024-06-02"
    )
    assert summary.remarks == (
        "bookTicker of um: the archive has it from 2023-05-16 to 2024-03-30 only",
    )


def test_a_failure_is_told_from_a_gap_and_the_rest_is_fetched(archive, tmp_path, capsys):
    days = [f"2024-02-0{day}" for day in range(1, 6)]
    for day in days:
        archive.publish(klines(day), kline_zip(day))
    archive.files[klines(days[1]) + ".CHECKSUM"] = checksum_text(b"no", f"BTCUSDT-1h-{days[1]}.zip")
    del archive.files[klines(days[3])], archive.files[klines(days[3]) + ".CHECKSUM"]
    summary = command(archive, tmp_path, start=days[0], end=days[-1])
    (row,) = summary.rows
    assert (row.asked, row.fetched, row.not_in_archive, row.failed) == (5, 3, 1, 1)
    assert not summary.passed
    assert [failure.path for failure in summary.failures] == [klines(days[1])]
    assert "wrong checksum" in capsys.readouterr().err
    archive.publish(klines(days[1]), kline_zip(days[1]))
    assert command(archive, tmp_path, start=days[0], end=days[-1]).passed


def test_the_address_comes_from_the_option_else_the_environment(archive, tmp_path, monkeypatch):
    archive.publish(klines("2024-02-01"), kline_zip("x"))
    monkeypatch.setenv(ADDRESS_VARIABLE, archive.address + "/")
    summary = run(["BTCUSDT"], ["klines"], "2024-02-01", "2024-02-01", tmp_path)
    assert summary.rows[0].fetched == 1
    monkeypatch.setenv(ADDRESS_VARIABLE, "http://127.0.0.1:1")
    (row,) = command(archive, tmp_path, start="2024-02-01", end="2024-02-01").rows
    assert row.already_there == 1


def test_names_in_other_scripts_are_fetched(archive, tmp_path):
    path = klines("2025-10-10", "币安人生USDT")
    archive.publish(path, kline_zip("x"))
    summary = command(archive, tmp_path, ["币安人生USDT"], start="2025-10-10", end="2025-10-10")
    assert summary.rows[0].fetched == 1
    assert (tmp_path / path).read_bytes() == archive.files[path]


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("2024-13-01", "2024-12-31", "--from: '2024-13-01' is not a date"),
        ("2024-01-01", "2024-01-01T12:00", "whole days"),
        ("2024-01-01", "2999-01-01", "in the future"),
    ],
)
def test_dates_that_cannot_be_meant_are_refused(archive, tmp_path, start, end, message):
    with pytest.raises(InputError, match=message):
        command(archive, tmp_path, start=start, end=end)
    assert archive.asked == []
