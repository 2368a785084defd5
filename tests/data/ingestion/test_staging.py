"""Parts hold what came, in order, in bounded memory; what cannot be stored is kept aside."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.formats.format import ROW, Batch, Reject
from margincast.data.ingestion import staging
from margincast.data.ingestion.quarantine import QuarantineWriter
from margincast.data.ingestion.staging import PartWriter
from margincast.data.schemas import TIMESTAMP

START = datetime(2024, 1, 1, tzinfo=UTC)


def trades(seconds: list[int], symbols: list[str] | str = "BTC", first_row: int = 1) -> Batch:
    """A batch of trades; the price tells the row."""
    count = len(seconds)
    frame = pl.DataFrame(
        {
            "symbol": [symbols] * count if isinstance(symbols, str) else symbols,
            "ts": [START + timedelta(seconds=second) for second in seconds],
            "price": [float(first_row + i) for i in range(count)],
            "size": [1.0] * count,
            "side": ["buy"] * count,
            ROW: list(range(first_row, first_row + count)),
        },
        schema_overrides={"ts": TIMESTAMP, ROW: pl.Int64},
    )
    return Batch("trades", "here", frame)


def staged(folder, batches: list[Batch]) -> tuple[PartWriter, QuarantineWriter]:
    quarantine = QuarantineWriter(folder / "quarantine.parquet")
    writer = PartWriter(folder, "source", quarantine)
    for batch in batches:
        writer.add(batch)
    writer.finish()
    quarantine.close()
    return writer, quarantine


def rows_of(folder, writer: PartWriter) -> pl.DataFrame:
    parts = sorted(writer.parts, key=lambda part: (part.partition.symbol, part.first))
    return pl.concat([pl.read_parquet(folder / part.path, glob=False) for part in parts])


@settings(max_examples=15)
@given(
    batches=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=12), min_size=1, max_size=8),
    part_bytes=st.integers(1, 20_000),
    pending_bytes=st.integers(1, 60_000),
)
def test_memory_limits_do_not_change_what_is_stored(
    tmp_path_factory, batches, part_bytes, pending_bytes
):
    def whole(limits: tuple[int, int]) -> tuple[pl.DataFrame, object, PartWriter, object]:
        folder = tmp_path_factory.mktemp("staged")
        row, given_batches = 1, []
        for seconds in batches:
            symbols = ["BTC" if second % 3 else "ETH" for second in seconds]
            given_batches.append(trades(seconds, symbols, row))
            row += len(seconds)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(staging, "PART_BYTES", limits[0])
            patch.setattr(staging, "PENDING_BYTES", limits[1])
            writer, _ = staged(folder, given_batches)
        left = sorted(path.name for path in folder.rglob("*.parquet"))
        return rows_of(folder, writer), writer.counts(), writer, left

    rows, counts, _, _ = whole((10**9, 10**9))
    limited_rows, limited_counts, writer, left = whole((part_bytes, pending_bytes))
    assert limited_rows.equals(rows)
    assert limited_counts == counts
    assert left == sorted(part.name for part in writer.parts)
    for one in writer.parts:
        others = [part for part in writer.parts if part.partition == one.partition]
        assert sum(one.overlaps(other) for other in others) == 1  # itself


def test_overlapping_parts_are_merged_slice_by_slice(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "PART_BYTES", 20_000)
    collected = []
    real = pl.LazyFrame.collect

    def counting(self, *arguments, **options):
        frame = real(self, *arguments, **options)
        collected.append(len(frame))
        return frame

    monkeypatch.setattr(pl.LazyFrame, "collect", counting)
    seconds = [second // 2 for second in range(3_000)] * 2
    batches = [trades(seconds[i : i + 100], first_row=i + 1) for i in range(0, 6_000, 100)]
    writer, _ = staged(tmp_path, batches)
    assert len(writer.parts) > 5
    assert sum(collected) > 6_000  # rows and counts
    assert max(collected) <= 1_000
    rows = rows_of(tmp_path, writer)
    assert len(rows) == 6_000
    assert rows["ts"].is_sorted()
    assert rows["price"].to_list()[:4] == [1, 2, 3_001, 3_002]


def test_a_source_in_reverse_order_needs_no_merging(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "PART_BYTES", 20_000)
    merged = []
    monkeypatch.setattr(PartWriter, "_rewritten", lambda *arguments: merged.append(arguments))
    seconds = [second // 3 for second in range(3_000)][::-1]
    batches = [trades(seconds[i : i + 100], first_row=i + 1) for i in range(0, 3_000, 100)]
    writer, _ = staged(tmp_path, batches)
    assert merged == []
    rows = rows_of(tmp_path, writer)
    assert rows["ts"].is_sorted()
    assert rows["price"].to_list()[:4] == [2_998, 2_999, 3_000, 2_995]


def test_rows_of_many_partitions_count_for_the_room_their_frames_take(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "PENDING_BYTES", 400_000)
    quarantine = QuarantineWriter(tmp_path / "quarantine.parquet")
    writer = PartWriter(tmp_path, "source", quarantine)
    symbols = [f"S{number}" for number in range(100)]
    for turn in range(3):
        writer.add(trades([turn] * 100, symbols, 100 * turn + 1))
    assert writer.parts  # a few bytes a row are 4 KiB a frame
    writer.finish()
    assert sum(part.rows for part in writer.parts) == 300
    assert len({part.partition for part in writer.parts}) == 100


def test_a_partition_of_one_single_time_makes_room_too(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "PENDING_BYTES", 10_000)
    writer, _ = staged(tmp_path, [trades([7] * 50, first_row=50 * i + 1) for i in range(20)])
    rows = rows_of(tmp_path, writer)
    assert rows["price"].to_list() == list(range(1, 1001))
    assert len(writer.parts) == 1


def test_bytes_in_a_row_that_is_kept_aside_are_told_in_hexadecimal(tmp_path):
    batch = trades([1, 2, 3])
    frame = batch.frame.with_columns(
        pl.Series("price", [1.0, -1.0, 3.0]),
        pl.Series("raw", [b"a", b"\xff\x00", b"c"]),
        pl.Series("nested", [[b"a"], [b"\x01"], None]),
        pl.lit(timedelta(seconds=1)).alias("took"),
    )
    writer, quarantine = staged(tmp_path, [Batch("trades", "here", frame)])
    assert quarantine.reasons == {"price is not above zero": 1}
    (content,) = pl.read_parquet(tmp_path / "quarantine.parquet")["content"]
    said = json.loads(content)
    assert (said["price"], said["raw"], said["nested"]) == (-1.0, "ff00", ["01"])
    assert said["took"] == "0:00:01"
    assert rows_of(tmp_path, writer)["raw"].to_list() == [b"a", b"c"]


@pytest.mark.parametrize("symbol", ["X" * 300, "日" * 40])
def test_a_symbol_too_long_for_a_folder_is_kept_aside(tmp_path, symbol):
    writer, quarantine = staged(tmp_path, [trades([1, 2, 3], ["BTC", symbol, "BTC"])])
    assert quarantine.reasons == {"the symbol is too long to name a folder": 1}
    kept_aside = pl.read_parquet(tmp_path / "quarantine.parquet")
    assert kept_aside.select("record", "symbol").rows() == [(2, symbol)]
    counts = {table.symbol: table for table in writer.counts()}
    assert (counts["BTC"].rows_in, counts["BTC"].rows_out) == (2, 2)
    assert (counts[symbol].rows_in, counts[symbol].quarantined) == (1, 1)


def test_a_venue_too_long_for_a_folder_is_kept_aside(tmp_path):
    batch = trades([1])
    writer, quarantine = staged(tmp_path, [Batch("trades", "v" * 250, batch.frame)])
    assert quarantine.reasons == {"the venue is too long to name a folder": 1}
    assert writer.parts == []


@pytest.mark.parametrize(
    "dtype", [pl.Datetime("us", "Europe/Berlin"), pl.Datetime("ns", "UTC"), pl.Datetime("ms")]
)
def test_all_times_are_stored_as_utc_microseconds(tmp_path, dtype):
    batch = trades([1, 2])
    moment = pl.Series("sent", [START.replace(tzinfo=None)] * 2, dtype=pl.Datetime("us"))
    utc = moment.dt.replace_time_zone("UTC")
    written = utc.dt.convert_time_zone(dtype.time_zone) if dtype.time_zone else moment
    frame = batch.frame.with_columns(written.cast(dtype))
    writer, _ = staged(tmp_path, [Batch("trades", "here", frame)])
    stored = rows_of(tmp_path, writer)["sent"]
    assert stored.dtype == TIMESTAMP
    assert stored.to_list() == [START, START]


def test_a_folder_named_like_a_pattern_is_written_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "PART_BYTES", 1)
    folder = tmp_path / "s[1]?*"
    folder.mkdir()
    writer, _ = staged(folder, [trades([3, 2, 1]), trades([2, 1, 0], first_row=4)])
    assert rows_of(folder, writer)["price"].to_list() == [6, 3, 5, 2, 4, 1]


def test_a_quarantine_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    quarantine = QuarantineWriter(tmp_path / "file" / "q.parquet")
    with pytest.raises(InputError, match=r"q\.parquet could not be written: .*make room"):
        quarantine.reject([Reject(1, "faulty", "text")])
