"""The oracle is exactly right: against closed forms, and against what the market then does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import stats

from margincast.core.errors import InputError
from margincast.core.types import SIDES, FloatArray, Side
from margincast.data.simulated.market import SimulatedMarket, simulate_market
from margincast.data.simulated.oracle import ORACLE_COLUMNS, true_quantile
from margincast.data.simulated.parameters import MarketParameters, select_contracts

START = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    return simulate_market(MarketParameters(), days=3, seed=11, start=START)


def realised_excursion(bars: pl.DataFrame, row: int, horizon_minutes: int, side: Side) -> float:
    """Excursion after the close of bar ``row``, straight from the definition (design section 3)."""
    close = float(bars["close"][row])
    window = bars.slice(row + 1, horizon_minutes)
    assert len(window) == horizon_minutes
    if side == "long":
        return max(0.0, 1.0 - float(window["low"].to_numpy().min()) / close)
    return max(0.0, float(window["high"].to_numpy().max()) / close - 1.0)


def binomial_band(count: int, probability: float) -> tuple[float, float]:
    """Counts outside this band come up once in ten thousand when the probability is right."""
    return stats.binom.ppf(5e-5, count, probability), stats.binom.ppf(1 - 5e-5, count, probability)


def test_realised_coverage_at_the_oracle_is_nominal_calm_or_stormy() -> None:
    # With 249 paths the levels are whole ranks, so exceedances are exact independent Bernoulli
    # draws: non-overlapping windows, each conditional on the state at its start.
    horizon_minutes, levels = 5, (0.9, 0.98)
    parameters = MarketParameters(contracts=select_contracts(["SIM-ALT"]))
    simulated = simulate_market(parameters, days=3, seed=21, start=START)
    rows = range(0, len(simulated.bars) - horizon_minutes, horizon_minutes)
    decisions = simulated.state[list(rows)]
    oracle = true_quantile(
        parameters,
        decisions,
        horizons_minutes=[horizon_minutes],
        levels=levels,
        path_count=249,
        seed=8,
    )
    stormy = decisions["minute_volatility"].to_numpy() > decisions["minute_volatility"].median()
    pressed = np.abs(decisions["pressure"].to_numpy())
    liquidating = pressed > np.median(pressed)
    for side in SIDES:
        realised = np.array(
            [realised_excursion(simulated.bars, row, horizon_minutes, side) for row in rows]
        )
        for level in levels:
            chosen = oracle.filter(pl.col("side") == side, pl.col("level") == level)
            assert chosen["ts"].equals(decisions["ts"])
            exceeded = realised > chosen["forecast"].to_numpy()
            constant = realised > np.quantile(realised, level)
            for part in (liquidating, ~liquidating):
                low, high = binomial_band(int(part.sum()), 1.0 - level)
                assert low <= exceeded[part].sum() <= high
            for part in (stormy, ~stormy):
                low, high = binomial_band(int(part.sum()), 1.0 - level)
                assert low <= exceeded[part].sum() <= high
                # The check has power: an unconditional quantile fails it in both halves
                # wherever there are data enough.
                assert level > 0.9 or not low <= constant[part].sum() <= high


def test_oracle_is_monotone_in_level_and_horizon_and_tail_means_lie_beyond(
    market: SimulatedMarket,
) -> None:
    decisions = market.state.gather_every(1_200)
    levels, horizons = [0.5, 0.9, 0.99], [1, 10, 60]
    oracle = true_quantile(
        market.parameters,
        decisions,
        horizons_minutes=horizons,
        levels=levels,
        path_count=600,
        seed=1,
    )
    assert oracle.columns == list(ORACLE_COLUMNS)
    assert len(oracle) == len(decisions) * len(horizons) * len(SIDES) * len(levels)
    forecast = oracle["forecast"].to_numpy().reshape(len(decisions), 3, 2, 3)
    assert (np.diff(forecast, axis=1) >= 0.0).all()  # horizon
    assert (np.diff(forecast, axis=3) >= 0.0).all()  # level
    assert (forecast[:, 2, :, 2] > forecast[:, 0, :, 0]).all()
    assert (oracle["expected_shortfall"] >= oracle["forecast"]).all()
    assert (oracle["forecast"] >= 0.0).all()
    assert (oracle.filter(pl.col("level") > 0.5)["standard_error"] > 0.0).all()


def test_one_decision_alone_gets_the_answer_it_gets_in_a_batch(market: SimulatedMarket) -> None:
    decisions = market.state.gather_every(2_000)
    arguments = {"horizons_minutes": [7], "levels": [0.9], "path_count": 99, "seed": 1}
    batch = true_quantile(market.parameters, decisions, **arguments)  # type: ignore[arg-type]
    alone = true_quantile(market.parameters, decisions[3:4], **arguments)  # type: ignore[arg-type]
    assert_frame_equal(alone, batch[6:8], check_exact=True)


def brownian_market() -> tuple[MarketParameters, pl.DataFrame]:
    """A market whose log price is plain Brownian motion, and one state of it."""
    contract = replace(select_contracts(["SIM-BTC"])[0], jump_size=0.0, own_volatility_scale=0.0)
    parameters = MarketParameters(
        contracts=(contract,),
        substeps_per_minute=10,
        common_slow_deviation=0.0,
        common_fast_deviation=0.0,
        turbulent_log_volatility=0.0,
        liquidation_impact=0.0,
        season_amplitude=0.0,
        weekend_log_volatility=0.0,
    )
    simulated = simulate_market(parameters, days=1, seed=0, start=START)
    assert simulated.state["minute_volatility"].to_numpy() == pytest.approx(
        contract.minute_volatility
    )
    return parameters, simulated.state[:1]


def test_oracle_agrees_with_the_reflection_principle_for_brownian_motion() -> None:
    # P(max of Brownian motion over H > b) = 2 (1 - Phi(b / (sigma sqrt H))); watching it only
    # every dt moves the barrier by 0.5826 sigma sqrt(dt) (Broadie, Glasserman and Kou 1997,
    # doi:10.1111/1467-9965.00035). The drift, -sigma^2 H / 2, is negligible here.
    parameters, state = brownian_market()
    horizon_minutes, levels = 30, np.array([0.9, 0.99])
    sigma = parameters.contracts[0].minute_volatility
    step_minutes = 1.0 / parameters.substeps_per_minute
    barrier = sigma * (
        np.sqrt(horizon_minutes) * stats.norm.ppf(0.5 + 0.5 * levels)
        - 0.5826 * np.sqrt(step_minutes)
    )
    expected = {"long": -np.expm1(-barrier), "short": np.expm1(barrier)}
    oracle = true_quantile(
        parameters,
        state,
        horizons_minutes=[horizon_minutes],
        levels=list(levels),
        path_count=10_000,
        seed=5,
    )
    for side in SIDES:
        found = oracle.filter(pl.col("side") == side)
        error = found["forecast"].to_numpy() - expected[side]
        assert (np.abs(error) < 3.5 * found["standard_error"].to_numpy()).all()
        assert found["forecast"].to_numpy() == pytest.approx(expected[side], rel=0.05)


def test_standard_error_is_the_spread_over_seeds() -> None:
    parameters, state = brownian_market()
    answers = [
        true_quantile(
            parameters,
            state,
            horizons_minutes=[3],
            levels=[0.95],
            sides=["long"],
            path_count=999,
            seed=seed,
        )
        for seed in range(80)
    ]
    spread = np.std([answer["forecast"].item() for answer in answers], ddof=1)
    stated = np.mean([answer["standard_error"].item() for answer in answers])
    assert stated == pytest.approx(spread, rel=0.25)


def asked(parameters: MarketParameters, decision: pl.DataFrame) -> FloatArray:
    """Quantiles at 0.99 over ten minutes: of a long, of a short."""
    return true_quantile(
        parameters, decision, horizons_minutes=[10], levels=[0.99], path_count=1999, seed=0
    )["forecast"].to_numpy()


@pytest.fixture(scope="module")
def calm() -> tuple[MarketParameters, pl.DataFrame]:
    parameters = MarketParameters(contracts=select_contracts(["SIM-ETH"]))
    state = simulate_market(parameters, days=1, seed=0, start=START).state[100:101]
    return parameters, state.with_columns(regime=pl.lit(0.0), pressure=pl.lit(0.0))


def test_what_is_not_latent_state_changes_nothing(calm) -> None:
    parameters, state = calm
    relabelled = state.with_columns(minute_volatility=pl.lit(9.0))
    assert (asked(parameters, relabelled) == asked(parameters, state)).all()


@pytest.mark.parametrize(
    ("part", "change", "factor"),
    [
        ("slow_common", np.log(2.0), 1.5),
        ("slow_own", np.log(2.0), 1.5),
        ("regime", 1.0, 1.5),
        ("common_excitation", 0.5, 1.3),
        ("own_excitation", 0.5, 1.3),
    ],
)
def test_volatility_turbulence_and_jump_excitation_raise_both_sides(
    calm, part: str, change: float, factor: float
) -> None:
    parameters, state = calm
    raised = state.with_columns(pl.col(part) + change)
    assert (asked(parameters, raised) > factor * asked(parameters, state)).all()


def test_pressure_rebounds_and_crowded_longs_fall_further(calm) -> None:
    parameters, state = calm
    long, short = asked(parameters, state)
    # Over ten minutes, half the impact's half-life, 0.29 of the fall is made good.
    pressed = state.with_columns(pressure=pl.lit(-0.02))
    assert asked(parameters, pressed)[1] > short + 0.002
    # Ten times as many longs, all of them about to be liquidated: only a fall finds them.
    size, near = state["long_size"].to_numpy(), state["log_price"].item() - 5e-4
    crowded = state.with_columns(
        pl.Series("long_size", 10.0 * size, dtype=state.schema["long_size"]),
        pl.Series("long_edge", np.full_like(size, near), dtype=state.schema["long_edge"]),
    )
    crowded_long, crowded_short = asked(parameters, crowded)
    assert crowded_long > 1.5 * long
    assert crowded_short == pytest.approx(short, rel=0.2)


def test_after_a_delisting_no_excursion_is_made() -> None:
    end = START + timedelta(hours=20)
    contract = replace(select_contracts(["SIM-ETH"])[0], delisted_at=end)
    parameters = MarketParameters(contracts=(contract,))
    state = simulate_market(parameters, days=1, seed=0, start=START).state
    near = state.filter(pl.col("ts") == end - timedelta(minutes=10))

    def ask(decision: pl.DataFrame, horizon_minutes: int) -> list[float]:
        answer = true_quantile(
            parameters,
            decision,
            horizons_minutes=[horizon_minutes],
            levels=[0.9],
            path_count=99,
            seed=0,
        )
        return answer["forecast"].to_list()

    assert ask(near, 60) == ask(near, 10) > ask(near, 1)
    with pytest.raises(InputError, match="SIM-ETH is delisted at 2025-01-01 20:00"):
        ask(state.tail(1), 1)


def test_oracle_refuses_what_it_cannot_answer(market: SimulatedMarket) -> None:
    state = market.state[:1]

    def ask(
        decisions: pl.DataFrame = state, horizon: int = 1, level: float = 0.9, paths: int = 99
    ) -> pl.DataFrame:
        return true_quantile(
            market.parameters,
            decisions,
            horizons_minutes=[horizon],
            levels=[level],
            path_count=paths,
            seed=0,
        )

    assert len(ask()) == len(SIDES)
    assert len(ask(state[:0])) == 0
    with pytest.raises(InputError, match="fast_own"):
        ask(state.drop("fast_own"))
    with pytest.raises(InputError, match="is called 'SIM-XYZ'"):
        ask(state.with_columns(symbol=pl.lit("SIM-XYZ")))
    with pytest.raises(InputError, match="horizons"):
        ask(horizon=0)
    with pytest.raises(InputError, match="strictly between 0 and 1"):
        ask(level=99.0)
    with pytest.raises(InputError, match="take 499 or more"):
        ask(level=0.99, paths=498)
    assert len(ask(level=0.99, paths=499)) == len(SIDES)
