"""Stylised facts of the simulated market, each on a seeded run (docs/method/simulated.md)."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from scipy import stats

from margincast.core.types import FloatArray
from margincast.data.simulated.book import BOOK_LEVELS
from margincast.data.simulated.market import SimulatedMarket, simulate_market
from margincast.data.simulated.parameters import DEFAULT_CONTRACTS, MarketParameters
from margincast.data.simulated.process import SimulatedPaths, settled_state, simulate_paths

SYMBOLS = [contract.symbol for contract in DEFAULT_CONTRACTS]
PATHS, DAYS = 12, 10


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    return simulate_market(
        MarketParameters(), days=5, seed=11, start=datetime(2025, 1, 1, tzinfo=UTC)
    )


def drawn(parameters: MarketParameters, paths: int, minutes: int) -> SimulatedPaths:
    generator = np.random.default_rng(3)
    initial = settled_state(
        parameters, parameters.contracts, paths, first_minute=0, generator=generator
    )
    return simulate_paths(
        parameters,
        parameters.contracts,
        initial,
        first_minute=0,
        minute_count=minutes,
        generator=generator,
    )


@pytest.fixture(scope="module")
def closes() -> FloatArray:
    """Log closes, shape (paths, contracts, minutes): twelve histories of ten days."""
    return drawn(MarketParameters(), PATHS, DAYS * 1440).log_price[..., -1]


@pytest.fixture(params=range(len(SYMBOLS)), ids=SYMBOLS)
def contract(request) -> int:
    return request.param


def returns_over(closes: FloatArray, minutes: int) -> FloatArray:
    return np.diff(closes[..., minutes - 1 :: minutes], axis=-1)


def hill_index(values: FloatArray, share: float) -> float:
    """Tail index of the largest ``share`` of values (Hill 1975, doi:10.1214/aos/1176343247)."""
    ordered = np.sort(values)[::-1]
    count = int(share * len(ordered))
    return 1.0 / float(np.mean(np.log(ordered[:count] / ordered[count])))


def pooled_rank_correlation(first: FloatArray, second: FloatArray) -> float:
    """Mean over paths, so that paths of different volatility do not make up a correlation."""
    return float(
        np.mean([stats.spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)])
    )


def test_hourly_returns_have_tails_heavier_than_normal_and_a_finite_variance(
    closes: FloatArray, contract: int
) -> None:
    # Cont 2001, doi:10.1080/713665670: a tail index above two and below five or six.
    returns = returns_over(closes, 60)[:, contract].ravel()
    assert 2.0 < hill_index(np.abs(returns), 0.05) < 6.0
    # Standard error of the kurtosis of n normals: sqrt(24 / n).
    assert stats.kurtosis(returns) > 10.0 * np.sqrt(24.0 / len(returns))


def test_tails_grow_thinner_over_longer_horizons(closes: FloatArray) -> None:
    # Aggregational Gaussianity (Cont 2001), pooled over contracts in units of their deviation.
    kurtosis = []
    for minutes in (1, 60, 1440):
        returns = returns_over(closes, minutes)
        scaled = returns / returns.std(axis=(0, 2), keepdims=True)
        kurtosis.append(stats.kurtosis(scaled.ravel()))
    assert kurtosis[0] > 2.0 * kurtosis[1] > 4.0 * kurtosis[2]


def test_volatility_clusters_and_returns_do_not(closes: FloatArray, contract: int) -> None:
    returns = returns_over(closes, 5)[:, contract]
    size = np.abs(returns)
    correlations = [
        pooled_rank_correlation(size[:, :-lag], size[:, lag:]) for lag in (1, 3, 12, 72)
    ]
    # Standard error under independence: 1 / sqrt(34,560) = 0.005.
    assert min(correlations) > 0.03
    assert correlations[0] > correlations[3]
    assert abs(pooled_rank_correlation(returns[:, :-1], returns[:, 1:])) < 0.03


def test_volatility_rises_after_falls(closes: FloatArray) -> None:
    # Leverage effect: Black 1976; Bouchaud, Matacz and Potters 2001,
    # doi:10.1103/PhysRevLett.87.228701. In the market's mean return, where the common part shows.
    returns = returns_over(closes, 5).mean(axis=1)
    size = np.abs(returns)
    for lag in (1, 2, 4):
        assert pooled_rank_correlation(returns[:, :-lag], size[:, lag:]) < -0.015
    # What went before does not tell the sign of what follows.
    assert abs(pooled_rank_correlation(size[:, :-1], returns[:, 1:])) < 0.02


def test_contracts_share_a_market_and_differ_in_volatility(closes: FloatArray) -> None:
    returns = returns_over(closes, 5)
    deviations = returns.std(axis=(0, 2))
    assert (np.diff(deviations) > 0.0).all()
    assert 0.5 < pooled_rank_correlation(returns[:, 0], returns[:, 1]) < 0.95


def test_spreads_widen_depth_thins_and_trading_picks_up_when_volatility_rises(
    market: SimulatedMarket, contract: int
) -> None:
    own = pl.col("symbol") == SYMBOLS[contract]
    book, state, bars = market.book.filter(own), market.state.filter(own), market.bars.filter(own)
    assert book["ts"].equals(state["ts"])
    volatility = state["minute_volatility"]
    spread = book["ask_price_0"] / book["bid_price_0"] - 1.0
    assert stats.spearmanr(volatility, spread).statistic > 0.4
    for side in ("bid", "ask"):
        depth_usd = book.select(
            pl.sum_horizontal(
                pl.col(f"{side}_price_{level}") * pl.col(f"{side}_size_{level}")
                for level in range(BOOK_LEVELS)
            )
        ).to_series()
        assert stats.spearmanr(volatility, depth_usd).statistic < -0.4
    assert stats.spearmanr(volatility[:-1], bars["trade_count"][1:]).statistic > 0.2
    buy_share = bars["taker_buy_volume"] / bars["volume"]
    assert stats.spearmanr(buy_share, bars["close"] / bars["open"]).statistic > 0.2


def test_jumps_come_in_clusters() -> None:
    # A Fano factor of one is that of jumps that know nothing of each other.
    counts = drawn(MarketParameters(), 300, 240).jump_counts.sum(axis=-1)
    fano = counts.var(axis=0) / counts.mean(axis=0)
    assert (fano > 1.5).all()


def test_liquidations_can_cascade() -> None:
    # The same random numbers with and without impact: what differs is the liquidations' doing.
    parameters = MarketParameters(contracts=DEFAULT_CONTRACTS[1:])
    without = replace(parameters, liquidation_impact=0.0)
    pressed, free = (drawn(each, 150, 720).log_price.min(axis=-1) for each in (parameters, without))
    # The worst hour's fall of each path: mostly hardly touched, in some paths far larger.
    falls = [(low[..., 60:] - low[..., :-60]).min(axis=-1).ravel() for low in (pressed, free)]
    added = falls[1] - falls[0]
    assert np.median(added) < 0.003
    worst = int(np.argmax(added))
    assert falls[0][worst] < 1.3 * falls[1][worst] < -0.02
    # They reach further in the tail than in the middle.
    assert np.quantile(falls[0], 0.01) < np.quantile(falls[1], 0.01) - 0.01
