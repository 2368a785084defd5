"""The simulated market: canonical tables, stylised facts, and an oracle that is exactly right."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy import stats

from margincast.core.errors import InputError
from margincast.core.types import SIDES, FloatArray, Side
from margincast.data.oracle import ORACLE_COLUMNS, true_quantile
from margincast.data.simulated import SimulatedMarket, simulate_market, write_market
from margincast.data.simulated_book import BOOK_LEVELS
from margincast.data.simulated_parameters import (
    DEFAULT_CONTRACTS,
    MarketParameters,
    select_contracts,
)
from margincast.data.simulated_process import (
    simulate_paths,
    stationary_state,
)

START = datetime(2025, 1, 1, tzinfo=UTC)
TABLES = ("bars", "book", "trades", "funding", "state")

small_parameters = st.builds(
    MarketParameters,
    contracts=st.lists(st.sampled_from(DEFAULT_CONTRACTS), min_size=1, max_size=2, unique=True).map(
        tuple
    ),
    substeps_per_minute=st.integers(1, 8),
    common_fast_deviation=st.floats(0.0, 0.8),
    own_slow_deviation=st.floats(0.0, 0.5),
    common_jumps_per_day=st.floats(0.0, 20.0),
    leverage_correlation=st.floats(-1.0, 1.0),
    downward_jump_share=st.floats(0.0, 1.0),
)
starts = st.integers(0, 7 * 1440).map(lambda minutes: START + timedelta(minutes=minutes))
few_examples = settings(max_examples=15, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    return simulate_market(MarketParameters(), days=14, seed=11, start=START)


def realised_excursion(bars: pl.DataFrame, row: int, horizon_minutes: int, side: Side) -> float:
    """Excursion after the close of bar ``row``, straight from the definition (design section 3)."""
    close = float(bars["close"][row])
    window = bars.slice(row + 1, horizon_minutes)
    assert len(window) == horizon_minutes
    if side == "long":
        return max(0.0, 1.0 - float(window["low"].to_numpy().min()) / close)
    return max(0.0, float(window["high"].to_numpy().max()) / close - 1.0)


# --- the tables ---------------------------------------------------------------------------------


def test_same_arguments_give_identical_tables_and_another_seed_does_not() -> None:
    parameters = MarketParameters()
    first, second, other = (
        simulate_market(parameters, days=1, seed=seed, start=START) for seed in (5, 5, 6)
    )
    for table in TABLES:
        assert_frame_equal(getattr(first, table), getattr(second, table), check_exact=True)
        assert not getattr(first, table).equals(getattr(other, table))


@few_examples
@given(parameters=small_parameters, seed=st.integers(0, 2**40), start=starts)
def test_bars_are_canonical_and_contain_their_trades(
    parameters: MarketParameters, seed: int, start: datetime
) -> None:
    market = simulate_market(parameters, days=1, seed=seed, start=start)
    bars = market.bars
    assert bars.schema["ts"] == pl.Datetime("us", "UTC")
    assert bars["symbol"].unique(maintain_order=True).to_list() == [
        contract.symbol for contract in parameters.contracts
    ]
    for contract in parameters.contracts:
        own = bars.filter(pl.col("symbol") == contract.symbol)
        minutes = pl.datetime_range(
            start, start + timedelta(days=1), "1m", closed="left", time_unit="us", eager=True
        )
        assert own["ts"].to_list() == minutes.to_list()
        assert own["open"].to_list()[1:] == own["close"].to_list()[:-1]
        assert own["open"][0] == contract.start_price_usd
        ticks = own.select("open", "high", "low", "close").to_numpy() / contract.tick_size_usd
        assert np.abs(ticks - np.rint(ticks)).max() < 1e-5
    assert bars.null_count().sum_horizontal().item() == 0
    assert (bars["low"] > 0).all()
    assert (bars["low"] <= bars.select(pl.min_horizontal("open", "close")).to_series()).all()
    assert (bars["high"] >= bars.select(pl.max_horizontal("open", "close")).to_series()).all()

    trades = market.trades
    assert set(trades["side"].unique()) <= {"buy", "sell"}
    for own in trades.partition_by("symbol"):
        assert own["ts"].is_sorted()
    per_minute = trades.group_by("symbol", pl.col("ts").dt.truncate("1m"), maintain_order=True).agg(
        volume=pl.col("size").sum(),
        quote_volume=(pl.col("size") * pl.col("price")).sum(),
        trade_count=pl.len().cast(pl.Int64),
        taker_buy_volume=pl.col("size").filter(pl.col("side") == "buy").sum(),
    )
    columns = ["symbol", "ts", "volume", "quote_volume", "trade_count", "taker_buy_volume"]
    assert_frame_equal(per_minute, bars.select(columns), check_dtypes=False, rel_tol=1e-9)
    placed = trades.with_columns(minute=pl.col("ts").dt.truncate("1m")).join(
        bars, left_on=["symbol", "minute"], right_on=["symbol", "ts"], validate="m:1"
    )
    assert len(placed) == len(trades)
    assert (placed["price"] >= placed["low"]).all()
    assert (placed["price"] <= placed["high"]).all()


@few_examples
@given(parameters=small_parameters, seed=st.integers(0, 2**40), start=starts)
def test_books_are_ordered_uncrossed_on_the_grid_and_stamped_at_the_end_of_the_minute(
    parameters: MarketParameters, seed: int, start: datetime
) -> None:
    market = simulate_market(parameters, days=1, seed=seed, start=start)
    book = market.book
    known_at = market.bars.select("symbol", pl.col("ts") + timedelta(minutes=1))
    assert_frame_equal(book.select("symbol", "ts"), known_at)
    prices, sizes = (
        {
            side: book.select(f"{side}_{field}_{level}" for level in range(BOOK_LEVELS)).to_numpy()
            for side in ("bid", "ask")
        }
        for field in ("price", "size")
    )
    assert (np.diff(prices["bid"], axis=1) < 0.0).all()
    assert (np.diff(prices["ask"], axis=1) > 0.0).all()
    assert (prices["bid"][:, -1] > 0.0).all()
    assert (prices["bid"][:, 0] < prices["ask"][:, 0]).all()
    close = market.bars["close"].to_numpy()
    assert (prices["bid"][:, 0] <= close).all()
    assert (close <= prices["ask"][:, 0]).all()
    for side in ("bid", "ask"):
        assert np.isfinite(sizes[side]).all()
        assert (sizes[side] > 0.0).all()
        for contract in parameters.contracts:
            own = (book["symbol"] == contract.symbol).to_numpy()
            ticks = prices[side][own] / contract.tick_size_usd
            assert np.abs(ticks - np.rint(ticks)).max() < 1e-5


def test_state_stands_at_the_close_of_its_bar(market: SimulatedMarket) -> None:
    close_time = market.bars.select("symbol", pl.col("ts") + timedelta(minutes=1))
    assert_frame_equal(market.state.select("symbol", "ts"), close_time)
    assert market.state.null_count().sum_horizontal().item() == 0
    for contract in market.parameters.contracts:
        own = pl.col("symbol") == contract.symbol
        latent = np.exp(market.state.filter(own)["log_price"].to_numpy())
        close = market.bars.filter(own)["close"].to_numpy()
        # The published close is the nearest tick.
        assert np.abs(latent - close).max() <= 0.5001 * contract.tick_size_usd


def test_funding_is_paid_at_whole_eight_hours_and_follows_the_past_return() -> None:
    start = START + timedelta(hours=3, minutes=7)
    market = simulate_market(MarketParameters(), days=30, seed=3, start=start)
    funding = market.funding.filter(pl.col("symbol") == "SIM-ALT")
    assert funding["ts"].dt.hour().is_in([0, 8, 16]).all()
    assert funding["ts"].dt.minute().eq(0).all()
    # The first rate needs eight hours of history: 11:07 is too late for 08:00 and for 11:07.
    assert funding["ts"][0] == START + timedelta(hours=16)
    assert funding["ts"].diff().drop_nulls().eq(timedelta(hours=8)).all()
    bars = market.bars.filter(pl.col("symbol") == "SIM-ALT")
    closes = dict(zip(bars["ts"] + timedelta(minutes=1), bars["close"], strict=True))
    known = [ts for ts in funding["ts"] if ts - timedelta(hours=8) in closes]
    returns = [closes[ts] / closes[ts - timedelta(hours=8)] - 1.0 for ts in known]
    rates = funding.filter(pl.col("ts").is_in(known))["funding_rate"]
    assert stats.spearmanr(returns, rates).statistic > 0.5
    assert rates.abs().max() <= 0.0075  # type: ignore[operator]


def test_start_in_another_zone_is_the_same_instant() -> None:
    parameters = MarketParameters(contracts=select_contracts(["SIM-ALT"]))
    zoned = START.astimezone(timezone(timedelta(hours=9)))
    first = simulate_market(parameters, days=1, seed=1, start=START)
    second = simulate_market(parameters, days=1, seed=1, start=zoned)
    assert_frame_equal(first.bars, second.bars, check_exact=True)


def test_written_files_read_back_as_the_same_tables(tmp_path: Path) -> None:
    parameters = MarketParameters(contracts=select_contracts(["SIM-ETH", "SIM-BTC"]))
    market = simulate_market(parameters, days=1, seed=2, start=START)
    written = write_market(market, tmp_path / "market")
    write_market(market, tmp_path / "market")  # a second run replaces, and leaves nothing behind
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for table in ("bars", "book", "trades", "funding"):
        parts = [
            pl.read_parquet(tmp_path / "market" / table / f"{contract.symbol}.parquet")
            for contract in parameters.contracts
        ]
        assert_frame_equal(pl.concat(parts), getattr(market, table), check_exact=True)


def test_writing_where_a_file_stands_in_the_way_is_refused(tmp_path: Path) -> None:
    parameters = MarketParameters(contracts=select_contracts(["SIM-BTC"]))
    market = simulate_market(parameters, days=1, seed=2, start=START)
    (tmp_path / "bars").write_text("not a folder")
    with pytest.raises(InputError, match="cannot write"):
        write_market(market, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bars"]


# --- stylised facts -----------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", ["SIM-BTC", "SIM-ETH", "SIM-ALT"])
def test_returns_have_heavy_tails_and_clustered_volatility(
    market: SimulatedMarket, symbol: str
) -> None:
    bars = market.bars.filter(pl.col("symbol") == symbol)
    returns = np.log(bars["close"].to_numpy() / bars["open"].to_numpy())
    # Standard error of the kurtosis of n normals: sqrt(24 / n).
    assert stats.kurtosis(returns) > 10.0 * np.sqrt(24.0 / len(returns))
    # Ranks, so that one jump does not decide; standard error under independence 1 / sqrt(n).
    ranks = stats.rankdata(np.abs(returns))
    for lag in (1, 10, 60):
        assert np.corrcoef(ranks[:-lag], ranks[lag:])[0, 1] > 5.0 / np.sqrt(len(ranks))
    assert abs(np.corrcoef(returns[:-1], returns[1:])[0, 1]) < 0.05


def test_contracts_share_a_market_and_differ_in_volatility(market: SimulatedMarket) -> None:
    returns = {
        str(symbol): np.log(own["close"].to_numpy() / own["open"].to_numpy())
        for (symbol,), own in market.bars.partition_by("symbol", as_dict=True).items()
    }
    deviations = [returns[name].std() for name in ("SIM-BTC", "SIM-ETH", "SIM-ALT")]
    assert deviations == sorted(deviations)
    ranks = stats.spearmanr(returns["SIM-BTC"], returns["SIM-ETH"]).statistic
    assert 0.5 < ranks < 0.95


@pytest.mark.parametrize("symbol", ["SIM-BTC", "SIM-ETH", "SIM-ALT"])
def test_books_thin_out_and_trading_picks_up_when_volatility_rises(
    market: SimulatedMarket, symbol: str
) -> None:
    own = pl.col("symbol") == symbol
    book, state = market.book.filter(own), market.state.filter(own)
    assert book["ts"].equals(state["ts"])
    volatility = state["minute_volatility"]
    spread = book["ask_price_0"] / book["bid_price_0"] - 1.0
    bid_depth, ask_depth = (
        book.select(
            pl.sum_horizontal(
                pl.col(f"{side}_price_{level}") * pl.col(f"{side}_size_{level}")
                for level in range(BOOK_LEVELS)
            )
        ).to_series()
        for side in ("bid", "ask")
    )
    assert stats.spearmanr(volatility, spread).statistic > 0.4
    assert stats.spearmanr(volatility, bid_depth).statistic < -0.4
    assert stats.spearmanr(volatility, ask_depth).statistic < -0.4
    bars = market.bars.filter(own)
    trades = bars["trade_count"][1:]
    assert stats.spearmanr(volatility[:-1], trades).statistic > 0.2
    buy_share = bars["taker_buy_volume"] / bars["volume"]
    assert stats.spearmanr(buy_share, bars["close"] / bars["open"]).statistic > 0.2


def test_volatility_and_jump_rates_are_the_stated_ones_and_jumps_come_when_volatile() -> None:
    # Hardly any diffusion: a minute that moves by 1e-3 has jumped, and of jumps of mean size 1.4 %
    # a share exp(-1e-3 / 0.014) is larger than that.
    contract = replace(
        select_contracts(["SIM-ALT"])[0], annual_volatility=0.005, own_jumps_per_day=20.0
    )
    parameters = MarketParameters(
        contracts=(contract,),
        common_jumps_per_day=10.0,
        downward_jump_share=0.5,
        season_amplitude=0.0,
        weekend_log_volatility=0.0,
    )
    generator = np.random.default_rng(7)
    initial = stationary_state(parameters, (contract,), 20_000, generator)
    paths = simulate_paths(
        parameters, (contract,), initial, first_minute=0, minute_count=5, generator=generator
    )
    square = (paths.volatility[:, 0, -1] / contract.minute_volatility) ** 2
    assert abs(square.mean() - 1.0) < 3.5 * square.std() / np.sqrt(len(square))

    closes = np.concatenate([np.zeros((20_000, 1)), paths.log_moves[:, 0, :, -1]], axis=1)
    jumped = np.abs(np.diff(closes, axis=1)) > 1e-3
    counts = jumped.sum(axis=1)
    expected = 5 * 30.0 / 1440.0 * np.exp(-1e-3 / contract.jump_size)
    # Two jumps in a minute count once: a few per cent of them.
    assert abs(counts.mean() - expected) < 3.5 * counts.std() / np.sqrt(20_000) + 0.05 * expected
    stormy = paths.volatility[:, 0, 0] > np.median(paths.volatility[:, 0, 0])
    assert counts[stormy].sum() > 3 * counts[~stormy].sum()


def test_prices_are_martingales_in_spite_of_lopsided_jumps_and_leverage() -> None:
    parameters = MarketParameters(
        contracts=select_contracts(["SIM-ALT"]), common_jumps_per_day=500.0
    )
    generator = np.random.default_rng(4)
    initial = stationary_state(parameters, parameters.contracts, 20_000, generator)
    paths = simulate_paths(
        parameters,
        parameters.contracts,
        initial,
        first_minute=0,
        minute_count=10,
        generator=generator,
    )
    growth = np.exp(paths.log_moves[:, 0, -1, -1])
    assert abs(growth.mean() - 1.0) < 3.5 * growth.std() / np.sqrt(len(growth))
    assert growth.std() > 0.01


# --- the oracle ---------------------------------------------------------------------------------


def binomial_band(count: int, probability: float) -> tuple[float, float]:
    """Counts outside this band come up once in ten thousand when the probability is right."""
    return stats.binom.ppf(5e-5, count, probability), stats.binom.ppf(1 - 5e-5, count, probability)


def test_realised_coverage_at_the_oracle_is_nominal_calm_or_stormy() -> None:
    # With 999 paths the levels are whole ranks, so exceedances are exact independent Bernoulli
    # draws: non-overlapping windows, each conditional on the state at its start.
    horizon_minutes, levels = 5, (0.9, 0.99)
    parameters = MarketParameters(contracts=select_contracts(["SIM-ALT"]))
    simulated = simulate_market(parameters, days=5, seed=21, start=START)
    rows = range(0, len(simulated.bars) - horizon_minutes, horizon_minutes)
    decisions = simulated.state[list(rows)]
    oracle = true_quantile(
        parameters,
        decisions,
        horizons_minutes=[horizon_minutes],
        levels=levels,
        path_count=999,
        seed=8,
    )
    stormy = decisions["minute_volatility"].to_numpy() > decisions["minute_volatility"].median()
    for side in SIDES:
        realised = np.array(
            [realised_excursion(simulated.bars, row, horizon_minutes, side) for row in rows]
        )
        for level in levels:
            chosen = oracle.filter(pl.col("side") == side, pl.col("level") == level)
            assert chosen["ts"].equals(decisions["ts"])
            exceeded = realised > chosen["forecast"].to_numpy()
            constant = realised > np.quantile(realised, level)
            for part in (stormy, ~stormy):
                low, high = binomial_band(int(part.sum()), 1.0 - level)
                assert low <= exceeded[part].sum() <= high
                # The check has power: an unconditional quantile fails it in both halves
                # wherever there are data enough.
                assert level > 0.9 or not low <= constant[part].sum() <= high


def test_oracle_is_monotone_in_level_and_horizon_and_tail_means_lie_beyond(
    market: SimulatedMarket,
) -> None:
    decisions = market.state.gather_every(5_000)
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
    decisions = market.state.gather_every(9_000)
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
        path_count=20_000,
        seed=5,
    )
    for side in SIDES:
        found = oracle.filter(pl.col("side") == side)
        error = found["forecast"].to_numpy() - expected[side]
        assert (np.abs(error) < 3.5 * found["standard_error"].to_numpy()).all()
        assert found["forecast"].to_numpy() == pytest.approx(expected[side], rel=0.03)


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
        for seed in range(150)
    ]
    spread = np.std([answer["forecast"].item() for answer in answers], ddof=1)
    stated = np.mean([answer["standard_error"].item() for answer in answers])
    assert stated == pytest.approx(spread, rel=0.25)


def test_state_at_the_close_is_all_that_the_oracle_depends_on() -> None:
    # More volatility in the state, more margin; the rest of the row changes nothing.
    parameters = MarketParameters(contracts=select_contracts(["SIM-ETH"]))
    state = simulate_market(parameters, days=1, seed=0, start=START).state[100:101]

    def ask(decision: pl.DataFrame) -> FloatArray:
        return true_quantile(
            parameters,
            decision,
            horizons_minutes=[10],
            levels=[0.99],
            path_count=999,
            seed=0,
        )["forecast"].to_numpy()

    raised = state.with_columns(pl.col("slow_own") + np.log(2.0))
    relabelled = state.with_columns(minute_volatility=pl.lit(9.0))
    assert (ask(raised) > 1.5 * ask(state)).all()
    assert (ask(relabelled) == ask(state)).all()


# --- what is refused ----------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    parameters = MarketParameters()
    with pytest.raises(InputError, match="at least 1 day, found 0"):
        simulate_market(parameters, days=0, seed=1, start=START)
    with pytest.raises(InputError, match="seed"):
        simulate_market(parameters, days=1, seed=-1, start=START)
    with pytest.raises(InputError, match="time zone"):
        simulate_market(parameters, days=1, seed=1, start=datetime(2025, 1, 1))  # noqa: DTZ001
    with pytest.raises(InputError, match="whole minute"):
        simulate_market(parameters, days=1, seed=1, start=START + timedelta(seconds=1))
    with pytest.raises(InputError, match="did you mean 'SIM-BTC'"):
        select_contracts(["SIM-BTS"])
    with pytest.raises(InputError, match="different names"):
        MarketParameters(contracts=DEFAULT_CONTRACTS * 2)
    with pytest.raises(InputError, match="jump_size"):
        replace(DEFAULT_CONTRACTS[0], jump_size=0.7)
    coarse = replace(DEFAULT_CONTRACTS[0], tick_size_usd=100.0)
    with pytest.raises(InputError, match="smaller tick_size_usd"):
        simulate_market(MarketParameters(contracts=(coarse,)), days=1, seed=1, start=START)


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
    with pytest.raises(InputError, match="no contract 'SIM-XYZ'"):
        ask(state.with_columns(symbol=pl.lit("SIM-XYZ")))
    with pytest.raises(InputError, match="horizons"):
        ask(horizon=0)
    with pytest.raises(InputError, match="strictly between 0 and 1"):
        ask(level=99.0)
    with pytest.raises(InputError, match="take 499 or more"):
        ask(level=0.99, paths=498)
    assert len(ask(level=0.99, paths=499)) == len(SIDES)
