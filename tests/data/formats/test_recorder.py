import gzip
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.formats import text
from margincast.data.formats.format import MERGED, TRANSLATED, Hints
from margincast.data.formats.recorder import HALF, LATE, LOCAL_TIME, NO_SIZE
from margincast.data.formats.registry import recognise
from margincast.data.formats.source import Source
from margincast.data.formats.testing import check_format, read_whole

PRICES = "timestamp,price,size,side,exchange_timestamp\n"
TRADES = "timestamp,price,size,side,trade_id,exchange_timestamp\n"
HYPERLIQUID, GATE = "hyperliquid_as_calibration_2025-09", "gateio_2025-09"


def written(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return Source(path)


def lines_of(path):
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    return len(content.splitlines()) - 1


@pytest.mark.parametrize(
    ("folder", "venue", "counts"),
    [
        (HYPERLIQUID, "hyperliquid", {"book": 15_140, "quotes": 51_219, "trades": 20_559}),
        (GATE, "gate-io", {"book": 4_632, "quotes": 440, "trades": 1_773}),
    ],
)
def test_every_recorded_line_is_accounted_for(shared_data, folder, venue, counts):
    rows = {"book": 0, "quotes": 0, "trades": 0}
    for path in sorted((shared_data / "data" / "book" / folder).iterdir()):
        reading = read_whole(Source(path))
        assert reading.match.venue == venue
        assert reading.account.records == lines_of(path)
        assert not reading.account.rejected
        (table,) = reading.tables
        rows[table] += reading.tables[table]
        # two lines make a quote, and in these files every line has its other half
        outcome = {MERGED: 2 * len(reading.table(table))} if table == "quotes" else None
        assert reading.account.outcomes == (outcome or {TRANSLATED: len(reading.table(table))})
    assert rows == counts


def test_a_book_has_the_venue_s_time_and_the_time_it_came(shared_data):
    path = shared_data / "data" / "book" / HYPERLIQUID / "orderbooks_BTC.csv.gz"
    reading = check_format(Source(path), "recorded order books")
    frame = reading.table("book")
    assert frame["symbol"].unique().to_list() == ["BTC"]
    assert frame.select("bid_price_0", "ask_size_19").row(0)[0] == 109_755.0
    assert frame["ts"][0] == datetime(2025, 9, 4, 19, 46, 56, 253_000, UTC)
    assert frame["received_at"][0] == datetime(2025, 9, 4, 19, 46, 56, 673_878, UTC)
    assert frame["sequence"][0] == 1_757_015_216_253
    assert (frame["received_at"] > frame["ts"]).all()
    assert (frame["bid_price_0"] < frame["ask_price_0"]).all()


def test_the_backlog_of_a_subscription_is_counted_and_known_when_it_came(shared_data):
    folder = shared_data / "data" / "book" / HYPERLIQUID
    counted = {}
    for symbol in ("BTC", "ETH", "SOL"):
        source = Source(folder / f"trades_{symbol}.csv.gz")
        reading = check_format(source, "recorded trades")
        frame = reading.table("trades")
        late = frame.filter(pl.col("received_at") - pl.col("ts") > pl.duration(seconds=2))
        counted[symbol] = reading.account.events[LATE]
        assert len(late) == counted[symbol]
        assert frame["trade_id"].dtype == pl.Int64
    assert counted == {"BTC": 135, "ETH": 143, "SOL": 91}


def test_gate_trades_have_fractions_of_a_millisecond_and_of_a_contract(shared_data):
    path = shared_data / "data" / "book" / GATE / "trades_BTC_USDT.csv"
    frame = check_format(Source(path), "recorded trades").table("trades")
    assert frame["ts"][1] == datetime(2025, 9, 3, 12, 48, 12, 764_750, UTC)
    # a futures contract is 0.0001 BTC: this is the spot market
    contracts = frame["size"] / 0.0001
    assert ((contracts - contracts.round()).abs() > 1e-6).mean() > 0.8


def test_gate_quotes_have_neither_time_nor_size_and_say_so(shared_data):
    path = shared_data / "data" / "book" / GATE / "prices_BTC_USDT.csv"
    reading = check_format(Source(path), "recorded best prices")
    frame = reading.table("quotes")
    assert reading.account.events == {LOCAL_TIME: 306, NO_SIZE: 306}
    assert (frame["ts"] == frame["received_at"]).all()
    assert frame.select("bid_price_0", "ask_price_0").row(0) == (111_265.9, 111_266.0)


@pytest.mark.parametrize(
    ("folder", "venue"),
    [
        ("hyperliquid", "hyperliquid"),
        ("gateio_2025-09", "gate-io"),
        ("gateio_futures_2025-09", "gate-io-futures"),
        ("Gate-perps", "gate-io-futures"),
    ],
)
def test_the_folder_names_the_venue(tmp_path, folder, venue):
    source = written(tmp_path, f"{folder}/trades_X.csv", TRADES + "1757015216.6,1,1,buy,1,\n")
    assert recognise(source)[1].venue == venue


def test_without_a_venue_the_files_are_refused_unless_the_user_says_it(tmp_path):
    content = PRICES + "1757015216.6,1,1,bid,\n1757015216.6,2,1,ask,\n"
    source = written(tmp_path, "prices_X.csv", content)
    with pytest.raises(InputError, match="no folder names the venue"):
        recognise(source)
    assert check_format(source, "recorded best prices", Hints(venue="okx")).match.venue == "okx"


lines = st.lists(st.tuples(st.sampled_from(["bid", "ask"]), st.integers(0, 3)), max_size=40)


def paired_slowly(sides_and_times):
    """What quotes come of lines, written as a loop."""
    quotes, held = [], None
    for row, (side, time) in enumerate(sides_and_times, 1):
        if side == "ask" and held is not None and held[1] == time:
            quotes.append((held[0], row, row))
            held = None
            continue
        if held is not None:
            quotes.append((held[0], None, held[0]))
        held = None
        if side == "bid":
            held = (row, time)
        else:
            quotes.append((None, row, row))
    if held is not None:
        quotes.append((held[0], None, held[0]))
    return quotes


@given(lines, st.sampled_from([60, 200, 10_000]))
def test_a_bid_meets_the_ask_that_follows_it_wherever_the_file_is_cut(
    tmp_path_factory, sides_and_times, block_bytes
):
    content = "".join(
        f"{1757015216 + time},{row},5,{side},{1757015216000 + time}\n"
        for row, (side, time) in enumerate(sides_and_times, 1)
    )
    folder = tmp_path_factory.mktemp("hyperliquid")
    source = written(folder, "hyperliquid/prices_X.csv", PRICES + content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_BLOCK_BYTES", block_bytes)
        reading = read_whole(source)
    expected = paired_slowly(sides_and_times)
    if not expected:
        assert not reading.batches
        return
    frame = reading.table("quotes").select("bid_price_0", "ask_price_0", "_row")
    assert frame.rows() == expected
    halves = sum(None in quote for quote in expected)
    assert reading.account.events[HALF] == halves
    assert reading.account.outcomes[TRANSLATED] == halves
    assert reading.account.outcomes[MERGED] == 2 * (len(expected) - halves)


def test_faulty_lines_of_best_prices_are_rejected_and_break_no_pair_but_their_own(tmp_path):
    content = PRICES + (
        "1757015216.1,10,1,bid,1757015216000\n"
        "1757015216.1,11,1,ask,1757015216000\n"
        "1757015216.2,10,1,bid,1757015216100\n"
        "1757015216.2,x,1,ask,1757015216100\n"
        "1757015216.3,10,1,mid,1757015216200\n"
        "timestamp,price,size,side,exchange_timestamp\n"
    )
    reading = check_format(
        written(tmp_path, "hyperliquid/prices_X.csv", content), "recorded best prices"
    )
    assert reading.table("quotes").select("bid_price_0", "ask_price_0").rows() == [
        (10.0, 11.0),
        (10.0, None),
    ]
    assert {reject.row for reject in reading.account.rejects} == {4, 5, 6}
    assert reading.account.records == 6


def test_a_missing_column_is_named(tmp_path):
    content = TRADES.replace("side,", "") + "1757015216.6,1,1,1,1757015216000\n"
    source = written(tmp_path, "hyperliquid/trades_X.csv", content)
    with pytest.raises(InputError, match="recorded trades: the header is not timestamp,price"):
        recognise(source)


def test_a_truncated_recording_is_an_error(tmp_path):
    whole = gzip.compress((TRADES + "1757015216.6,1,1,buy,1,1757015216000\n" * 9_000).encode())
    path = tmp_path / "hyperliquid" / "trades_X.csv.gz"
    path.parent.mkdir()
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="damaged or incomplete"):
        read_whole(Source(path))
