"""Accounts under a margin: the vectorised search against a slow twin, and cases made by hand."""

from math import erf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.position_model import Accounts, draw_accounts, run_accounts
from margincast.core.errors import InputError

HUNDRED = 100.0


def one(leverage, hold=10, entry=0):
    return Accounts(np.array([entry]), np.array([float(leverage)]), np.array([hold]))


def slow_twin(price, mmr, accounts, side, closing_steps):
    """One account and one step at a time, in USD of one contract."""
    sign = 1.0 if side == "long" else -1.0
    found = []
    for entry, leverage, hold in zip(
        accounts.entry_step, accounts.leverage, accounts.hold_steps, strict=True
    ):
        if np.isnan(price[entry]) or np.isnan(mmr[entry]):
            found.append(("unknown", -1, -1, 0.0))
            continue
        if 1.0 / leverage <= mmr[entry]:
            found.append(("refused", -1, -1, 0.0))
            continue
        collateral = price[entry] / leverage
        ends = []
        for follows in (True, False):
            end = -1
            for step in range(entry + 1, entry + hold + 1):
                if step >= len(price) or np.isnan(price[step]) or np.isnan(mmr[step]):
                    end = None
                    break
                equity = collateral + sign * (price[step] - price[entry])
                if equity < (mmr[step] if follows else mmr[entry]) * price[step]:
                    end = step
                    break
            ends.append(end)
        if None in ends:
            found.append(("unknown", -1, -1, 0.0))
            continue
        shortfall = 0.0
        if ends[0] >= 0:
            ahead = price[ends[0] : ends[0] + closing_steps + 1]
            fill = np.nanmin(ahead) if side == "long" else np.nanmax(ahead)
            shortfall = max(0.0, -(collateral + sign * (fill - price[entry]))) / price[entry]
        found.append(("run", *ends, shortfall))
    return found


@given(
    seed=st.integers(0, 10**6),
    side=st.sampled_from(["long", "short"]),
    closing_steps=st.sampled_from([0, 3]),
    holes=st.booleans(),
)
def test_the_fast_search_is_the_slow_one(seed, side, closing_steps, holes):
    generator = np.random.default_rng(seed)
    price = HUNDRED * np.exp(0.03 * generator.standard_normal(60).cumsum())
    mmr = np.clip(0.03 * np.exp(0.2 * generator.standard_normal(60).cumsum()), 0.005, 0.4)
    if holes:
        price[generator.integers(0, 60, 2)] = np.nan
        mmr[generator.integers(0, 60, 2)] = np.nan
    accounts = draw_accounts(
        80,
        path_length=60,
        leverages=np.array([3.0, 10.0, 25.0]),
        shares=np.array([2.0, 2.0, 1.0]),
        mean_hold_steps=8.0,
        generator=generator,
    )
    found = run_accounts(price, mmr, accounts, side, closing_steps=closing_steps)
    for row, (kind, end, end_at_entry, shortfall) in enumerate(
        slow_twin(price, mmr, accounts, side, closing_steps)
    ):
        assert (found.refused[row], found.unknown[row]) == (kind == "refused", kind == "unknown")
        assert found.liquidated_step[row] == end
        assert found.liquidated_step_at_entry_margin[row] == end_at_entry
        assert found.shortfall[row] == pytest.approx(shortfall, abs=1e-12)
    counts = found.counts()
    assert counts.liquidations == counts.margin_induced + counts.price_induced
    assert counts.brought_forward <= counts.price_induced
    assert counts.bankruptcies <= counts.liquidations


@given(st.integers(0, 10**6), st.sampled_from(["long", "short"]), st.floats(0.002, 0.2))
def test_a_margin_that_never_moves_induces_nothing(seed, side, mmr):
    generator = np.random.default_rng(seed)
    price = HUNDRED * np.exp(0.02 * generator.standard_normal(100).cumsum())
    accounts = draw_accounts(
        50,
        path_length=100,
        leverages=np.array([4.0, 20.0]),
        shares=np.ones(2),
        mean_hold_steps=20.0,
        generator=generator,
    )
    counts = run_accounts(price, np.full(100, mmr), accounts, side).counts()
    assert (counts.margin_induced, counts.brought_forward, counts.spared) == (0, 0, 0)


@given(st.integers(0, 10**6))
def test_a_margin_that_only_rises_spares_nobody_and_one_that_falls_takes_nobody(seed):
    generator = np.random.default_rng(seed)
    price = HUNDRED * np.exp(0.03 * generator.standard_normal(100).cumsum())
    rising = np.linspace(0.01, 0.09, 100)
    accounts = draw_accounts(
        80,
        path_length=100,
        leverages=np.array([8.0]),
        shares=np.ones(1),
        mean_hold_steps=20.0,
        generator=generator,
    )
    assert run_accounts(price, rising, accounts, "long").counts().spared == 0
    falling = run_accounts(price, rising[::-1], accounts, "long").counts()
    assert (falling.margin_induced, falling.brought_forward) == (0, 0)


def test_by_hand_a_risen_margin_takes_a_position_that_the_price_does_not():
    # 10x long from 100: equity 10, at 95 equity 5, which is 5.26 % of 95
    price = np.array([100.0, 95.0, 100.0])
    calm = run_accounts(price, np.array([0.02, 0.05, 0.02]), one(10, 2), "long").counts()
    assert (calm.liquidations, calm.bankruptcies) == (0, 0)
    risen = run_accounts(price, np.array([0.02, 0.06, 0.02]), one(10, 2), "long")
    assert risen.liquidated_step.tolist() == [1]
    assert risen.margin_induced.tolist() == [True]
    assert risen.counts().bankruptcies == 0


def test_by_hand_brought_forward():
    price = np.array([100.0, 95.0, 91.0])
    found = run_accounts(price, np.array([0.02, 0.06, 0.06]), one(10, 2), "long")
    assert found.liquidated_step.tolist() == [1]
    assert found.liquidated_step_at_entry_margin.tolist() == [2]
    assert found.price_induced.tolist() == found.brought_forward.tolist() == [True]


def test_by_hand_bankruptcy_and_the_time_closing_takes():
    price, mmr = np.array([100.0, 91.0, 85.0, 120.0]), np.full(4, 0.02)
    at_once = run_accounts(price, mmr, one(10, 3), "long")
    assert at_once.liquidated_step.tolist() == [1]  # equity 1 below 1.82
    assert at_once.shortfall.tolist() == [0.0]
    slow = run_accounts(price, mmr, one(10, 3), "long", closing_steps=1)
    assert slow.shortfall == pytest.approx([0.05])  # equity -5 of 100
    assert slow.counts().shortfall_per_bankruptcy == pytest.approx(0.05)
    short = run_accounts(price, mmr, one(10, 3), "short")
    assert short.liquidated_step.tolist() == [3]
    assert short.shortfall == pytest.approx([0.1])


def test_refused_and_unknown_are_counted_apart():
    price, mmr = np.full(5, 100.0), np.full(5, 0.05)
    assert run_accounts(price, mmr, one(20, 2), "long").counts().refused == 1
    assert run_accounts(price, mmr, one(10, 9), "long").counts().unknown == 1
    mmr[2] = np.nan
    assert run_accounts(price, mmr, one(10, 3), "long").counts().unknown == 1


def test_the_law_of_the_first_passage():
    """Of driftless normal steps, the share liquidated is that of the reflected random walk."""
    generator = np.random.default_rng(3)
    hold, deviation = 400, 0.001
    steps = deviation * generator.standard_normal((400, hold))
    log_price = np.concatenate([np.zeros((400, 1)), steps.cumsum(axis=1)], axis=1)
    liquidated = sum(
        run_accounts(np.exp(path), np.full(hold + 1, 0.02), one(20, hold), "long")
        .counts()
        .liquidations
        for path in log_price
    )
    # equity 1 - 0.95 / p < 0.02 once p < 0.95 / 0.98; 0.5826 corrects for steps (Siegmund 1979)
    barrier = -np.log(0.95 / 0.98) + 0.5826 * deviation
    from_normal = 1.0 - erf(barrier / (deviation * np.sqrt(2.0 * hold)))
    assert liquidated / 400 == pytest.approx(from_normal, abs=3 * np.sqrt(0.1 * 0.9 / 400))


def test_draws_are_reproducible_and_as_asked_for():
    def drawn(seed):
        return draw_accounts(
            20_000,
            path_length=500,
            leverages=np.array([5.0, 50.0]),
            shares=np.array([3.0, 1.0]),
            mean_hold_steps=24.0,
            generator=np.random.default_rng(seed),
        )

    first, again = drawn(1), drawn(1)
    np.testing.assert_array_equal(first.leverage, again.leverage)
    np.testing.assert_array_equal(first.entry_step, again.entry_step)
    assert (first.leverage == 5.0).mean() == pytest.approx(0.75, abs=0.02)
    assert first.hold_steps.mean() == pytest.approx(24.0, rel=0.03)
    assert first.entry_step.max() == 499


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mmr": np.full(5, 2.0)}, "divide per cents"),
        ({"mmr": np.full(4, 0.02)}, "one price and one margin"),
        ({"mark_price": np.array([1.0, 0.0, 1.0, 1.0, 1.0])}, "must be positive"),
        ({"accounts": one(10, 3, entry=5)}, "after the last"),
        ({"closing_steps": -1}, "closing_steps"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    usual = {
        "mark_price": np.full(5, 100.0),
        "mmr": np.full(5, 0.02),
        "accounts": one(10, 3),
        "side": "long",
    }
    with pytest.raises(InputError, match=message):
        run_accounts(**(usual | change))


def test_accounts_that_are_none_are_refused():
    with pytest.raises(InputError, match="above 1"):
        one(1.0)
    with pytest.raises(InputError, match="held for 1 step"):
        one(10, hold=0)
    with pytest.raises(InputError, match="one entry"):
        Accounts(np.array([0, 1]), np.array([10.0]), np.array([1]))
