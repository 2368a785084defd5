"""Positions and liquidations: the vectorised recursion against a slow, obvious twin."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.types import FloatArray
from margincast.data.simulated.parameters import (
    DEFAULT_CONTRACTS,
    MarketParameters,
    select_contracts,
)
from margincast.data.simulated.positions import PositionLaw, PressedPaths, run_positions

PARAMETERS = MarketParameters(contracts=select_contracts(["SIM-ETH"]), substeps_per_minute=3)
HALF_LIVES = [each.half_life_minutes for each in PARAMETERS.leverage_classes]


def run(
    unpressed: FloatArray, impact_per_usd: float, listed_from: int = 0, *, keep: bool = True
) -> PressedPaths:
    """Run rows of one contract from settled positions; ``unpressed`` (rows, minutes, substeps)."""
    rows, minutes, _ = unpressed.shape
    law = PositionLaw(PARAMETERS, PARAMETERS.contracts, rows)
    listed = np.tile(np.arange(minutes) >= listed_from, (rows, 1))
    start = np.full(rows, np.log(3_000.0))
    return run_positions(
        law,
        law.settled(start, listed[:, 0]),
        start[:, np.newaxis, np.newaxis] + unpressed,
        np.full((rows, minutes), impact_per_usd),
        listed,
        keep=keep,
    )


def slow_twin(unpressed: FloatArray, impact_per_usd: float, listed_from: int):
    """One row, one position class and one substep at a time; prices and orders."""
    contract = PARAMETERS.contracts[0]
    minutes, substeps = unpressed.shape
    start = np.log(contract.start_price_usd)
    positions = []
    for side, sign, share in (("long", 1, 0.55), ("short", -1, 0.45)):
        for each in PARAMETERS.leverage_classes:
            width = 1.0 / each.leverage - PARAMETERS.maintenance_margin_rate
            target = each.share * share * contract.open_interest_usd / contract.start_price_usd
            positions.append(
                {
                    "side": side,
                    "sign": sign,
                    "width": width,
                    "target": target,
                    "kept": 0.5 ** (1.0 / each.half_life_minutes),
                    "size": target if listed_from == 0 else 0.0,
                    "edge": start - sign * 0.5 * width,
                }
            )
    pressure, prices, orders = 0.0, [], []
    fade = 0.5 ** (1.0 / (PARAMETERS.impact_half_life_minutes * substeps))
    for minute in range(minutes):
        for substep in range(substeps):
            pressure *= fade
            price = start + unpressed[minute, substep] + pressure
            selling_usd = 0.0
            for one in positions:
                beyond = one["sign"] * (one["edge"] - price)
                if beyond > 0.0:
                    closed = min(1.0, beyond / one["width"]) * one["size"]
                    one["size"] -= closed
                    one["edge"] = price
                    selling_usd += one["sign"] * closed * np.exp(price)
                    if closed > 0.0:
                        orders.append((minute, substep, one["side"] == "long", closed))
            pressure -= impact_per_usd * selling_usd
            prices.append(start + unpressed[minute, substep] + pressure)
        for one in positions:
            opened = (1.0 - one["kept"]) * one["target"] if minute >= listed_from else 0.0
            left = one["kept"] * one["size"]
            fresh = prices[-1] - one["sign"] * 0.5 * one["width"]
            one["size"] = left + opened
            share = opened / one["size"] if one["size"] > 0.0 else 1.0
            one["edge"] += share * (fresh - one["edge"])
    return np.array(prices).reshape(minutes, substeps), orders, positions, pressure


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    deviation=st.floats(1e-4, 0.02),
    impact=st.sampled_from([0.0, 1e-9, 2e-8]),
    listed_from=st.sampled_from([0, 7]),
)
def test_the_fast_recursion_is_the_slow_one(
    seed: int, deviation: float, impact: float, listed_from: int
) -> None:
    steps = deviation * np.random.default_rng(seed).standard_normal((4, 40, 3))
    unpressed = steps.reshape(4, -1).cumsum(axis=1).reshape(steps.shape)
    fast = run(unpressed, impact, listed_from)
    for row in range(4):
        prices, orders, positions, pressure = slow_twin(unpressed[row], impact, listed_from)
        np.testing.assert_allclose(fast.log_price[row], prices, rtol=0, atol=1e-12)
        found = fast.liquidations
        own = found.row == row
        ours = zip(
            found.minute[own], found.substep[own], found.is_sell[own], found.size[own], strict=True
        )
        # Orders of one substep may stand in any order of their classes.
        assert [order[:3] for order in sorted(ours)] == [order[:3] for order in sorted(orders)]
        np.testing.assert_allclose(
            np.sort(found.size[own]), np.sort([order[3] for order in orders]), rtol=1e-9
        )
        states = fast.states
        np.testing.assert_allclose(states.pressure[row, -1], pressure, rtol=0, atol=1e-12)
        for name in ("size", "edge"):
            last = getattr(states, name)[row, ..., -1].ravel()
            np.testing.assert_allclose(last, [one[name] for one in positions], rtol=1e-9)


def test_a_run_can_be_cut_in_two() -> None:
    unpressed = np.linspace(0.0, -0.06, 60).reshape(1, 20, 3)
    whole = run(unpressed, 2e-9)
    law = PositionLaw(PARAMETERS, PARAMETERS.contracts, 1)
    first = run(unpressed[:, :10], 2e-9, keep=False)
    states = first.states
    rest = run_positions(
        law,
        replace(
            states,
            pressure=states.pressure[..., -1],
            size=states.size[..., -1],
            edge=states.edge[..., -1],
        ),
        np.log(3_000.0) + unpressed[:, 10:],
        np.full((1, 10), 2e-9),
        np.ones((1, 10), bool),
        keep=False,
    )
    joined = np.concatenate([first.log_price, rest.log_price], axis=1)
    np.testing.assert_allclose(joined, whole.log_price, rtol=0, atol=1e-12)
    assert len(whole.liquidations.size) > 20
    assert len(first.liquidations.size) == 0  # not asked to keep them


def test_nothing_is_liquidated_while_the_price_stands_still() -> None:
    still = run(np.zeros((1, 500, 3)), 1e-8)
    assert len(still.liquidations.size) == 0
    assert np.ptp(still.log_price) == 0.0
    np.testing.assert_allclose(still.states.size[..., -1], still.states.size[..., 0])


@pytest.mark.parametrize(("direction", "sells"), [(-1.0, True), (1.0, False)])
def test_a_fall_liquidates_longs_a_rise_shorts_the_highest_leverage_first(
    direction: float, sells: bool
) -> None:
    moved = run(direction * np.linspace(0.0, 0.03, 30).reshape(1, 10, 3), 0.0)
    assert (moved.liquidations.is_sell == sells).all()
    hit, spared = (0, 1) if sells else (1, 0)
    left = moved.states.size[0, ..., -1] / moved.states.size[0, ..., 0]
    assert (left[spared] > 0.999).all()
    # Classes stand in order of leverage: 5, 10, 25, 50, 100.
    assert (np.diff(left[hit]) <= 0.0).all()
    assert left[hit][0] > 0.999
    assert left[hit][-1] < 0.05


def test_open_positions_come_back_after_a_crash() -> None:
    crash = np.zeros((1, 1_000, 3))
    crash[:, 10:] = -0.5
    sizes = run(crash, 0.0).states.size[0, 0]
    assert (sizes[:, 11] < 0.01 * sizes[:, 0]).all()
    # A class is back to half of its target after its half-life.
    fastest = HALF_LIVES.index(min(HALF_LIVES))
    assert sizes[fastest, 10 + 240] / sizes[fastest, 0] == pytest.approx(0.5, abs=0.02)


def test_pressure_halves_in_the_impact_half_life() -> None:
    crash = np.zeros((1, 200, 3))
    crash[:, 10:] = -0.5
    pressure = run(crash, 1e-10).states.pressure[0]
    assert pressure[11] < -1e-4
    minutes = round(PARAMETERS.impact_half_life_minutes)
    assert pressure[11 + minutes] == pytest.approx(0.5 * pressure[11], rel=1e-6)


def test_contracts_without_positions_are_never_pressed() -> None:
    bare = replace(DEFAULT_CONTRACTS[0], open_interest_usd=0.0)
    law = PositionLaw(replace(PARAMETERS, contracts=(bare,)), (bare,), 1)
    listed = np.ones((1, 50), bool)
    fall = np.linspace(11.0, 9.0, 150).reshape(1, 50, 3)
    found = run_positions(
        law, law.settled(np.array([11.0]), listed[:, 0]), fall, np.full((1, 50), 1.0), listed,
        keep=True,
    )  # fmt: skip
    assert (found.log_price == fall).all()
    assert len(found.liquidations.size) == 0
