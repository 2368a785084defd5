"""Each source is judged alone: what is wrong is refused by name, and the rest goes on."""

import os
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from margincast.core.errors import InputError
from margincast.data.formats.format import Format, Hints, Match
from margincast.data.formats.source import Source, stamp_of
from margincast.data.store import STAGING, Record, Store, TableCount
from margincast.jobs import ingest, ingest_workers
from margincast.jobs.console import progress
from margincast.jobs.ingest_tables import account_tables

START = datetime(2024, 1, 1, tzinfo=UTC)
TRADES = "ts,price,size,side\n1704067200,100,1,buy\n1704067201,101,2,sell\n"
BARS = "ts,open,high,low,close,volume\n" + "".join(
    f"{1704067200 + 3600 * hour},10,12,9,11,5\n" for hour in range(3)
)
FUNDING = "ts,funding_rate\n1704067200,0.0001\n1704096000,-0.0002\n"


def written(folder: Path, files: dict[str, str | bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def reasons_of(summary) -> dict[str, str]:
    return {Path(refused.source).name: refused.reason for refused in summary.refused}


@pytest.mark.parametrize("workers", [1, 2])
def test_of_mixed_schemas_in_one_folder_each_file_is_judged_alone(tmp_path, workers):
    folder = written(
        tmp_path / "mixed",
        {
            "trades.csv": TRADES,
            "bars.csv": BARS,
            "funding.csv": FUNDING,
            "more-trades.csv": TRADES.replace(",", ";").replace("100", "102"),
            "half.csv": "ts,price,size\n1704067200,100,1\n",
            "letter.csv": "Dear desk,\nno data\n",
            "wide.csv": TRADES.encode("utf-16"),
            "decimal-comma.csv": "ts;price;size;side\n1704067200;100,5;1;buy\n",
        },
    )
    summary = ingest.run([folder], tmp_path / "store", workers=workers)
    assert sorted(
        (Path(record.source).name, record.tables[0].table, record.rows_out)
        for record in summary.added
    ) == [
        ("bars.csv", "bars_1h", 3),
        ("funding.csv", "funding", 2),
        ("more-trades.csv", "trades", 2),
        ("trades.csv", "trades", 2),
    ]
    reasons = reasons_of(summary)
    assert set(reasons) == {"half.csv", "letter.csv", "wide.csv", "decimal-comma.csv"}
    assert "of no kind that is known" in reasons["half.csv"]
    assert "is text in UTF-16, as its first bytes ff fe say" in reasons["wide.csv"]
    assert "record 1: column 'price' is not a number" in reasons["decimal-comma.csv"]
    assert all(str(folder / name) in reason for name, reason in reasons.items())


@pytest.mark.parametrize("where", ["match", "read"])
def test_an_error_nobody_foresaw_refuses_one_source(tmp_path, monkeypatch, where):
    def fail(source: Source) -> None:
        if source.stem == "BAD":
            raise RecursionError("too deep")

    def match(sample):
        if where == "match":
            fail(sample.source)
        return Match("funding", "here", sample.source.stem)

    def read(source, match, account):
        fail(source)
        yield from ()

    monkeypatch.setattr(ingest_workers, "FORMATS", (Format("mine", match, read),))
    folder = written(tmp_path / "in", {"BAD.csv": FUNDING, "GOOD.csv": FUNDING + "\n"})
    summary = ingest.run([folder], tmp_path / "store", workers=1)
    assert [Path(record.source).name for record in summary.added] == ["GOOD.csv"]
    assert "BAD.csv cannot be read: RecursionError: too deep" in reasons_of(summary)["BAD.csv"]
    assert not list((tmp_path / "store" / STAGING).glob("*/*"))


def test_a_panic_of_polars_refuses_one_source():
    def panic() -> None:
        # not every type can be written as JSON, and polars says so by a panic
        pl.DataFrame({"x": [b"a"]}).select(pl.struct("x").struct.json_encode())

    reason = ingest_workers.answer_or_reason(Source(Path("BTC.csv")), panic)
    assert isinstance(reason, str)
    assert reason.startswith("BTC.csv cannot be read: PanicException: ")


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_who_asks_to_end_is_heard(ending):
    def end() -> None:
        raise ending

    with pytest.raises(ending):
        ingest_workers.answer_or_reason(Source(Path("BTC.csv")), end)


@pytest.mark.parametrize("how", ["grows", "is replaced", "goes"])
def test_a_file_that_changes_after_its_digest_was_taken_is_refused(tmp_path, monkeypatch, how):
    folder = written(tmp_path / "trades", {"BTC.csv": TRADES, "ETH.csv": TRADES + "\n"})
    path = folder / "BTC.csv"
    real = ingest_workers.stage

    def meanwhile(identified, *arguments):
        if identified.request.source.path == path:
            status = path.stat()
            if how == "grows":
                with path.open("a") as more:
                    more.write("1704067202,102,1,buy\n")
            elif how == "is replaced":
                (folder / "new").write_text(TRADES.replace("100", "999"))
                os.utime(folder / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
                (folder / "new").replace(path)
            else:
                path.unlink()
        return real(identified, *arguments)

    monkeypatch.setattr(ingest_workers, "stage", meanwhile)
    summary = ingest.run([folder], tmp_path / "store", workers=1)
    assert [Path(record.source).name for record in summary.added] == ["ETH.csv"]
    expected = "cannot be read" if how == "goes" else "changed while it was read; ingest it when it"
    assert expected in reasons_of(summary)["BTC.csv"]
    assert all("symbol=BTC" not in str(found) for found in (tmp_path / "store").rglob("*"))


def test_stamps_tell_a_file_that_was_written_again(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1")
    before = stamp_of(path)
    assert stamp_of(path) == before
    os.utime(path, ns=(0, before.modified_ns + 1))
    assert stamp_of(path) != before


def test_a_source_is_hashed_once(tmp_path, monkeypatch):
    folder = written(tmp_path / "trades", {"BTC.csv": TRADES})
    asked = []
    real = ingest_workers.identify

    def noting(request, digest=None):
        asked.append(digest)
        return real(request, digest)

    monkeypatch.setattr(ingest_workers, "identify", noting)
    (record,) = ingest.run([folder], tmp_path / "store", workers=1).added
    assert asked == [None, record.digest]


def test_nothing_to_read_is_an_error_and_makes_no_store(tmp_path):
    empty = written(tmp_path / "empty", {".hidden": "", "README.md": "none"})
    with pytest.raises(InputError, match="empty holds no file of market data"):
        ingest.run([empty], tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_an_empty_archive_and_a_dangling_link_are_refused_by_name(tmp_path):
    folder = written(tmp_path / "trades", {"BTC.csv": TRADES})
    with zipfile.ZipFile(folder / "none.zip", "w"):
        pass
    (folder / "gone.csv").symlink_to("elsewhere.csv")
    summary = ingest.run([folder], tmp_path / "store", workers=1)
    assert len(summary.added) == 1
    reasons = reasons_of(summary)
    assert "is an archive without members" in reasons["none.zip"]
    assert "is a link to elsewhere.csv, which is not there" in reasons["gone.csv"]


def test_a_linked_folder_is_read(tmp_path):
    written(tmp_path / "disk" / "trades", {"BTC.csv": TRADES})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "disk")
    (record,) = ingest.run([tmp_path / "in"], tmp_path / "store", workers=1).added
    assert record.tables[0].table == "trades"


def test_paths_that_look_like_patterns_are_paths(tmp_path):
    store = tmp_path / "s[1]?*"
    folder = written(tmp_path / "trades [2024]*", {"BTC.csv": TRADES})
    frame = pl.DataFrame(
        {"ts": [START + timedelta(days=1)], "price": [1.0], "size": [1.0], "side": ["buy"]}
    )
    frame.write_parquet(folder / "ETH[a].parquet")
    assert len(ingest.run([folder], store, hints=Hints("trades"), workers=1).added) == 2
    (folder / "BTC.csv").write_text(TRADES + "1704067202,102,1,buy\n")
    (record,) = ingest.run([folder], store, hints=Hints("trades"), workers=1).added
    assert Path(record.source).name == "BTC.csv"
    assert sum(part.rows for part in Store(store).parts()) == 4


def record_of(source: str, identity: str, venue: str = "here", symbol: str = "BTC") -> Record:
    return Record(
        identity=identity,
        source=source,
        digest="",
        size_bytes=1,
        modified_ns=1,
        format="canonical table",
        settings={"table": "trades", "venue": venue},
        records={"translated into rows": 2},
        rejected={"[/red] is no number": 1},
        quarantined={},
        events={},
        tables=(TableCount("trades", venue, symbol, 2, 2, 0, 0, 0),),
        parts=(),
        ingested_at=START,
        version="0",
    )


def text_of(records: list[Record]) -> str:
    console = Console(width=200, file=None, record=True, quiet=False)
    with console.capture() as capture:
        for table in account_tables(records):
            console.print(table)
    return capture.get()


def test_files_of_one_name_in_different_folders_are_lines_of_their_own():
    sources = ["/data/a/BTC.csv", "/data/b/BTC.csv", "/old/b/BTC.csv", "/data/b/day.zip!x/ETH.csv"]
    told = text_of([record_of(source, str(number)) for number, source in enumerate(sources)])
    lines = [line.split("│")[1].strip() for line in told.splitlines() if "│ trades" in line]
    assert lines == ["a/BTC.csv", "data/b/BTC.csv", "old/b/BTC.csv", "ETH.csv"]


def test_what_looks_like_markup_in_a_name_is_printed_as_it_is(tmp_path, monkeypatch):
    told = text_of([record_of("/x/[b] [bold]BTC.csv", "1", venue="[/b]")])
    assert "[b] [bold]BTC.csv" in told
    assert "│ [/b] " in told
    assert "rejected: [/red] is no number" in told
    terminal = Console(force_terminal=True, width=200, file=(tmp_path / "out").open("w"))
    monkeypatch.setattr("margincast.jobs.console.console", terminal)
    with progress("ingest [/b]", 1) as counter:
        counter.remark("[/b] read")
        counter.advance("[/b]x.csv: 1 row")
    terminal.file.close()
    assert "[/b]x.csv: 1 row" in (tmp_path / "out").read_text()
