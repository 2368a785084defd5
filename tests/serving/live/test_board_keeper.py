"""Between two threads no margin is shown that was made of what is not believed any more."""

from datetime import timedelta

import pytest
from tests.serving.levels_case import AT, SYMBOLS, levels_of

from margincast.serving.board import Board
from margincast.serving.live.board_keeper import BoardKeeper
from margincast.serving.live.faults import EVERYTHING, Fault
from margincast.serving.live.watchdog import Fallback, Verdict
from margincast.serving.snapshot import Header

LATER = AT + timedelta(minutes=1)


def verdict(*subjects):
    faults = {
        one: Fallback(f"stale feed: {one or 'all'}", Fault.STALE_FEED, 0, 0) for one in subjects
    }
    return Verdict(faults, (), {})


def made(reasons):
    """Levels of some contracts; a reason makes a fallback, as the engine does."""
    symbols = tuple(sorted(reasons))
    forecasts = tuple(float("nan") if reasons[one] else 0.01 for one in symbols)
    return levels_of(forecasts, symbols)


@pytest.fixture
def keeper():
    one = BoardKeeper(Board(), "test")
    one.decided(levels_of(), {}, Header(1, AT, "test", "live"), made)
    return one


def fallen(keeper):
    return set(keeper.board.current.fallbacks)


def test_a_fault_shows_at_once_and_its_end_asks_for_a_margin(keeper):
    assert keeper.judged(verdict("SIM-BTC"), LATER, made) == ()
    assert fallen(keeper) == {"SIM-BTC"}
    assert keeper.board.current.header.version == "1.1"
    assert keeper.judged(verdict(), LATER, made) == ("SIM-BTC",)
    assert fallen(keeper) == {"SIM-BTC"}  # until its margin was made
    keeper.came_back(["SIM-BTC"], LATER, made)
    assert fallen(keeper) == set()
    assert keeper.judged(verdict(), LATER, made) == ()


def test_a_decision_does_not_take_away_a_fallback_that_came_while_it_was_made(keeper):
    reasons = keeper.reasons(SYMBOLS)
    assert reasons == {}
    keeper.judged(verdict("SIM-ETH"), LATER, made)  # in the other thread
    keeper.decided(levels_of(), reasons, Header(2, LATER, "test", "live"), made)
    assert fallen(keeper) == {"SIM-ETH"}
    assert keeper.board.current.header.number == 2


def test_a_contract_that_falls_again_while_its_margin_is_made_stays_down(keeper):
    keeper.judged(verdict("SIM-ETH"), LATER, made)
    back = keeper.judged(verdict(), LATER, made)
    keeper.judged(verdict("SIM-ETH"), LATER, made)
    keeper.came_back(back, LATER, made)
    assert fallen(keeper) == {"SIM-ETH"}


def test_what_concerns_everything_is_said_in_the_header_and_of_every_contract(keeper):
    keeper.judged(verdict(EVERYTHING), LATER, made)
    assert fallen(keeper) == set(SYMBOLS)
    assert keeper.board.current.header.problem == "stale feed: all"
    assert set(keeper.judged(verdict(), LATER, made)) == set(SYMBOLS)
    assert keeper.board.current.header.problem == ""


def test_while_a_fault_lasts_nothing_is_shown_anew(keeper):
    keeper.judged(verdict("SIM-BTC"), LATER, made)
    shown = keeper.board.current
    keeper.judged(verdict("SIM-BTC"), LATER, made)
    assert keeper.board.current is shown
