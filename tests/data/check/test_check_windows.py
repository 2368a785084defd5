"""A row is judged once, with the same neighbours wherever blocks are cut."""

from itertools import pairwise

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from margincast.data.check.contract import stored_tables
from margincast.data.check.runs import Runs
from margincast.data.check.windows import windows

ROWS = st.lists(st.integers(0, 9), min_size=1, max_size=60)
CUTS = st.lists(st.integers(1, 59), max_size=8)


def cut(frame, cuts):
    edges = sorted({0, len(frame), *(one for one in cuts if one < len(frame))})
    return [frame[one:other] for one, other in pairwise(edges)]


@given(ROWS, CUTS, st.integers(1, 7))
def test_windows_give_every_row_its_neighbours_whatever_the_blocks(values, cuts, context):
    frame = pl.DataFrame({"value": values})
    around = {"window_size": 2 * context + 1, "min_samples": 1, "center": True}
    whole = frame["value"].rolling_sum(**around).to_list()
    pieces = [
        window.judged(window.rows["value"].rolling_sum(**around)).to_list()
        for window in windows(cut(frame, cuts), context)
    ]
    assert [value for piece in pieces for value in piece] == whole


@given(st.lists(st.booleans(), min_size=1, max_size=60), CUTS, st.integers(1, 5))
def test_runs_are_the_same_whatever_the_blocks(flags, cuts, minimum):
    frame = pl.DataFrame({"flag": flags}).with_columns(pl.int_range(pl.len()).alias("at"))
    runs = Runs(minimum)
    for block in cut(frame, cuts):
        runs.add(block["at"], block["flag"], block["at"])
    # the slow, obvious twin
    expected, length = [], 0
    for at, flag in enumerate([*flags, False]):
        if flag:
            length += 1
        else:
            if length >= minimum:
                expected.append((at - length, at - 1, length, float(at - length)))
            length = 0
    assert [(run.first, run.last, run.rows, run.value) for run in runs.all_runs()] == expected
    assert runs.flagged == sum(flags)
    assert (runs.open_run() is not None) == flags[-1]


def test_parts_that_overlap_are_read_in_the_order_of_time(write_store, make_bars):
    bars = make_bars(200)
    store = write_store(("bars_1h", "venue", bars[::2]), ("bars_1h", "venue", bars[1::2]))
    (table,) = stored_tables(store)
    assert pl.concat(table.blocks(["ts", "close"])).equals(bars.select("ts", "close"))
    part = bars[20:30].select("ts", "close")
    assert table.between(part["ts"][0], part["ts"][-1], ("ts", "close")).equals(part)
