import json

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from margincast.data.formats.format import ROW, Account
from margincast.data.formats.records import reject_rows, with_side

SIDES = st.sampled_from(["buy", "sell", "Buy", "SELL", "unknown", "Unknown", None, "b", "long"])


@given(st.lists(SIDES, max_size=20))
def test_every_side_is_kept_known_or_not_or_rejected(sides):
    account = Account()
    rows = range(1, len(sides) + 1)
    frame = pl.DataFrame({"side": sides, ROW: rows}, schema={"side": pl.String, ROW: pl.Int64})
    told = with_side(frame, "nobody said", account)
    for row, side in told.select(ROW, "side").iter_rows():
        said = (sides[row - 1] or "unknown").lower()
        assert side == (said if said in {"buy", "sell"} else None)
    strange = [row for row, side in zip(rows, sides, strict=True) if side in {"b", "long"}]
    assert [reject.row for reject in account.rejects] == strange
    assert account.events["nobody said"] == told["side"].null_count()
    assert len(told) + account.rejected.total() == len(sides)


def test_a_rejected_row_keeps_what_it_said():
    account = Account()
    frame = pl.DataFrame({"price": [1.0, -2.0], "símbolo": ["a", "b"], ROW: [7, 8]})
    left = reject_rows(frame, pl.col("price") < 0, "below zero", account)
    assert left[ROW].to_list() == [7]
    (reject,) = account.rejects
    assert (reject.row, reject.reason) == (8, "below zero")
    assert json.loads(reject.text) == {"price": -2.0, "símbolo": "b"}
