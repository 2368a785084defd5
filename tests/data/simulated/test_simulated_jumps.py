"""Volatility, jumps and drift of the simulated law, against what theory says of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.data.simulated.jumps import HawkesKernel, Jumps, simulate_jumps
from margincast.data.simulated.parameters import (
    DEFAULT_CONTRACTS,
    MarketParameters,
    select_contracts,
)
from margincast.data.simulated.process import settled_state, simulate_paths
from margincast.data.simulated.volatility import (
    simulate_volatility,
    stationary_volatility,
    volatility_of_state,
)

RATE = 0.05


def jumps(
    rows: int, minutes: int, branching: float, *, half_life: float = 4.0, seed: int = 1
) -> Jumps:
    """Jumps at a mean rate of ``RATE`` a minute, from mean excitation."""
    return simulate_jumps(
        np.full((rows, minutes), RATE * (1.0 - branching)),
        np.full(rows, RATE * branching),
        HawkesKernel(branching, half_life),
        downward_share=0.6,
        substeps=3,
        generator=np.random.default_rng(seed),
    )


@settings(max_examples=10)
@given(branching=st.floats(0.0, 0.8), half_life=st.floats(0.5, 60.0), seed=st.integers(0, 10**6))
def test_jumps_come_at_the_stated_rate_and_as_often_as_the_intensity_expects(
    branching: float, half_life: float, seed: int
) -> None:
    found = jumps(3_000, 40, branching, half_life=half_life, seed=seed)
    counts = found.counts.sum(axis=(1, 2))
    error = counts.std() / np.sqrt(len(counts))
    assert abs(counts.mean() - 40 * RATE) < 4.5 * error
    # Count less integrated intensity is a martingale, whose variance is the mean of the latter.
    surplus = counts - found.expected.sum(axis=(1, 2))
    assert abs(surplus.mean()) < 4.5 * surplus.std() / np.sqrt(len(surplus))
    assert surplus.var() == pytest.approx(found.expected.sum(axis=(1, 2)).mean(), rel=0.25)


@pytest.mark.parametrize(("branching", "expected"), [(0.0, 1.0), (0.5, 4.0), (0.7, 11.1)])
def test_clusters_are_as_large_as_the_branching_ratio_makes_them(
    branching: float, expected: float
) -> None:
    # Over windows long beside the kernel, variance over mean of the counts of a Hawkes process is
    # 1 / (1 - branching)^2 (Hawkes 1971, doi:10.1093/biomet/58.1.83).
    counts = jumps(4_000, 500, branching, half_life=1.0).counts.sum(axis=(1, 2))
    assert counts.var() / counts.mean() == pytest.approx(expected, rel=0.12)


def test_excitation_is_all_that_is_needed_to_go_on() -> None:
    # Runs of forty minutes, and runs of twenty gone on with for twenty: the same law.
    whole = jumps(20_000, 40, 0.6)
    first = jumps(20_000, 20, 0.6, seed=2)
    rest = simulate_jumps(
        np.full((20_000, 20), RATE * 0.4),
        first.excitation[:, -1],
        HawkesKernel(0.6, 4.0),
        downward_share=0.6,
        substeps=3,
        generator=np.random.default_rng(3),
    )
    totals = [
        each.sum(axis=(1, 2)) for each in (whole.counts, np.hstack([first.counts, rest.counts]))
    ]
    assert totals[0].mean() == pytest.approx(totals[1].mean(), rel=0.04)
    assert totals[0].std() == pytest.approx(totals[1].std(), rel=0.04)
    assert totals[0].var() > 2.0 * totals[0].mean()  # far from independent


def test_turbulence_and_calm_last_as_long_as_stated_and_volatility_has_the_stated_size() -> None:
    parameters = replace(
        MarketParameters(),
        calm_minutes=300.0,
        turbulent_minutes=60.0,
        season_amplitude=0.0,
        weekend_log_volatility=0.0,
    )
    contracts = select_contracts(["SIM-ALT"])
    generator = np.random.default_rng(5)
    initial = stationary_volatility(parameters, contracts, 300, generator)
    shock = generator.standard_normal((300, 1, 2_000))
    state = simulate_volatility(parameters, contracts, initial, shock, generator)
    regime = state.regime[:, 0]
    assert np.isin(regime, [0.0, 1.0]).all()
    for here, minutes in ((0.0, 300.0), (1.0, 60.0)):
        held = regime[:, :-1] == here
        left = int((held & (regime[:, 1:] != here)).sum())
        # About 1,600 spells each: their mean length is known within 2.5 %.
        assert held.sum() / left == pytest.approx(minutes, rel=0.1)

    many = stationary_volatility(parameters, contracts, 50_000, generator)
    one_minute = simulate_volatility(
        parameters, contracts, many, generator.standard_normal((50_000, 1, 1)), generator
    )
    volatility = volatility_of_state(parameters, contracts, one_minute, np.arange(2))[:, 0, -1]
    square = (volatility / contracts[0].minute_volatility) ** 2
    assert abs(square.mean() - 1.0) < 4.0 * square.std() / np.sqrt(len(square))
    turbulent = one_minute.regime[:, 0, -1] == 1.0
    step = np.log(np.median(volatility[turbulent]) / np.median(volatility[~turbulent]))
    assert step == pytest.approx(parameters.turbulent_log_volatility, abs=0.05)


def test_jumps_come_when_volatile() -> None:
    parameters = MarketParameters(contracts=select_contracts(["SIM-ALT"]))
    generator = np.random.default_rng(7)
    initial = settled_state(
        parameters, parameters.contracts, 20_000, first_minute=0, generator=generator
    )
    paths = simulate_paths(
        parameters,
        parameters.contracts,
        initial,
        first_minute=0,
        minute_count=5,
        generator=generator,
    )
    counts = paths.jump_counts[:, 0].sum(axis=-1)
    stormy = paths.volatility[:, 0, 0] > np.median(paths.volatility[:, 0, 0])
    assert counts[stormy].sum() > 2 * counts[~stormy].sum()


def test_prices_are_martingales_in_spite_of_lopsided_jumps_and_leverage() -> None:
    # Liquidation pressure apart, which is a temporary displacement.
    parameters = MarketParameters(
        contracts=DEFAULT_CONTRACTS[2:], common_jumps_per_day=500.0, liquidation_impact=0.0
    )
    generator = np.random.default_rng(4)
    initial = settled_state(
        parameters, parameters.contracts, 20_000, first_minute=0, generator=generator
    )
    paths = simulate_paths(
        parameters,
        parameters.contracts,
        initial,
        first_minute=0,
        minute_count=10,
        generator=generator,
    )
    growth = np.exp(paths.log_price[:, 0, -1, -1] - initial.log_price[:, 0])
    assert abs(growth.mean() - 1.0) < 3.5 * growth.std() / np.sqrt(len(growth))
    assert growth.std() > 0.01
