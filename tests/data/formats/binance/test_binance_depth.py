"""Books joined by the venue's sequence rules are true books, or there is no book."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.data.formats.binance.depth import (
    AFTER_HOLE,
    ALREADY_APPLIED,
    HOLE,
    JOIN_LIMIT,
    NO_SNAPSHOT,
    OLD_SNAPSHOT,
    RECEIVE_TIME,
    UNJOINED_SNAPSHOT,
    DepthBook,
    DepthSnapshot,
    DepthUpdate,
)
from margincast.data.formats.captures.decoder import Updates
from margincast.data.formats.format import APPLIED, Account, Options

LEVELS = 12
EVERY_STATE = Options(book_every=timedelta(0), book_levels=LEVELS)
START_US = 1_700_000_000_000_000


@dataclass
class Market:
    """A venue whose true book is known after every update id; ids of a futures venue have gaps."""

    books: dict[int, tuple[dict[float, float], dict[float, float]]]
    updates: list[DepthUpdate]

    def snapshot(self, index, *, dated=False, received_us=None):
        """The book after update number ``index``."""
        update = self.updates[index]
        bids, asks = self.books[update.last_id]
        return DepthSnapshot(
            0,
            update.last_id,
            list(bids.items()),
            list(asks.items()),
            update.ts_us if dated else None,
            received_us,
        )


def simulate(seed, count, *, gaps):
    rng = np.random.default_rng(seed)
    bids = {90.0 + i: 1.0 for i in range(5)}
    asks = {101.0 + i: 1.0 for i in range(5)}
    books, updates, last_id = {}, [], 1000
    for index in range(count):
        after_id = last_id
        changed: tuple[dict[float, float], dict[float, float]] = ({}, {})
        for _ in range(rng.integers(1, 5)):
            last_id += int(rng.integers(1, 4)) if gaps else 1
            side = int(rng.integers(0, 2))
            price = float(rng.integers(90, 100) if side == 0 else rng.integers(101, 111))
            size = float(rng.integers(0, 3)) * rng.random()
            book = (bids, asks)[side]
            changed[side][price] = size
            if size:
                book[price] = size
            else:
                book.pop(price, None)
        books[last_id] = (dict(bids), dict(asks))
        updates.append(
            DepthUpdate(
                index + 1,
                after_id,
                last_id,
                list(changed[0].items()),
                list(changed[1].items()),
                START_US + 100_000 * index,
                START_US + 100_000 * index + 5_000,
            )
        )
    return Market(books, updates)


def feed(messages):
    account = Account()
    updates = Updates("X", "binance", EVERY_STATE)
    book = DepthBook(updates)
    for message in messages:
        if isinstance(message, DepthSnapshot):
            book.snapshot(message, account)
        else:
            book.update(message, account)
    batches = book.take(account, last=True)
    assert account.records == len(messages)
    assert updates.builder.invalidations == account.events[HOLE] + (
        account.events[UNJOINED_SNAPSHOT] if updates.builder.snapshots else 0
    )
    return (pl.concat([batch.frame for batch in batches]) if batches else pl.DataFrame()), account


def assert_true(frame, market):
    for row in frame.iter_rows(named=True):
        bids, asks = market.books[row["sequence"]]
        for side, levels in (("bid", sorted(bids.items())[::-1]), ("ask", sorted(asks.items()))):
            found = [
                (row[f"{side}_price_{i}"], row[f"{side}_size_{i}"])
                for i in range(LEVELS)
                if row[f"{side}_price_{i}"] is not None
            ]
            assert found == levels


@given(st.data(), st.integers(0, 2**32), st.booleans(), st.booleans())
def test_whatever_is_lost_or_repeated_every_book_is_the_true_one(data, seed, gaps, dated):
    market = simulate(seed, 25, gaps=gaps)
    messages = []
    for index, update in enumerate(market.updates):
        messages.extend([update] * data.draw(st.sampled_from([0, 1, 1, 1, 1, 1, 2])))
        if data.draw(st.integers(0, 7)) == 0:
            # the answer to a request may be behind the stream, or ahead of it
            at = min(max(0, index + data.draw(st.integers(-4, 2))), 24)
            messages.append(market.snapshot(at, dated=dated, received_us=update.received_us))
    frame, account = feed(messages)
    assert_true(frame, market)
    assert len(frame) <= account.outcomes[APPLIED]


@given(st.integers(0, 2**32), st.booleans(), st.integers(0, 19), st.integers(0, 19))
def test_without_loss_every_update_beyond_the_snapshot_makes_a_book(seed, gaps, at, arrives):
    market = simulate(seed, 20, gaps=gaps)
    messages = [
        *market.updates[: arrives + 1],
        market.snapshot(at),
        *market.updates[arrives + 1 :],
    ]
    frame, account = feed(messages)
    beyond = [update.last_id for update in market.updates[at + 1 :]]
    assert (frame["sequence"].to_list() if len(frame) else []) == beyond
    assert not account.events
    assert account.outcomes[APPLIED] == len(beyond) + 1
    assert account.outcomes[NO_SNAPSHOT] + account.outcomes[ALREADY_APPLIED] == at + 1
    assert_true(frame, market)


@pytest.mark.parametrize("gaps", [False, True])
def test_a_hole_ends_the_book_until_the_next_snapshot(gaps):
    market = simulate(7, 30, gaps=gaps)
    updates = market.updates
    lost, again = 10, 20
    messages = [
        market.snapshot(0),
        *updates[1:lost],
        *updates[lost + 1 : again + 3],
        market.snapshot(again),
        *updates[again + 3 :],
    ]
    frame, account = feed(messages)
    sound = [*updates[1:lost], *updates[again + 1 :]]
    assert frame["sequence"].to_list() == [update.last_id for update in sound]
    assert account.events == {HOLE: 1}
    assert account.outcomes == {APPLIED: len(sound) + 2, AFTER_HOLE: again - lost}
    assert_true(frame, market)


def test_updates_of_a_stream_that_never_has_a_snapshot_have_no_book():
    market = simulate(3, JOIN_LIMIT + 50, gaps=True)
    frame, account = feed(market.updates)
    assert len(frame) == 0
    assert account.outcomes == {NO_SNAPSHOT: JOIN_LIMIT + 50}


def test_a_snapshot_that_the_stream_does_not_reach_is_told_from_a_hole():
    market = simulate(3, 10, gaps=False)
    frame, account = feed([market.snapshot(0, received_us=START_US), *market.updates[3:]])
    assert frame["sequence"].to_list() == [market.updates[0].last_id]
    assert account.events == {UNJOINED_SNAPSHOT: 1, RECEIVE_TIME: 1}
    assert account.outcomes == {APPLIED: 1, NO_SNAPSHOT: 7}


def test_a_snapshot_without_any_time_makes_no_book_alone():
    market = simulate(3, 10, gaps=False)
    frame, _ = feed([market.snapshot(0), *market.updates[3:]])
    assert len(frame) == 0


def test_a_snapshot_without_a_time_is_dated_by_the_update_that_follows():
    market = simulate(3, 4, gaps=False)
    late_us = START_US + 900_000
    frame, _ = feed([*market.updates[:3], market.snapshot(1, received_us=late_us)])
    assert frame["sequence"].to_list() == [market.updates[2].last_id]
    assert frame["ts"].dt.epoch("us").to_list() == [market.updates[2].ts_us]
    # the update came before, but no book could be made of it then
    assert frame["received_at"].dt.epoch("us").to_list() == [late_us]


def test_a_snapshot_behind_a_sound_book_is_passed_over():
    market = simulate(5, 10, gaps=True)
    frame, account = feed(
        [market.snapshot(0), *market.updates[1:6], market.snapshot(3), *market.updates[6:]]
    )
    assert len(frame) == 9
    assert account.outcomes == {APPLIED: 10, OLD_SNAPSHOT: 1}
    assert not account.events


def test_ids_that_run_backwards_are_a_hole():
    market = simulate(5, 6, gaps=False)
    restarted = replace(market.updates[1], ts_us=START_US + 10_000_000)
    _, account = feed([market.snapshot(0), *market.updates[1:5], restarted])
    assert account.events == {HOLE: 1}
    assert account.outcomes == {APPLIED: 5, AFTER_HOLE: 1}


# first U, u and pu of each event after a snapshot with lastUpdateId 1000, and whether the venue's
# documentation lets it be the first that is applied
@pytest.mark.parametrize(
    ("after_id", "last_id", "outcome"),
    [
        (1000, 1001, APPLIED),  # spot: U = lastUpdateId + 1 = u
        (990, 1005, APPLIED),  # U <= lastUpdateId + 1 <= u
        (990, 1000, ALREADY_APPLIED),  # u <= lastUpdateId is dropped
        (1001, 1005, NO_SNAPSHOT),  # U > lastUpdateId + 1
    ],
)
def test_the_first_update_is_the_one_the_documentation_names(after_id, last_id, outcome):
    levels = [(100.0, 1.0)]
    snapshot = DepthSnapshot(1, 1000, levels, [(101.0, 1.0)])
    update = DepthUpdate(2, after_id, last_id, levels, [], START_US)
    _, account = feed([snapshot, update])
    assert account.outcomes == Counter([APPLIED, outcome])
