"""Bets: never overlapping, never on what is not known yet, and the same however often one looks."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.monitoring.monitoring_cases import HORIZON, after, record_case, with_outcomes

from margincast.serving.monitoring.betting import DIRECTIONS, Evidence
from margincast.serving.monitoring.tally import Rates, Tally, bet_times, settle

RATES = Rates(1.2, 0.5)
NO_PATIENCE = timedelta(0)


def tallied(record, at, tally=None, patience=NO_PATIENCE):
    return settle(tally or Tally.begin(record), record, at, RATES, patience)


def same(one, other):
    for direction in DIRECTIONS:
        for kind in ("pooled", "own"):
            first, second = getattr(one, kind)[direction], getattr(other, kind)[direction]
            assert first.wealth.tobytes() == second.wealth.tobytes()
            assert first.bets.tobytes() == second.bets.tobytes()
            assert first.largest.tobytes() == second.largest.tobytes()
    assert one.shares.tobytes() == other.shares.tobytes()
    assert (one.lost, str(one.last), one.reached) == (other.lost, str(other.last), other.reached)
    return True


def test_bets_do_not_overlap_and_wander_through_the_day():
    record = record_case()
    times = bet_times(record.decided, HORIZON, np.datetime64("NaT", "us"))
    assert (np.diff(times) > np.timedelta64(HORIZON)).all()
    hours = (times - times.astype("datetime64[D]")).astype(int) // 3_600_000_000
    assert len(set(hours.tolist())) == 8  # steps of nine hours: every third hour of the day
    assert bet_times(record.decided, HORIZON, times[3]).tolist() == times[4:].tolist()


def test_daily_decisions_are_all_bet_on():
    times = np.datetime64("2026-01-01", "us") + np.arange(9) * np.timedelta64(1, "D")
    assert bet_times(times, HORIZON, np.datetime64("NaT", "us")).tolist() == times.tolist()


@settings(max_examples=25)
@given(st.integers(0, 260), st.integers(0, 2**32 - 1))
def test_no_outcome_is_used_before_its_horizon_has_passed(hours, seed):
    record = record_case()
    at = after(hours)
    future = record.matures > np.datetime64(at.replace(tzinfo=None), "us")
    generator = np.random.default_rng(seed)
    outcomes = np.where(future[:, None], generator.random(record.outcomes.shape), record.outcomes)
    assert same(tallied(record, at), tallied(with_outcomes(record, outcomes), at))
    # promises of decisions still to come do not matter either
    promised = record.promised.copy()
    promised[record.decided > np.datetime64(at.replace(tzinfo=None), "us")] = np.nan
    assert same(tallied(record, at), tallied(replace(record, promised=promised), at))


def test_an_outcome_counts_from_the_moment_its_horizon_has_passed():
    record = record_case()
    assert len(tallied(record, after(8) - timedelta(microseconds=1)).shares) == 0
    assert len(tallied(record, after(8)).shares) == 1


@settings(max_examples=15)
@given(st.lists(st.integers(0, 250), max_size=6))
def test_looking_often_is_looking_once(moments):
    record = record_case()
    tally = None
    for hours in sorted(moments):
        tally = tallied(record, after(hours), tally)
        tally = tallied(record, after(hours), tally)
    assert same(tallied(record, after(250), tally), tallied(record, after(250)))


def test_shares_and_evidence_are_those_of_a_loop_over_bets_and_streams():
    record = record_case(levels=(0.9,), ratio=1.5)
    tally = tallied(record, after(400))
    times = bet_times(record.decided, HORIZON, np.datetime64("NaT", "us"))
    for side in range(2):
        pooled, own = Evidence.none("too many", 1), Evidence.none("too many", 1)
        for number, bet in enumerate(times):
            rows = record.decided == bet
            beyond = record.outcomes[rows, side] > record.promised[rows, side, 0]
            assert tally.shares[number, side] == beyond.mean()
            pooled = pooled.settle(np.array([beyond.mean()]), np.array([0.12]))
            first = float(beyond[record.contract[rows] == 0][0])
            own = own.settle(np.array([first]), np.array([0.12]))
        assert tally.pooled["too many"].e_values[side] == pytest.approx(float(pooled.e_values[0]))
        assert tally.own["too many"].e_values[side] == pytest.approx(float(own.e_values[0]))


def test_a_late_outcome_is_waited_for_and_then_counted_as_lost():
    record = record_case(hours=40)
    outcomes = record.outcomes.copy()
    outcomes[(record.decided == record.decided[0]) & (record.contract == 1)] = np.nan
    late = with_outcomes(record, outcomes)
    patience = timedelta(hours=3)
    assert len(tallied(late, after(10), patience=patience).shares) == 0
    given_up = tallied(late, after(11), patience=patience)
    assert len(given_up.shares) == 1
    assert given_up.lost == 4  # two sides at two levels
    assert given_up.own["too many"].bets.reshape(3, 4)[:, 0].tolist() == [1, 0, 1]
    arrived = tallied(record, after(10), patience=patience)
    assert arrived.lost == 0


def test_a_contract_that_comes_later_starts_its_own_evidence():
    record = record_case()
    young = (record.contract != 1) | (record.decided >= np.datetime64("2026-01-04"))
    both = tallied(record.rows(young), after(400))
    bets = both.own["too many"].bets.reshape(3, 4)[:, 0]
    assert bets[1] < bets[0] == bets[2]
    # the same when it was unknown at first
    only = record.rows(record.contract != 1)
    only = replace(only, symbols=("C0", "C2"), contract=only.contract // 2)
    first = tallied(only, after(72))
    assert first.symbols == ("C0", "C2")
    assert same(tallied(record.rows(young), after(400), first), both)


def test_no_promise_is_no_bet_and_nothing_lost():
    record = record_case(hours=40)
    promised = record.promised.copy()
    promised[:, 1] = np.nan
    tally = tallied(replace(record, promised=promised), after(60))
    assert tally.lost == 0
    assert np.isnan(tally.shares[:, 2:]).all()
    assert tally.pooled["too many"].bets.tolist() == [5, 5, 0, 0]


def test_another_version_begins_anew():
    tally = tallied(record_case(), after(100))
    assert tally.continues(record_case())
    assert not tally.continues(record_case(subject="model/2"))
    assert not tally.continues(record_case(levels=(0.9, 0.99)))
