"""Nothing is lost between a source and the store, whatever the order, the batches or the moment."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.formats.format import ROW, TRANSLATED, Batch, Format, Match
from margincast.data.formats.source import Source
from margincast.data.ingestion import staging
from margincast.data.ingestion.commit import clean, commit, parts_by_partition
from margincast.data.ingestion.ingest import Request, identify, stage
from margincast.data.schemas import TIMESTAMP
from margincast.data.store import QUARANTINE, STAGING, Store

START = datetime(2024, 1, 1, 22, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _read(source, match, account):
    """Lines of ``symbol hour price``; a line of another shape is rejected, five make a batch."""
    with source.open() as stream:
        lines = stream.read().decode().splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if len(fields) != 3:
            account.reject(number, "not three fields", line)
        else:
            account.count(TRANSLATED)
            rows.append((number, *fields))
    for first in range(0, len(rows), 5):
        batch = rows[first : first + 5]
        prices = [float(price) for _, _, _, price in batch]
        yield Batch(
            match.table,
            match.venue,
            pl.DataFrame(
                {
                    "symbol": [symbol for _, symbol, _, _ in batch],
                    "ts": [START + timedelta(hours=int(hour)) for _, _, hour, _ in batch],
                    **dict.fromkeys(("open", "high", "low", "close"), prices),
                    "volume": 1.0,
                    ROW: [number for number, _, _, _ in batch],
                },
                schema_overrides={"ts": TIMESTAMP, ROW: pl.Int64},
            ),
        )


HOURLY = Format("hourly lines", lambda _sample: Match("bars_1h", "here"), _read)


def source_of(folder: Path, name: str, lines: list[str]) -> Source:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return Source(path)


def ingest(store: Store, source: Source):
    identified = identify(Request(source, formats=(HOURLY,)))
    present = parts_by_partition(store.records())
    staged = stage(identified, store.root, store.root / STAGING / "1", NOW)
    return commit(store, staged, present)


def rows_in(store: Store) -> pl.DataFrame:
    parts = store.parts()
    if not parts:
        return pl.DataFrame({"symbol": [], "ts": [], "close": []})
    return pl.concat([pl.read_parquet(store.root / part.path) for part in parts]).select(
        "symbol", "ts", "close"
    )


def quarantined_in(store: Store) -> pl.DataFrame:
    files = sorted((store.root / QUARANTINE).glob("*.parquet"))
    return pl.concat([pl.read_parquet(path) for path in files]) if files else pl.DataFrame()


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    with made.locked():
        yield made


def test_rows_lie_by_contract_and_month_in_order_of_time(store, tmp_path):
    lines = ["BTC 9 1", "BTC 1 2", "ETH/USD:x 0 3", "BTC 0 4", f"BTC {24 * 31} 5"]
    record = ingest(store, source_of(tmp_path, "a.txt", lines))
    folders = [part.path.parent.as_posix() for part in store.parts()]
    assert folders == [
        "table=bars_1h/venue=here/symbol=BTC/date=2024-01",
        "table=bars_1h/venue=here/symbol=BTC/date=2024-02",
        "table=bars_1h/venue=here/symbol=ETH%2FUSD%3Ax/date=2024-01",
    ]
    assert rows_in(store)["close"].to_list() == [4, 2, 1, 5, 3]
    assert {table.symbol: table.out_of_order for table in record.tables} == {
        "BTC": 2,
        "ETH/USD:x": 0,
    }


def test_the_manifest_tells_the_source_and_what_became_of_it(store, tmp_path):
    lines = ["BTC 0 1", "garbage", "BTC 1 -2", "BTC 2 3", "BTC 2 3", "BTC 2 4"]
    source = source_of(tmp_path, "a.txt", lines)
    ingest(store, source)
    (record,) = store.records().values()
    assert record.source == str(source.path)
    assert record.size_bytes == source.path.stat().st_size
    assert record.ingested_at == NOW
    assert record.rejected == {"not three fields": 1}
    assert record.quarantined == {
        "open is not above zero": 1,
        "another row of this time is kept": 1,
    }
    (table,) = record.tables
    assert (table.rows_in, table.rows_out, table.quarantined, table.duplicates) == (5, 2, 2, 1)
    kept_aside = quarantined_in(store).sort("record")
    assert kept_aside["record"].to_list() == [2, 3, 6]
    assert kept_aside["content"][0] == "garbage"
    assert '"close":-2.0' in kept_aside["content"][1]


def test_the_same_source_is_known_wherever_it_lies(store, tmp_path):
    one = identify(Request(source_of(tmp_path / "x", "a.txt", ["BTC 0 1"]), formats=(HOURLY,)))
    two = identify(Request(source_of(tmp_path / "y", "b.txt", ["BTC 0 1"]), formats=(HOURLY,)))
    other = identify(Request(source_of(tmp_path / "z", "a.txt", ["BTC 0 2"]), formats=(HOURLY,)))
    assert one.identity == two.identity != other.identity


LINES = st.lists(
    st.builds(
        lambda symbol, hour, price: f"{symbol} {hour} {price}",
        st.sampled_from(["BTC", "ETH"]),
        st.integers(0, 40),
        st.integers(-1, 3),
    )
    | st.just("broken"),
    max_size=30,
)


@given(LINES, LINES, st.integers(1, 4000))
def test_rows_in_are_rows_out_quarantined_and_duplicates(tmp_path_factory, one, two, part_bytes):
    folder = tmp_path_factory.mktemp("property")
    one, two = ["SOL 0 1", *one], ["SOL 1 1", *two]
    store = Store(folder / "store")
    with store.locked(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "PART_BYTES", part_bytes)
        patch.setattr(staging, "PENDING_BYTES", 3 * part_bytes)
        records = [
            ingest(store, source_of(folder, f"{name}.txt", lines))
            for name, lines in (("a", one), ("b", two))
        ]
    for record, lines in zip(records, (one, two), strict=True):
        assert sum(record.records.values()) + sum(record.rejected.values()) == len(lines)
        assert record.rows_in == record.rows_out + record.quarantined_rows + record.duplicates
        assert record.quarantined_rows == sum(record.quarantined.values())
    stored = rows_in(store)
    assert len(stored) == sum(record.rows_out for record in records)
    rejected = sum(sum(record.rejected.values()) for record in records)
    kept_aside = sum(record.quarantined_rows for record in records)
    assert len(quarantined_in(store)) == rejected + kept_aside
    # of a contract's hour the store has one row, and it is one of those that came
    said = Counter(line for line in (*one, *two) if line != "broken" and " -1" not in line)
    said = Counter({line: n for line, n in said.items() if not line.endswith(" 0")})
    hours = {tuple(line.split()[:2]) for line in said}
    assert len(stored) == len(hours)
    for symbol, ts, close in stored.rows():
        assert f"{symbol} {(ts - START) // timedelta(hours=1)} {close:.0f}" in said
    for part in store.parts():
        assert pl.read_parquet(store.root / part.path)["ts"].is_sorted()


def test_an_interrupted_ingest_leaves_nothing_that_counts_and_the_next_cleans_up(store, tmp_path):
    ingest(store, source_of(tmp_path, "a.txt", ["BTC 0 1", "oops"]))
    before = rows_in(store)
    staged = stage(
        identify(Request(source_of(tmp_path, "b.txt", ["BTC 5 1", "bad"]), formats=(HOURLY,))),
        store.root,
        store.root / STAGING / "1",
        NOW,
    )
    # as if it had been ended after the first move: a part lies in its partition without a record
    part = staged.record.parts[0]
    (staged.folder / part.path).replace(store.root / part.path)
    (store.root / QUARANTINE / f"{staged.record.identity}.parquet").write_bytes(b"half")
    assert rows_in(store).equals(before)
    assert clean(store, store.records()) == 3
    assert not (store.root / part.path).exists()
    assert not (store.root / STAGING).exists()
    assert len(list((store.root / QUARANTINE).iterdir())) == 1
    ingest(store, source_of(tmp_path, "b.txt", ["BTC 5 1", "bad"]))
    assert rows_in(store)["close"].len() == 2


def test_two_ingests_cannot_write_to_one_store(store):
    with pytest.raises(InputError, match="another ingest"), Store(store.root).locked():
        pass


def test_a_source_that_ends_early_leaves_nothing(store, tmp_path):
    def broken(source, match, account):
        yield from _read(source, match, account)
        raise InputError(f"{source} is damaged after byte 7")

    form = Format("broken", HOURLY.match, broken)
    identified = identify(Request(source_of(tmp_path, "a.txt", ["BTC 0 1"]), formats=(form,)))
    with pytest.raises(InputError, match="byte 7"):
        stage(identified, store.root, store.root / STAGING / "1", NOW)
    assert not any((store.root / STAGING).rglob("*.parquet"))
    assert store.records() == {}


def test_a_folder_of_someone_else_is_not_a_store_and_loses_nothing(tmp_path):
    theirs = tmp_path / "table=x" / "venue=y" / "symbol=z" / "date=2024-01-01" / "part-0.parquet"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"precious")
    with (
        pytest.raises(InputError, match="holds partitions but no manifest"),
        Store(tmp_path).locked(),
    ):
        pass
    assert theirs.read_bytes() == b"precious"


def test_clean_removes_only_what_an_ingest_writes(store):
    folder = store.root / "table=x" / "venue=y" / "symbol=z" / "date=2024-01-01"
    folder.mkdir(parents=True)
    (folder / "part-0.parquet").write_bytes(b"precious")
    (folder / f"{'0' * 16}-0.parquet").write_bytes(b"left over")
    assert clean(store, {}) == 1
    assert [path.name for path in folder.iterdir()] == ["part-0.parquet"]


@pytest.mark.parametrize("fault", ["damaged", "missing", "full"])
def test_a_commit_that_fails_leaves_the_store_as_it_was(store, tmp_path, monkeypatch, fault):
    ingest(store, source_of(tmp_path, "a.txt", ["BTC 0 1", "BTC 900 1"]))
    before = {path: path.read_bytes() for path in store.root.rglob("*.parquet")}
    first = store.root / store.parts()[0].path
    content = first.read_bytes()
    if fault == "damaged":
        first.write_bytes(content[:50])
    elif fault == "missing":
        first.unlink()
    else:

        def full(self, record):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Store, "write_record", full)
    with pytest.raises(InputError, match=r"b\.txt could not be brought into the store"):
        ingest(store, source_of(tmp_path, "b.txt", ["BTC 0 1", "BTC 1 2", "bad", "BTC 950 1"]))
    first.write_bytes(content)
    left = {path for path in store.root.rglob("*.parquet") if STAGING not in path.parts}
    assert left == set(before)
    monkeypatch.undo()
    ingest(store, source_of(tmp_path, "b.txt", ["BTC 0 1", "BTC 1 2", "bad", "BTC 950 1"]))
    assert len(rows_in(store)) == 4


def test_a_source_of_which_nothing_can_be_read_is_refused(store, tmp_path):
    with pytest.raises(InputError, match=r"none of its 2 records .* record 1: not three fields: x"):
        ingest(store, source_of(tmp_path, "a.txt", ["x", "y"]))
    assert store.records() == {}
