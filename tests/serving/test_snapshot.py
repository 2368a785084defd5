"""Snapshots say what the table says, never change, and follow one another without a gap."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.levels_case import AT, SYMBOLS, levels_of

from margincast.core.errors import InputError
from margincast.serving.board import Board
from margincast.serving.snapshot import Header, Snapshot, contracts_of

HEADER = Header(7, AT, "nightly", "the usual")
LEVELS = levels_of()


def test_a_snapshot_says_what_the_table_says():
    snapshot = Snapshot.of(LEVELS, HEADER)
    assert snapshot.symbols == SYMBOLS
    # the slow way round: every row of the table, looked up
    for row in LEVELS.to_dict(orient="records"):
        found = snapshot.contracts[row["symbol"]][row["side"]].rows[row["tier"] - 1]
        assert set(found) == set(row)
        for name, value in row.items():
            if pd.isna(value):
                assert pd.isna(found[name]), name
            else:
                assert found[name] == value, name
    first = snapshot.contracts["SIM-BTC"]["long"]
    assert first.values("mmr") == [row["mmr"] for row in first.rows]
    assert snapshot.fallbacks == ()
    assert snapshot.oldest_data == datetime(2026, 1, 9, 23, 59, tzinfo=UTC)


def test_a_contract_without_a_forecast_is_named():
    snapshot = Snapshot.of(levels_of((0.012, float("nan"), 0.0054)), HEADER)
    assert snapshot.fallbacks == ("SIM-BTC",)
    assert snapshot.contracts["SIM-BTC"]["long"].rows[0]["data_as_of"] is None


def test_a_few_contracts_are_replaced_and_the_others_stay_the_same_objects():
    before = Snapshot.of(LEVELS, HEADER)
    changed = levels_of((0.013,), ("SIM-ALT",))
    after = before.replaced(replace(HEADER, revision=1), contracts_of(changed))
    assert (before.header.version, after.header.version) == ("7", "7.1")
    assert after.changed_since(before) == ("SIM-ALT",)
    assert after.contracts["SIM-BTC"] is before.contracts["SIM-BTC"]
    assert before.contracts["SIM-ALT"]["long"].rows[0]["forecast"] == 0.012
    fewer = Snapshot.of(levels_of((0.0041, 0.0054), SYMBOLS[1:]), HEADER)
    assert fewer.replaced(HEADER, contracts_of(changed)).symbols == SYMBOLS
    assert fewer.changed_since(before) == ("SIM-ALT",)
    assert before.changed_since(None) == SYMBOLS


@given(st.permutations(range(len(LEVELS))))
@settings(max_examples=20)
def test_rows_out_of_order_are_refused(order):
    shuffled = LEVELS.iloc[order].reset_index(drop=True)
    groups = [tuple(row) for row in shuffled[["symbol", "side", "tier"]].itertuples(index=False)]
    in_order = all(
        tier == 1 or groups[place - 1] == (symbol, side, tier - 1)
        for place, (symbol, side, tier) in enumerate(groups)
    )
    if in_order:
        assert Snapshot.of(shuffled, HEADER).symbols == SYMBOLS
    else:
        with pytest.raises(InputError, match="does not follow the row before it"):
            Snapshot.of(shuffled, HEADER)


def test_a_table_without_a_column_or_with_another_side_is_refused():
    with pytest.raises(InputError, match="no column mmr"):
        Snapshot.of(LEVELS.drop(columns="mmr"), HEADER)
    with pytest.raises(InputError, match="side 'both' is unknown"):
        Snapshot.of(LEVELS.assign(side="both"), HEADER)


def test_an_empty_table_is_a_snapshot_of_nothing():
    assert Snapshot.of(LEVELS.iloc[:0], HEADER).symbols == ()


def test_a_listener_hears_every_change_in_order_and_a_slow_one_is_sent_away():
    board = Board()
    one = Snapshot.of(LEVELS, HEADER)
    two = replace(one, header=replace(HEADER, number=8))

    async def hear():
        with board.subscribed(most_waiting=2) as waiting:
            board.show(one)
            await asyncio.to_thread(board.show, two)
            heard = [await waiting.get(), await waiting.get()]
            for _ in range(3):
                board.show(one)
                await asyncio.sleep(0)  # the change arrives, and nobody takes it
            heard += [await waiting.get() for _ in range(3)]
            board.close()
            return [*heard, await waiting.get()]

    heard = asyncio.run(hear())
    assert [(change.before, change.now) for change in heard[:2]] == [(None, one), (one, two)]
    assert [change and change.now for change in heard[2:]] == [one, one, None, None]
    assert board.current is one
