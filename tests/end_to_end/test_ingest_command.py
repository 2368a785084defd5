"""``margincast data ingest`` as a person runs it: idempotent, resumable, and nothing lost."""

import gzip
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from margincast.core.errors import InputError
from margincast.data.files import find_table_files
from margincast.data.formats.format import Options
from margincast.data.store import MANIFEST, STAGING, Store
from margincast.jobs import ingest

COMMAND = [sys.executable, "-c", "from margincast.cli import main; main()", "data", "ingest"]
DAY_SECONDS = 86_400
FIRST_SECOND = 1_704_067_200  # 2024-01-01


def write_trades(path: Path, first_second: int, count: int, step_seconds: int = 1) -> None:
    """One trade a step, as CSV with seconds since 1970."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["ts,price,size,side,trade_id"]
    lines += [
        f"{FIRST_SECOND + first_second + step_seconds * i},{100 + i % 7},1,buy,{first_second + i}"
        for i in range(count)
    ]
    path.write_text("\n".join(lines) + "\n")


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # our own command
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def content_of(root: Path) -> dict[str, pl.DataFrame]:
    store = Store(root)
    return {part.path.as_posix(): pl.read_parquet(root / part.path) for part in store.parts()}


def same(one: dict[str, pl.DataFrame], other: dict[str, pl.DataFrame]) -> bool:
    return one.keys() == other.keys() and all(one[key].equals(other[key]) for key in one)


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "venue-x" / "trades"
    for number, symbol in enumerate(("BTC", "ETH", "SOL")):
        write_trades(folder / f"{symbol}.csv", DAY_SECONDS // 2 + number, 3000, 30)
    return folder


def test_a_second_run_does_nothing(sources, tmp_path):
    store = tmp_path / "store"
    first = run(sources, "--out", store, "--workers", 1)
    assert first.returncode == 0, first.stderr
    assert "3 source(s) ingested, 0 were there already, 0 refused" in first.stderr
    assert "9,000" in first.stdout
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    second = run(sources, "--out", store, "--workers", 1)
    assert "0 source(s) ingested, 3 were there already, 0 refused" in second.stderr
    after = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed <= {"_lock"}


def test_workers_change_nothing_and_overlapping_files_are_told_apart(sources, tmp_path):
    # the second file repeats half of the first, and goes on
    write_trades(sources / "BTC" / "BTC.csv", DAY_SECONDS // 2 + 1500 * 30, 3000, 30)
    stores = [tmp_path / f"store-{workers}" for workers in (1, 3)]
    summaries = [
        ingest.run([sources], store, workers=workers)
        for store, workers in zip(stores, (1, 3), strict=True)
    ]
    assert same(*(content_of(store) for store in stores))
    for summary in summaries:
        assert sum(record.rows_in for record in summary.added) == 12_000
        for record in summary.added:
            assert record.rows_in == (record.rows_out + record.quarantined_rows + record.duplicates)


@pytest.mark.slow
def test_an_interrupted_ingest_goes_on_where_it_was(tmp_path):
    folder = tmp_path / "trades"
    for number in range(6):
        write_trades(folder / f"C{number}.csv", number * DAY_SECONDS, 60_000)
    store, whole = tmp_path / "store", tmp_path / "whole"
    arguments = [*COMMAND, str(folder), "--out", str(store), "--workers", "1"]
    for ending in (signal.SIGKILL, signal.SIGINT):
        before = len(list((store / MANIFEST).glob("*.json")))
        process = subprocess.Popen(  # noqa: S603  # our own command
            arguments, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while len(list((store / MANIFEST).glob("*.json"))) == before:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(ending)
        _, told = process.communicate(timeout=60)
        assert process.returncode == (-9 if ending == signal.SIGKILL else 130), told
        for part in Store(store).parts():
            assert len(pl.read_parquet(store / part.path)) == part.rows
    assert "the same command continues from there" in told
    assert run(folder, "--out", store, "--workers", 1).returncode == 0
    assert run(folder, "--out", whole, "--workers", 1).returncode == 0
    assert same(content_of(store), content_of(whole))
    assert not (store / STAGING).exists() or not any((store / STAGING).rglob("*.parquet"))


def test_a_full_disk_leaves_the_store_as_it_was(sources, tmp_path):
    store = tmp_path / "store"
    assert run(sources / "BTC.csv", "--out", store).returncode == 0
    before = content_of(store)
    write_trades(sources / "BIG.csv", 0, 120_000)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    full = run(sources, "--out", store, "--workers", 1, preexec_fn=limit)
    assert full.returncode == 1
    assert "BIG.csv could not be written" in full.stderr
    assert "make room" in full.stderr
    after = content_of(store)
    assert same({key: after[key] for key in before}, before)
    assert not any("symbol=BIG" in key for key in after)
    assert run(sources, "--out", store).returncode == 0


def test_what_cannot_be_read_is_refused_by_name_and_the_rest_goes_on(sources, tmp_path):
    (sources / "broken.csv.gz").write_bytes(
        gzip.compress((sources / "BTC.csv").read_bytes())[:-200]
    )
    (sources / "letter.txt").write_text("Dear risk desk,\nno data today.\n")
    (sources / "empty.csv").write_bytes(b"")
    (sources / "damaged.zip").write_bytes(b"PK\x03\x04 and no more")
    result = run(sources, "--out", tmp_path / "store", "--workers", 1)
    assert result.returncode == 1
    assert "3 source(s) ingested, 0 were there already, 4 refused" in result.stderr
    assert "broken.csv.gz is damaged or incomplete after byte" in result.stderr
    assert "letter.txt is of no kind that is known" in result.stderr
    assert "Binance klines:" in result.stderr  # the list of what was tried
    assert "empty.csv is empty" in result.stderr
    assert "damaged.zip is no readable zip archive" in result.stderr


def test_a_store_is_refused_where_it_cannot_be_made(sources, tmp_path):
    (tmp_path / "file").write_text("")
    result = run(sources, "--out", tmp_path / "file")
    assert result.returncode == 2
    assert "cannot be written" in result.stderr
    missing = run(tmp_path / "nowhere", "--out", tmp_path / "store")
    assert missing.returncode == 2
    assert "nowhere does not exist" in missing.stderr


MAPPING = """
table = "trades"
venue = "desk"
symbol = "BTC"
[columns]
ts = "time"
price = "px"
size = {{ column = "qty", times = {factor} }}
side = "side"
"""


def test_other_settings_for_a_source_that_is_there_are_refused(tmp_path):
    (tmp_path / "trades.csv").write_text("time,px,qty,side\n1700000000,10,5,buy\n")
    mapping = tmp_path / "mapping.toml"
    store = tmp_path / "store"
    mapping.write_text(MAPPING.format(factor=1.0))
    first = ingest.run([tmp_path / "trades.csv"], store, mapping=mapping, workers=1)
    assert len(first.added) == 1
    same_again = ingest.run([tmp_path / "trades.csv"], store, mapping=mapping, workers=1)
    assert len(same_again.present) == 1
    # a corrected mapping must not be taken for done
    mapping.write_text(MAPPING.format(factor=0.001))
    summary = ingest.run([tmp_path / "trades.csv"], store, mapping=mapping, workers=1)
    assert "is in the store, read with another mapping" in summary.refused[0].reason


def test_how_books_are_built_concerns_books_only(sources, tmp_path):
    bybit = sources / "btc.jsonl"
    bybit.write_text(
        '{"topic":"orderbook.500.BTCUSDT","type":"snapshot","ts":1733011200691,'
        '"data":{"s":"BTCUSDT","b":[["9","1"]],"a":[["10","1"]],"u":5,"seq":7},'
        '"cts":1733011200688}\n'
    )
    store = tmp_path / "store"
    ingest.run([sources], store, workers=1)
    again = ingest.run([sources], store, options=Options(book_levels=5), workers=1)
    assert len(again.present) == 3
    assert "read with book_levels = 20, not 5" in again.refused[0].reason


def test_specs_name_folders_of_a_store(sources, tmp_path):
    ingest.run([sources], tmp_path / "store", workers=1)
    entry = "table=trades/venue=unknown"
    files, findings = find_table_files(tmp_path / "store", [entry], ["BTC", "SOL"], "trades")
    assert [(file.symbol, len(file.paths)) for file in files] == [("BTC", 2), ("SOL", 2)]
    assert files[0].scan().collect()["ts"].is_sorted()
    assert findings == []
    with pytest.raises(InputError, match=r"is a store that holds table=trades/venue=unknown"):
        find_table_files(tmp_path / "store", ["book"], [], "book")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read anything")
def test_a_file_that_may_not_be_read_is_refused(sources, tmp_path):
    (sources / "BTC.csv").chmod(0)
    result = run(sources, "--out", tmp_path / "store")
    assert result.returncode == 1
    assert "BTC.csv cannot be read" in result.stderr
