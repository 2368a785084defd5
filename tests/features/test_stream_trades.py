"""Trades of a stream have the sides that the reader gives them, from history on too."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from margincast.data.schemas import TIMESTAMP
from margincast.data.trades import ALL_ON_ONE_SIDE, read_trades
from margincast.features.stream.clock import NEVER_US, microseconds
from margincast.features.stream.counts import Counts
from margincast.features.stream.trades import Trades

START = datetime(2024, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)

sides = st.sampled_from(["buy", "buy", "buy", "sell", None])
given_trades = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5), sides), min_size=1)


def rows_of(trades):
    return [
        {
            "ts": START + second * SECOND,
            "received_at": START + (second + delay) * SECOND,
            "price": 100.0 + place,
            "size": 1.0,
            "side": side,
        }
        for place, (second, delay, side) in enumerate(trades)
    ]


def read(folder, rows):
    """What the reader makes of them, and how many sides it took off."""
    schema = {"ts": TIMESTAMP, "received_at": TIMESTAMP, "side": pl.String}
    (folder / "trades").mkdir()
    pl.DataFrame(rows, schema_overrides=schema).write_parquet(folder / "trades" / "A.parquet")
    table = read_trades(folder, ["trades"], [])
    (untold,) = (one.count for one in table.findings if one.what == ALL_ON_ONE_SIDE)
    return table.frames["A"].collect(), untold


def taken(stream, rows, decisions, decided_us=NEVER_US):
    """Prices and sides that a stream hands over when it is given rows as they arrive."""
    found = []
    for decision in decisions:
        at_us = microseconds(START + decision * SECOND)
        for row in rows:
            if decided_us < microseconds(row["received_at"]) <= at_us:
                stream.add(row, decided_us)
        found += [(price, side) for _, _, price, _, side in stream.take(at_us)]
        decided_us = at_us
    return found


@given(given_trades, st.sets(st.integers(0, 25)))
def test_sides_are_those_of_the_reader_whenever_one_decides(tmp_path_factory, trades, decisions):
    rows = rows_of(trades)
    whole, untold = read(tmp_path_factory.mktemp("trades"), rows)
    counts = Counts()
    found = taken(Trades("A", counts), rows, [*sorted(decisions), 26])
    assert found == whole.select("price", "side").rows()
    counted = {finding.what: finding.count for finding in counts.findings()}
    assert counted.get(ALL_ON_ONE_SIDE, 0) == untold


@given(given_trades, st.integers(0, 25))
def test_from_history_on_sides_are_those_of_the_reader(tmp_path_factory, trades, second):
    # both sides are seen in the first second, and told by the second trade of it at least
    rows = rows_of([(0, 0, "buy"), (0, 0, "sell"), *trades])
    whole, _ = read(tmp_path_factory.mktemp("trades"), rows)
    at = START + second * SECOND
    stream = Trades("A", Counts())
    stream.fill(whole.filter(pl.col("known_at") <= at))
    filled = [(price, side) for _, _, price, _, side in stream.take(microseconds(at))]
    found = filled + taken(stream, rows, [26], microseconds(at))
    assert found == whole.select("price", "side").rows()


def test_history_on_one_side_has_told_nothing(tmp_path):
    whole, _ = read(tmp_path, rows_of([(second, 0, "buy") for second in range(9)]))
    stream = Trades("A", Counts())
    stream.fill(whole)
    later = rows_of([(10, 0, "sell"), (11, 0, "sell"), (12, 0, "buy"), (13, 0, "sell")])
    sides_taken = [side for _, side in taken(stream, later, [20], microseconds(START + 9 * SECOND))]
    # which side the history was on is gone: the reader would tell the side from the first sell on
    assert sides_taken == [None] * 9 + [None, None, "buy", "sell"]
