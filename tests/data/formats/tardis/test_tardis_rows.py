import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from margincast.data.formats.format import ROW, Account
from margincast.data.formats.source import Source
from margincast.data.formats.tardis import rows as tardis_rows
from margincast.data.formats.tardis.rows import (
    UPDATE_CELLS,
    read_any_rows,
    read_plain_rows,
    read_update_rows,
)

HEADER = ",".join(UPDATE_CELLS)
FIRST = 1585699200245000

NUMBERS = st.one_of(
    st.decimals(0, 10**8, allow_nan=False, places=8).map(str),
    st.floats(0, 1e12).map(repr),
    st.integers(0, 10**12).map(str),
    st.sampled_from(["1e-8", "5E3", "0.1e+2", "00012.5", ".5", "7."]),
)
SOUND = st.tuples(
    st.sampled_from(["deribit", "bitmex"]),
    st.sampled_from(["BTC-PERPETUAL", "ETH", "1000X", "Ünïcode"]),
    st.integers(FIRST, FIRST + 10**9).map(str),
    st.integers(FIRST, FIRST + 10**9).map(str),
    st.sampled_from(["true", "false"]),
    st.sampled_from(["bid", "ask"]),
    NUMBERS,
    NUMBERS,
).map(",".join)
ODD = st.sampled_from(
    [
        HEADER,
        "",
        "deribit,BTC",
        "deribit,BTC,1,2,3,4,5,6,7,8",
        f"deribit,BTC,{FIRST},{FIRST},true,bid,12x,1",
        f"deribit,BTC,{FIRST},{FIRST},true,bid,nan,1",
        f"deribit,BTC,{FIRST},{FIRST},true,bid,1,inf",
        f"deribit,BTC,{FIRST},{FIRST},true,mid,1,1",
        f"deribit,BTC,{FIRST},{FIRST},maybe,bid,1,1",
        f"deribit,BTC,{FIRST},,true,bid,1,1",
        f",BTC,{FIRST},{FIRST},true,bid,1,1",
        f"deribit,,{FIRST},{FIRST},true,bid,1,1",
        # sound, but not plainly
        f' deribit,BTC ,{FIRST},{FIRST},TRUE,bid, 1,"2"',
        f"deribit,BTC,{FIRST // 1000},{FIRST // 10**6},1,bid,1,2\r",
        f"deribit,BTC,{FIRST}000,{FIRST}001,f,ask,1,2",
    ]
)


def rows_of(frames):
    frames = list(frames)
    return pl.concat(frames) if frames else None


def faults_of(account):
    return {(reject.row, reject.reason) for reject in account.rejects}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.one_of(SOUND, SOUND, SOUND, ODD), min_size=1, max_size=20),
    block=st.integers(1, 400),
)
def test_reading_in_one_go_gives_what_judging_every_row_gives(tmp_path, monkeypatch, lines, block):
    monkeypatch.setattr(tardis_rows, "_BLOCK_BYTES", block)
    path = tmp_path / "updates.csv"
    path.write_text("\n".join([HEADER, *lines, ""]))
    slow, fast = Account(), Account()
    expected = rows_of(read_any_rows(Source(path), ",", slow))
    found = rows_of(read_update_rows(Source(path), ",", fast))
    assert faults_of(fast) == faults_of(slow)
    assert fast.rejected == slow.rejected
    if expected is None or expected.is_empty():
        assert found is None or found.is_empty()
    else:
        assert_frame_equal(found, expected, check_exact=True)
        assert found.null_count().sum_horizontal().item() == 0


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(SOUND, min_size=1, max_size=20), block=st.integers(1, 400))
def test_sound_rows_never_need_the_slow_way(tmp_path, monkeypatch, lines, block):
    monkeypatch.setattr(tardis_rows, "_BLOCK_BYTES", block)
    path = tmp_path / "updates.csv"
    path.write_text("\n".join([HEADER, *lines]))
    reached_the_end = []

    def read():
        reached_the_end.append((yield from read_plain_rows(Source(path))))

    frames = list(read())
    assert reached_the_end == [True]
    assert rows_of(frames)[ROW].to_list() == list(range(1, len(lines) + 1))
