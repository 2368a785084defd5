"""Every real file there is goes through ``data ingest``: known, or refused by name; all counted."""

import json
from collections import Counter

import polars as pl
import pytest

from margincast.data.files import find_table_files
from margincast.data.store import Store
from margincast.jobs import ingest

pytestmark = pytest.mark.slow

FOLDERS = (
    "book",
    "trades",
    "native",
    "options",
    "liquidations",
    "funding",
    "open_interest",
    "implied_vol",
)
DESCRIBED_BY_A_MAPPING = {"btcusdt-trades.parquet", "quote_tick_data.csv"}
NO_MARKET_DATA = {
    "btcusdt-instrument.txt",
    "btcusdt-instrument-repr.txt",
    "crypto_instruments.json",
}


@pytest.fixture(scope="module")
def ingested(shared_data, tmp_path_factory):
    store = tmp_path_factory.mktemp("real") / "store"
    paths = [shared_data / "data" / folder for folder in FOLDERS]
    return store, paths, ingest.run(paths, store, workers=1)


def test_every_file_is_in_the_store_or_refused_by_name(ingested):
    _, paths, summary = ingested
    refused = {one.source.rsplit("/", 1)[-1] for one in summary.refused}
    assert refused == DESCRIBED_BY_A_MAPPING | NO_MARKET_DATA
    files = [path for folder in paths for path in folder.rglob("*") if path.is_file()]
    assert len(summary.added) + len(refused) == len(files)


def test_rows_in_are_rows_out_quarantined_and_duplicates_in_every_source(ingested):
    store, _, summary = ingested
    for record in summary.added:
        for table in record.tables:
            assert table.rows_in == table.rows_out + table.quarantined + table.duplicates
        # rows come from records, and nothing but a book is made of several
        assert record.records or record.rejected
        assert sum(part.rows for part in record.parts) == record.rows_out
    rows = sum(
        pl.scan_parquet(store / part.path).select(pl.len()).collect().item()
        for part in Store(store).parts()
    )
    assert rows == sum(record.rows_out for record in summary.added)


def test_counts_are_those_of_the_files(ingested, shared_data):
    _, _, summary = ingested
    by_table: Counter[str] = Counter()
    for record in summary.added:
        for table in record.tables:
            by_table[f"{table.table} {table.venue}"] += table.rows_in
    data = shared_data / "data"
    rows = {
        "book unknown": "book/standx_BTC-USD_book20_1s.parquet",
        "trades unknown": "trades/standx_BTC-USD_trades.parquet",
        "implied_vol_1h deribit": "implied_vol/deribit_btc_dvol_1h.parquet",
    }
    for table, file in rows.items():
        assert by_table[table] == pl.scan_parquet(data / file).select(pl.len()).collect().item()
    lines = {
        "liquidation_totals_1h coinglass": "liquidations/coinglass_btc_1h.csv",
        "open_interest_bars_1d coinalyze": "open_interest/coinalyze_daily_top10.csv",
    }
    for table, file in lines.items():
        assert by_table[table] == len((data / file).read_text().splitlines()) - 1
    # the raw recordings and the capture of the futures market
    assert by_table["quotes binance-futures"] == 66_089 + 38_239 + 613


def test_a_second_run_reads_nothing(ingested):
    store, paths, summary = ingested
    again = ingest.run(paths, store, workers=1)
    assert again.added == ()
    assert len(again.present) == len(summary.added)


def test_what_is_not_in_a_book_is_said(ingested):
    _, _, summary = ingested
    (record,) = [one for one in summary.added if "usdm_ethusdt" in one.source]
    assert record.records["without a book: no snapshot it follows"] == 5656
    manifest = [json.loads(path.read_text()) for path in (ingested[0] / "_manifest").glob("*")]
    assert sum(one["source"].endswith("usdm_ethusdt_20240719.gz") for one in manifest) == 1


def test_specs_read_books_and_trades_from_the_store(ingested):
    store, _, _ = ingested
    (file,), _ = find_table_files(store, ["table=book/venue=unknown"], [], "book")
    assert file.symbol == "BTC-USD"
    assert len(file.paths) == 3
    assert file.in_order
    assert file.scan().select(pl.len()).collect().item() == 147_941
