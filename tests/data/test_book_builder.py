import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from margincast.core.errors import InputError
from margincast.data.book_builder import OPTIONAL_COLUMNS, UPDATE_COLUMNS, BookBuilder
from margincast.data.formats.format import ROW
from margincast.data.schemas import TIMESTAMP, book_columns

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
SECOND = timedelta(seconds=1)
EPOCH = datetime.fromtimestamp(0, UTC)
EVERY = (timedelta(0), 100 * MILLISECOND, SECOND)
HOLE = "hole"
BID, ASK = True, False


def message_of(levels, at=START, *, snapshot=False, received_at=None, sequence=None):
    """One message: its head and its (is_bid, price, size) in order."""
    return (at, received_at, sequence, snapshot, levels)


def frame_of(messages, first_message=1, first_row=1, optional=OPTIONAL_COLUMNS):
    rows = [
        (number, at, received_at, sequence, snapshot, *level)
        for number, (at, received_at, sequence, snapshot, levels) in enumerate(
            messages, first_message
        )
        for level in levels
    ]
    names = [name for name in UPDATE_COLUMNS if name != ROW]
    frame = pl.DataFrame(rows, {name: UPDATE_COLUMNS[name] for name in names}, orient="row")
    numbers = pl.int_range(first_row, first_row + pl.len(), dtype=pl.Int64).alias(ROW)
    absent = [name for name in OPTIONAL_COLUMNS if name not in optional]
    return frame.with_columns(numbers).drop(absent)


def rebuilt(events, *, levels, every, cut_after=lambda _: False, optional=OPTIONAL_COLUMNS):
    """Books of messages and holes, cut into batches after the messages that are asked for."""
    builder = BookBuilder("X", levels=levels, every=every)
    frames, batch = [], []
    message, row = 1, 1

    def apply():
        nonlocal batch, message, row
        frame = frame_of(batch, message, row, optional)
        frames.append(builder.apply(frame))
        message, row, batch = message + len(batch), row + len(frame), []

    for index, event in enumerate(events):
        if event is HOLE:
            apply()
            frames.append(builder.invalidate())
            continue
        batch.append(event)
        if cut_after(index):
            apply()
    apply()
    frames.append(builder.flush())
    return pl.concat([frame for frame in frames if len(frame)] or frames[:1]), builder


class Twin:
    """The same, one update after the other with a dictionary a side."""

    def __init__(self, *, levels, every):
        self.levels, self.every = levels, every
        self.book, self.books, self.counts = None, [], Counter()
        self.pending = self.pending_interval = None
        self.ts = self.received_at = self.hole_at = None
        self.time_unknown, self.row = timedelta(0), 0

    def follow(self, event):
        if event is HOLE:
            if self.book is not None:
                self.counts["invalidations"] += 1
                self.hole_at = self.ts
            self.release()
            self.book = None
            return
        at, received_at, sequence, snapshot, updates = event
        self.row += len(updates)
        if snapshot:
            self.begin(at)
        if self.book is None:
            self.counts["updates_without_book"] += len(updates)
            return
        for update in updates:
            self.update(*update)
        self.counts["late_messages"] += at < self.ts
        self.ts = max(self.ts, at)
        if received_at is not None:
            self.received_at = received_at = max(self.received_at or received_at, received_at)
        self.hold(["X", self.ts, received_at, sequence, *self.first_levels(), self.row])

    def begin(self, at):
        if self.book is None and self.hole_at is not None:
            self.time_unknown += max(timedelta(0), at - self.hole_at)
        self.book, self.ts, self.received_at, self.hole_at = {BID: {}, ASK: {}}, at, None, None
        self.counts["snapshots"] += 1

    def update(self, is_bid, price, size):
        self.counts["updates_applied"] += 1
        side = self.book[is_bid]
        if size != 0:
            side[price] = size
        elif side.pop(price, None) is None:
            self.counts["deletes_of_absent_levels"] += 1

    def first_levels(self):
        sides = (sorted(self.book[BID].items(), reverse=True), sorted(self.book[ASK].items()))
        for level in range(self.levels):
            for side in sides:
                yield from side[level] if level < len(side) else (None, None)

    def hold(self, state):
        interval = (self.ts - EPOCH) // self.every if self.every else self.row
        if interval != self.pending_interval:
            self.release()
        self.pending, self.pending_interval = state, interval

    def release(self):
        if self.pending is not None:
            self.books.append(self.pending)
        self.pending = self.pending_interval = None

    def frame(self):
        schema = {
            "symbol": pl.String,
            "ts": TIMESTAMP,
            "received_at": TIMESTAMP,
            "sequence": pl.Int64,
            **dict.fromkeys(book_columns(self.levels), pl.Float64),
            ROW: pl.Int64,
        }
        return pl.DataFrame(self.books, schema, orient="row")


def require_equal(events, *, levels, every, cut_after=lambda _: False):
    books, builder = rebuilt(events, levels=levels, every=every, cut_after=cut_after)
    twin = Twin(levels=levels, every=every)
    for event in events:
        twin.follow(event)
    twin.release()
    assert_frame_equal(books, twin.frame(), check_exact=True)
    for name in (
        "snapshots",
        "updates_applied",
        "updates_without_book",
        "deletes_of_absent_levels",
        "late_messages",
        "invalidations",
    ):
        assert getattr(builder, name) == twin.counts[name], name
    assert builder.time_unknown == twin.time_unknown
    updates = sum(len(event[-1]) for event in events if event is not HOLE)
    assert builder.updates_applied + builder.updates_without_book == updates


LEVEL = st.tuples(
    st.booleans(), st.integers(1, 9).map(float), st.sampled_from([0.0, 0.0, 1.0, 2.5])
)
SNAPSHOT_ONE_IN_FIVE = st.sampled_from([True, False, False, False, False])


@st.composite
def streams(draw):
    """Messages with times that mostly run forward, now and then a full book or a hole."""
    at, events = START, []
    for index in range(draw(st.integers(1, 30))):
        if draw(st.integers(0, 9)) == 0:
            events.append(HOLE)
        at += draw(st.sampled_from([0, 1, 20, 90, 400, 1500, -30, -700])) * MILLISECOND
        events.append(
            message_of(
                draw(st.lists(LEVEL, min_size=1, max_size=6)),
                at,
                snapshot=draw(SNAPSHOT_ONE_IN_FIVE) or (index == 0 and draw(st.booleans())),
                received_at=draw(st.sampled_from([None, at, at + 70 * MILLISECOND])),
                sequence=draw(st.one_of(st.none(), st.integers(0, 99))),
            )
        )
    return events


@pytest.mark.parametrize("every", EVERY)
@given(streams(), st.integers(1, 4), st.sets(st.integers(0, 40)))
def test_books_are_those_of_one_update_after_the_other(every, events, levels, cuts):
    require_equal(events, levels=levels, every=every, cut_after=cuts.__contains__)


@given(st.sampled_from(EVERY), streams(), st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_cutting_the_stream_into_batches_changes_nothing(every, events, cuts, other_cuts):
    one, first = rebuilt(events, levels=2, every=every, cut_after=cuts.__contains__)
    two, second = rebuilt(events, levels=2, every=every, cut_after=other_cuts.__contains__)
    assert_frame_equal(one, two, check_exact=True)
    assert first.time_unknown == second.time_unknown


@given(st.sampled_from(EVERY), streams(), st.integers(0, 99))
def test_a_book_holds_nothing_from_after_its_last_message(every, events, choice):
    """Take away all that follows a book's last message: the book is the same."""
    books, _ = rebuilt(events, levels=3, every=every)
    if books.is_empty():
        return
    book = books.row(choice % len(books), named=True)
    past, rows = [], 0
    for event in events:
        rows += 0 if event is HOLE else len(event[-1])
        if rows > book[ROW]:
            break
        past.append(event)
    known, _ = rebuilt(past, levels=3, every=every)
    assert known.row(-1, named=True) == book
    assert book["ts"] in {event[0] for event in past if event is not HOLE}


@given(st.sampled_from(EVERY[1:]), streams())
def test_an_interval_has_one_book_where_times_run_forward_without_a_hole(every, events):
    messages = sorted((event for event in events if event is not HOLE), key=lambda event: event[0])
    books, builder = rebuilt(messages, levels=1, every=every)
    assert books["ts"].dt.truncate(every).is_unique().all()
    assert builder.late_messages == 0


def a_market(seed, messages, *, levels, updates, step, far=0.0, delete=0.4, snapshot_every=0):
    """A stream whose price wanders ``step`` ticks a message and whose levels come and go.

    ``far`` is the share of updates anywhere within 1,000,000 ticks of the price.
    """
    rng = np.random.default_rng(seed)
    mid, at = 5_000_000.0, START
    events = []
    for index in range(messages):
        mid += round(step * rng.standard_normal())
        at += int(rng.integers(1, 60)) * MILLISECOND
        is_snapshot = index == 0 or (snapshot_every > 0 and index % snapshot_every == 0)
        count = levels if is_snapshot else updates
        reach = np.where(rng.random(count) < far, 1_000_000, levels)
        ticks = 1 + np.floor(rng.random(count) * reach)
        sizes = np.where(rng.random(count) < delete, 0.0, rng.integers(1, 9, count))
        sides = rng.random(count) < 0.5
        prices = mid + np.where(sides, -ticks, ticks)
        content = list(zip(sides.tolist(), prices.tolist(), sizes.tolist(), strict=True))
        events.append(message_of(content, at, snapshot=is_snapshot, sequence=index))
    return events


@pytest.mark.parametrize(
    "market",
    [
        # the best price walks through hundreds of levels within one table of books
        pytest.param({"levels": 400, "updates": 5, "step": 8, "messages": 1500}, id="drifting"),
        # few levels, each at a price of its own: every table is wider than it may be
        pytest.param(
            {"levels": 10, "updates": 40, "step": 0, "far": 1.0, "delete": 0.9, "messages": 400},
            id="thin",
        ),
        pytest.param(
            {"levels": 30, "updates": 3, "step": 2, "snapshot_every": 4, "messages": 900},
            id="snapshots",
        ),
    ],
)
@pytest.mark.parametrize("every", EVERY)
def test_long_streams_agree_with_one_update_after_the_other(market, every):
    events = a_market(3, **market)
    require_equal(events, levels=10, every=every, cut_after=lambda index: index % 700 == 699)


def test_the_worked_example():
    """A full book, a change at the best bid, a new best ask and a deleted one, at 100 ms."""
    events = [
        message_of(
            [(BID, 99.0, 1.0), (BID, 98.0, 5.0), (ASK, 101.0, 2.0)],
            START + 10 * MILLISECOND,
            snapshot=True,
            sequence=1,
        ),
        message_of([(BID, 99.0, 3.0)], START + 40 * MILLISECOND, sequence=2),
        message_of([(ASK, 100.5, 7.0)], START + 99 * MILLISECOND, sequence=3),
        message_of([(ASK, 100.5, 0.0), (BID, 99.0, 0.0)], START + 100 * MILLISECOND, sequence=4),
    ]
    books, builder = rebuilt(events, levels=2, every=100 * MILLISECOND)
    assert books.columns == [
        "symbol",
        "ts",
        "received_at",
        "sequence",
        *book_columns(2),
        ROW,
    ]
    assert books.drop("received_at").rows() == [
        ("X", START + 99 * MILLISECOND, 3, 99.0, 3.0, 100.5, 7.0, 98.0, 5.0, 101.0, 2.0, 5),
        ("X", START + 100 * MILLISECOND, 4, 98.0, 5.0, 101.0, 2.0, None, None, None, None, 7),
    ]
    assert builder.updates_applied == 7


def test_every_message_is_a_state_where_every_is_zero_though_no_level_changed():
    same = [(BID, 99.0, 1.0), (ASK, 101.0, 1.0)]
    events = [message_of(same, snapshot=True), message_of(same), message_of([(BID, 50.0, 1.0)])]
    books, _ = rebuilt(events, levels=1, every=timedelta(0))
    assert books["bid_price_0"].to_list() == [99.0, 99.0, 99.0]
    assert books[ROW].to_list() == [2, 4, 5]


def test_the_last_update_of_a_level_in_a_message_wins():
    events = [
        message_of(
            [(BID, 99.0, 1.0), (ASK, 101.0, 1.0), (BID, 99.0, 0.0), (ASK, 101.0, 4.0)],
            snapshot=True,
        )
    ]
    books, _ = rebuilt(events, levels=1, every=timedelta(0))
    assert books.select(book_columns(1)).row(0) == (None, None, 101.0, 4.0)


def test_a_crossed_book_is_kept_as_it_is():
    events = [
        message_of([(BID, 99.0, 1.0), (ASK, 101.0, 1.0)], snapshot=True),
        message_of([(BID, 102.0, 2.0)]),
    ]
    books, _ = rebuilt(events, levels=1, every=timedelta(0))
    assert books.select(book_columns(1)).row(1) == (102.0, 2.0, 101.0, 1.0)


def test_nothing_is_known_between_a_hole_and_the_next_snapshot():
    builder = BookBuilder("X", levels=1, every=SECOND)
    full = [(BID, 99.0, 1.0), (ASK, 101.0, 1.0)]
    before = frame_of(
        [message_of(full, snapshot=True), message_of([(BID, 99.0, 2.0)], START + SECOND)]
    )
    assert builder.apply(before)["bid_size_0"].to_list() == [1.0]
    assert builder.invalidate(START + 2 * SECOND)["bid_size_0"].to_list() == [2.0]
    lost = frame_of([message_of([(BID, 98.0, 9.0)], START + 3 * SECOND)], first_message=3)
    assert builder.apply(lost).is_empty()
    assert builder.invalidate(START + 4 * SECOND).is_empty()
    after = frame_of(
        [
            message_of([(BID, 97.0, 1.0)], START + 4 * SECOND),
            message_of([(BID, 96.0, 4.0)], START + 5 * SECOND, snapshot=True),
        ],
        first_message=4,
    )
    assert builder.apply(after).is_empty()
    assert builder.flush().select(book_columns(1)).rows() == [(96.0, 4.0, None, None)]
    assert builder.flush().is_empty()
    assert builder.invalidations == 1
    assert builder.updates_without_book == 2
    assert builder.updates_applied == 4
    assert builder.snapshots == 2
    assert builder.time_unknown == 3 * SECOND


def test_a_book_is_never_dated_before_a_change_it_contains():
    events = [
        message_of([(BID, 99.0, 1.0)], START, snapshot=True),
        message_of([(BID, 98.0, 1.0)], START + 900 * MILLISECOND),
        message_of([(BID, 97.0, 1.0)], START + 300 * MILLISECOND),
    ]
    books, builder = rebuilt(events, levels=3, every=timedelta(0))
    assert books["ts"].to_list()[-1] == START + 900 * MILLISECOND
    assert builder.late_messages == 1


def test_a_snapshot_is_dated_by_itself():
    """A time far ahead, a venue's fault, ends with the full book that follows."""
    events = [
        message_of([(BID, 99.0, 1.0)], START + timedelta(days=9000), snapshot=True),
        message_of([(BID, 98.0, 1.0)], START, snapshot=True),
    ]
    books, builder = rebuilt(events, levels=1, every=SECOND)
    assert books["ts"].to_list() == [START + timedelta(days=9000), START]
    assert builder.late_messages == 0


def test_a_message_is_dated_by_its_latest_update_and_numbered_by_its_last():
    """Rows received together may carry several times of the venue."""
    message = message_of([(BID, 99.0, 1.0), (BID, 98.0, 1.0), (ASK, 101.0, 1.0)], snapshot=True)
    times = [START, START + 2 * MILLISECOND, START + MILLISECOND]
    updates = frame_of([message]).with_columns(
        pl.Series("ts", times, TIMESTAMP), pl.Series("sequence", [7, 8, 9])
    )
    books = BookBuilder("X", levels=1, every=timedelta(0)).apply(updates)
    assert books.select("ts", "sequence", ROW).row(0) == (times[1], 9, 3)


def test_columns_that_the_source_lacks_are_not_invented():
    events = [message_of([(BID, 99.0, 1.0)], snapshot=True)]
    books, _ = rebuilt(events, levels=1, every=SECOND, optional=())
    assert books.columns == ["symbol", "ts", *book_columns(1), ROW]


def test_a_size_that_is_no_number_is_a_level_of_unknown_size():
    events = [message_of([(BID, 99.0, float("nan")), (BID, 98.0, None)], snapshot=True)]
    books, _ = rebuilt(events, levels=2, every=SECOND)
    assert books.select("bid_price_0", "bid_size_0", "bid_price_1", "bid_size_1").row(0) == (
        99.0,
        None,
        98.0,
        None,
    )


def test_a_side_without_levels_and_a_batch_without_updates_are_allowed():
    builder = BookBuilder("X", levels=2, every=timedelta(0))
    only_bids = frame_of([message_of([(BID, 99.0, 1.0)], snapshot=True)])
    assert builder.apply(only_bids[:0]).is_empty()
    assert builder.apply(only_bids)["ask_price_0"].to_list() == [None]
    empty_book = frame_of([message_of([(BID, 99.0, 0.0)])], first_message=2)
    assert builder.apply(empty_book).select(book_columns(2)).row(0) == (None,) * 8


def test_a_snapshot_without_levels_empties_the_book():
    full = [(BID, 99.0, 1.0), (ASK, 101.0, 1.0)]
    events = [message_of(full, snapshot=True), message_of([(BID, 0.0, 0.0)], snapshot=True)]
    books, _ = rebuilt(events, levels=1, every=timedelta(0))
    assert books.select(book_columns(1)).rows() == [(99.0, 1.0, 101.0, 1.0), (None,) * 4]


def test_deleted_levels_leave_nothing_behind():
    """A day of prices that come and go is held as the few levels that are there."""
    builder = BookBuilder("X", levels=2, every=SECOND)
    full = message_of([(BID, 99.0, 1.0), (ASK, 1e7, 1.0)], EPOCH, snapshot=True)
    builder.apply(frame_of([full], optional=()))
    count = 4_000
    held_bytes = []
    tracemalloc.start()
    for batch in range(12):
        prices = 100.0 + batch * count + np.arange(count)
        message = 2 + 2 * batch + np.repeat([0, 1], count)
        updates = pl.DataFrame(
            {
                ROW: np.arange(2 * count),
                "message": message,
                "ts": pl.Series(message * 1_000_000).cast(TIMESTAMP),
                "is_snapshot": np.zeros(2 * count, bool),
                "is_bid": np.ones(2 * count, bool),
                "price": np.r_[prices, prices],
                "size": np.repeat([1.0, 0.0], count),
            }
        )
        books = builder.apply(updates)
        assert books["bid_price_0"].max() == prices[-1]
        del updates, books, prices, message
        held_bytes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert builder.flush()["bid_price_0"].to_list() == [99.0]
    assert builder.deletes_of_absent_levels == 0
    # the levels of one of the ten batches in between
    assert held_bytes[-1] - held_bytes[1] < 16 * count


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        pytest.param(lambda frame: frame.drop("price"), "price", id="missing column"),
        pytest.param(
            lambda frame: frame.with_columns(pl.col("ts").cast(pl.Datetime("ns", "UTC"))),
            "ts",
            id="nanoseconds",
        ),
        pytest.param(
            lambda frame: frame.with_columns(pl.lit(None, pl.Boolean).alias("is_bid")),
            "is_bid",
            id="unknown side",
        ),
        pytest.param(
            lambda frame: frame.with_columns(pl.Series("message", [2, 1])), "order", id="order"
        ),
        pytest.param(
            lambda frame: frame.with_columns(
                pl.lit(5).cast(pl.Int64).alias("message"), pl.Series("is_snapshot", [True, False])
            ),
            "partly",
            id="partly a snapshot",
        ),
    ],
)
def test_what_a_reader_must_not_do_is_refused(spoil, what):
    builder = BookBuilder("X", levels=1, every=SECOND)
    frame = frame_of([message_of([(BID, 99.0, 1.0)], snapshot=True), message_of([(ASK, 101.0, 1)])])
    with pytest.raises(ValueError, match=what):
        builder.apply(spoil(frame))


def test_a_message_does_not_straddle_two_calls():
    builder = BookBuilder("X", levels=1, every=SECOND)
    frame = frame_of([message_of([(BID, 99.0, 1.0), (ASK, 101.0, 1.0)], snapshot=True)])
    builder.apply(frame[:1])
    with pytest.raises(ValueError, match="continues"):
        builder.apply(frame[1:])


def test_columns_do_not_come_and_go():
    builder = BookBuilder("X", levels=1, every=SECOND)
    frame = frame_of([message_of([(BID, 99.0, 1.0)], snapshot=True)])
    builder.apply(frame)
    with pytest.raises(ValueError, match="sequence"):
        builder.apply(frame.drop("sequence").with_columns(message=pl.lit(2, pl.Int64)))


@pytest.mark.parametrize("price", [float("nan"), None])
def test_an_update_without_a_price_is_refused_with_its_record(price):
    builder = BookBuilder("X", levels=1, every=SECOND)
    frame = frame_of([message_of([(BID, 99.0, 1.0), (ASK, price, 1.0)], snapshot=True)], 1, 17)
    with pytest.raises(InputError, match="record 18"):
        builder.apply(frame)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="level"):
        BookBuilder("X", levels=0, every=SECOND)
    with pytest.raises(ValueError, match="zero writes every state"):
        BookBuilder("X", levels=1, every=-SECOND)
