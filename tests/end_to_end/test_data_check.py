"""``margincast data check`` on a store: what it prints and writes, and that it only reads."""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from typer.testing import CliRunner

from margincast.cli import app
from margincast.core.errors import InputError
from margincast.data.formats.format import Batch
from margincast.data.ingestion.staging import PartWriter, QuarantineWriter
from margincast.data.schemas import TIMESTAMP, with_canonical_names, with_utc_timestamp
from margincast.data.store import MANIFEST, Record, Store
from margincast.jobs import check

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def write_source(root, table, venue, frame, **told):
    """Put a frame into a store as an ingest does."""
    (root / MANIFEST).mkdir(parents=True, exist_ok=True)
    identity = hashlib.sha256(f"{table} {venue}".encode()).hexdigest()[:16]
    quarantine = QuarantineWriter(root / "_quarantine" / f"{identity}.parquet")
    writer = PartWriter(root, identity, quarantine)
    writer.add(Batch(table, venue, frame))
    writer.finish()
    quarantine.close()
    Store(root).write_record(
        Record(
            identity=identity,
            source="source",
            digest="0" * 64,
            size_bytes=1,
            modified_ns=1,
            format="test",
            settings={"table": table, "venue": venue, "symbol": None},
            records={"translated": len(frame)},
            rejected=told.get("rejected", {}),
            quarantined=dict(quarantine.reasons),
            events=told.get("events", {}),
            tables=writer.counts(),
            parts=tuple(writer.parts),
            ingested_at=NOW,
            version="0",
        )
    )


@pytest.fixture
def store(tmp_path):
    """Bars with a gap, a repetition, a row out of order and one that breaks a rule."""
    root = tmp_path / "store"
    hours = [hour for hour in range(300) if not 100 <= hour < 110]
    hours = [*hours[:50], 48, *hours[50:], 200]
    prices = [100 + hour % 7 for hour in hours]
    frame = pl.DataFrame(
        {
            "symbol": "<b>[red]A$B[/red]",
            "ts": [NOW + timedelta(hours=hour) for hour in hours],
            **{name: [float(price) for price in prices] for name in ("open", "low", "close")},
            "high": [price + 1.0 for price in prices],
            "volume": [1.0] * (len(hours) - 1) + [-1.0],
        },
        schema_overrides={"ts": TIMESTAMP},
    )
    write_source(
        root, "bars_1h", "venue", frame, rejected={"not a number": 3}, events={"sequence hole": 2}
    )
    return root


def contents(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_command_reports_everything_and_leaves_the_store_alone(store, tmp_path):
    before = contents(store)
    out = tmp_path / "report"
    result = CliRunner().invoke(app, ["data", "check", str(store), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert contents(store) == before
    told = json.loads((out / "check.json").read_text(encoding="utf-8"))
    counts = {finding["what"]: finding["count"] for finding in told["findings"]}
    assert counts["exact duplicates in the sources"] == 1
    # of the rows that came late one broke a rule and is counted as quarantined only
    assert counts["rows after a row of a later time in their source"] == 1
    assert counts["quarantined: volume is negative"] == 1
    assert counts["rejected: not a number"] == 3
    assert counts["sequence hole"] == 2
    (missing,) = (one for one in told["findings"] if one["what"].startswith("missing rows"))
    assert (missing["count"], missing["total"]) == (10, 300)
    assert missing["first"] == (NOW + timedelta(hours=99)).isoformat()
    assert all(finding["action"] for finding in told["findings"])
    assert [one["severity"] for one in told["findings"]] == sorted(
        (one["severity"] for one in told["findings"]), key=["fault", "warning", "info"].index
    )
    assert told["tables"][0]["present_share"] == pytest.approx(290 / 300, rel=1e-5)


def test_same_store_gives_the_same_files(store, tmp_path):
    one, other = (check.run(store, tmp_path / name) for name in ("one", "other"))
    assert one.json.read_bytes() == other.json.read_bytes()
    assert one.html.read_bytes() == other.html.read_bytes()


def test_page_stands_alone_and_escapes_names(store, tmp_path):
    page = check.run(store, tmp_path / "out").html.read_text(encoding="utf-8")
    assert "<b>[red]" not in page
    assert "&lt;b&gt;[red]A$B[/red]" in page
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<script" not in page


def test_names_that_look_like_markup_are_printed_as_they_are(store, tmp_path, capsys):
    check.run(store, tmp_path / "out")
    printed = re.sub(r"[\s│]+", "", capsys.readouterr().out)
    assert "[red]A$B[/red]" in printed


def test_what_is_no_store_is_refused(store, tmp_path):
    with pytest.raises(InputError, match=r"is no store.*data ingest"):
        check.run(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(InputError, match="it lies in the store"):
        check.run(store / "table=bars_1h", tmp_path / "out")
    with pytest.raises(InputError, match="lies in the store, to which a check does not write"):
        check.run(store, store / "report")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--out takes a folder"):
        check.run(store, tmp_path / "file")
    empty = tmp_path / "empty"
    (empty / MANIFEST).mkdir(parents=True)
    with pytest.raises(InputError, match="holds nothing"):
        check.run(empty, tmp_path / "out")


def test_damaged_part_is_named(store, tmp_path):
    part = next(store.glob("table=*/**/*.parquet"))
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    with pytest.raises(InputError, match=part.name):
        check.run(store, tmp_path / "out")


def test_standx_is_as_its_notes_say(shared_data, tmp_path):
    root = tmp_path / "store"
    for table, name in (
        ("book", "book/standx_BTC-USD_book20_1s.parquet"),
        ("trades", "trades/standx_BTC-USD_trades.parquet"),
    ):
        scanned = with_canonical_names(pl.scan_parquet(shared_data / "data" / name))
        frame = with_utc_timestamp(scanned, name).collect()
        if "side" in frame.columns:
            frame = frame.with_columns(pl.col("side").str.to_lowercase())
        write_source(root, table, "standx", frame)
    findings = check.run(root, tmp_path / "out").findings
    what = {finding.what: finding for finding in findings}
    (holes,) = (text for text in what if text.startswith("holes"))
    assert holes.startswith("holes of 6 s to 7 s (median 7 s) about every 36 s; 84 % of")
    locked = what["locked (best bid = best ask)"]
    assert locked.count / locked.total == pytest.approx(0.46, abs=0.005)
    assert any(text.startswith("missing rows: longest step 108 s") for text in what)
    assert what["all on one side: the aggressor is not known"].count == 306_657
