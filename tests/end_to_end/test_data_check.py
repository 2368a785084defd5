"""``margincast data check`` on a store: what it prints and writes, and that it only reads."""

import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from margincast.cli import app
from margincast.core.errors import InputError
from margincast.data.check import _plots
from margincast.data.check.survey import survey_store
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
    (count,) = (one.count for text, one in what.items() if text.startswith("holes"))
    # a hole of seven seconds leaves six rows out
    assert count == pytest.approx(6 * 4949, rel=0.05)
    assert not [text for text in what if "spike" in text or "wick" in text or "unit" in text]
    assert not [text for text in what if "sizes of a book" in text]
    locked = what["locked (best bid = best ask)"]
    assert locked.count / locked.total == pytest.approx(0.46, abs=0.005)
    assert any(text.startswith("missing rows: longest step 108 s") for text in what)
    assert what["all on one side: the aggressor is not known"].count == 306_657


def test_standx_in_other_units_or_with_wrong_snapshots_is_found(shared_data, tmp_path):
    name = "book/standx_BTC-USD_book20_1s.parquet"
    scanned = with_canonical_names(pl.scan_parquet(shared_data / "data" / name))
    hours = pl.col("ts").is_between(
        NOW + timedelta(days=6, hours=6), NOW + timedelta(days=6, hours=18)
    )
    frame = with_utc_timestamp(scanned, name).filter(hours).collect()
    later = pl.col("ts") >= datetime(2026, 1, 7, 12, tzinfo=UTC)
    single = pl.int_range(pl.len()) % 4500 == 2250
    for folder, where, prices, sizes in (
        ("unit", later, 1000.0, 1e-3),
        ("single", single, 1.5, 1.0),
        ("sizes", single, 1.0, 1000.0),
    ):
        wrong = frame.with_columns(
            pl.when(where).then(pl.col(column) * factor).otherwise(column).alias(column)
            for word, factor in (("price", prices), ("size", sizes))
            for column in frame.columns
            if f"_{word}_" in column
        )
        write_source(tmp_path / folder, "book", "standx", wrong)
    told = {
        folder: survey_store(Store(tmp_path / folder)).findings
        for folder in ("unit", "single", "sizes")
    }
    change = told["unit"][0]
    assert change.severity == "fault"
    assert change.what.startswith("unit change: mid by 10^k, size by 10^-k; worst: times ")
    assert change.first == datetime(2026, 1, 7, 12, tzinfo=UTC)
    for folder, words in (("single", "price spikes that come back (mid"), ("sizes", "sizes of a")):
        (finding,) = (one for one in told[folder] if one.what.startswith(words))
        assert (finding.count, finding.severity) == (8, "warning")


def test_report_passes_or_not_as_it_is_told(store, tmp_path):
    report = check.run(store, tmp_path / "out")
    assert {"fault", "warning"} <= {one.severity for one in report.findings}
    assert report.passed
    assert not check.run(store, tmp_path / "out", "fault").passed
    assert not replace(report, fail_on="warning").passed
    clean = tmp_path / "clean"
    frame = pl.DataFrame(
        {
            "symbol": "A",
            "ts": [NOW + timedelta(hours=hour) for hour in [*range(50), *range(60, 99)]],
            "open": 1.0, "high": 2.0, "low": 1.0, "close": 1.5, "volume": 1.0,
        },
        schema_overrides={"ts": TIMESTAMP},
    )  # fmt: skip  # one bar a line
    write_source(clean, "bars_1h", "venue", frame)
    report = check.run(clean, tmp_path / "out", "fault")
    assert report.passed
    assert not replace(report, fail_on="warning").passed
    with pytest.raises(InputError, match="cannot fail on 'info'; allowed: fault, warning"):
        check.run(clean, tmp_path / "out", "info")


def test_terminal_has_a_line_a_contract_and_one_for_equal_findings(tmp_path, capsys):
    root = tmp_path / "store"
    hours = [*range(100), *range(110, 300)]
    bars = pl.DataFrame(
        {
            "ts": [NOW + timedelta(hours=hour) for hour in hours],
            "open": 1.0, "high": 2.0, "low": 1.0, "volume": 1.0,
            "close": [1.0 + hour % 7 / 10 for hour in hours],
        },
        schema_overrides={"ts": TIMESTAMP},
    )  # fmt: skip  # one bar a line
    named = [bars.with_columns(pl.lit(f"C{number}").alias("symbol")) for number in range(3)]
    write_source(root, "bars_1h", "venue", pl.concat(named))
    check.run(root, tmp_path / "out")
    printed = capsys.readouterr().out
    above, below = printed.split("What was found")
    assert [f"venue C{number}" in above for number in range(3)] == [True] * 3
    assert "96.7 %" in above
    assert "11 h" in above
    assert below.count("missing rows") == 1
    assert "3: venue C0, venue C1" in re.sub(r"[\s│]+", " ", below)
    assert "3.33 %" in below


def test_page_folds_examples_and_puts_the_action_under_what_was_found(store, tmp_path):
    page = check.run(store, tmp_path / "out").html.read_text(encoding="utf-8")
    assert page.index("<h2>What is there") < page.index("<h2>Findings")
    head = page[page.index("<h2>Findings") : page.index("<tbody>", page.index("<h2>Findings"))]
    assert "What is done" not in head
    assert "Examples" not in head
    assert re.search(
        r"missing rows: [^<]*<br><span class=\"action\">left unknown[^<]*</span><details>", page
    )


def test_price_axes_have_plain_numbers(tmp_path):
    """Matplotlib marks up the numbers of a logarithmic axis; fonts without it print the markup."""
    axes = Figure().subplots()
    axes.plot([0, 1], [0.1, 120.0])
    _plots.scale_prices(axes)
    axes.figure.draw_without_rendering()
    texts = [label.get_text() for label in axes.get_yticklabels(which="both")]
    assert "0.1" in texts
    assert "100" in texts
    assert not [text for text in texts if "$" in text]
