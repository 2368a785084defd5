"""The simulated market's tables: canonical, consistent with each other, and the same every time."""

import os
import subprocess
import sys
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
from margincast.data.simulated.book import BOOK_LEVELS
from margincast.data.simulated.market import (
    TABLES,
    SimulatedMarket,
    simulate_market,
    write_market,
)
from margincast.data.simulated.parameters import (
    DEFAULT_CONTRACTS,
    DEFAULT_LEVERAGE_CLASSES,
    MarketParameters,
    select_contracts,
)

START = datetime(2025, 1, 1, tzinfo=UTC)

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
    jump_branching=st.floats(0.0, 0.9),
    downward_jump_share=st.floats(0.0, 1.0),
    long_share=st.floats(0.0, 1.0),
    liquidation_impact=st.floats(0.0, 2.0),
)
starts = st.integers(0, 7 * 1440).map(lambda minutes: START + timedelta(minutes=minutes))
few_examples = settings(max_examples=8, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    return simulate_market(MarketParameters(), days=3, seed=11, start=START)


# --- the tables ---------------------------------------------------------------------------------


def test_same_arguments_give_identical_tables_and_another_seed_does_not() -> None:
    parameters = MarketParameters()
    first, second, other = (
        simulate_market(parameters, days=1, seed=seed, start=START) for seed in (5, 5, 6)
    )
    for table in (*TABLES, "state"):
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
    market = simulate_market(
        MarketParameters(contracts=select_contracts(["SIM-ALT"])), days=15, seed=3, start=start
    )
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
    for table in TABLES:
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


# --- open interest and liquidations -------------------------------------------------------------


def test_liquidations_are_trades_on_the_side_that_lost(market: SimulatedMarket) -> None:
    orders = market.liquidations
    assert len(orders) > 1_000
    assert (orders["size"] > 0.0).all()
    keys = ["symbol", "ts", "price", "size", "side"]
    assert orders.columns == keys
    assert orders.sort(keys).equals(orders.join(market.trades, on=keys, how="semi").sort(keys))
    for own in orders.partition_by("symbol"):
        assert own["ts"].is_sorted()
    # A minute that liquidates longs only has fallen below its open, one of shorts risen above; but
    # for those that only finish what the last orders of the minute before set off.
    minutes = (
        orders.group_by("symbol", pl.col("ts").dt.truncate("1m"))
        .agg(sells=(pl.col("side") == "sell").all(), buys=(pl.col("side") == "buy").all())
        .join(market.bars, on=["symbol", "ts"], validate="1:1")
    )
    sells, buys = minutes.filter("sells"), minutes.filter("buys")
    assert (sells["low"] < sells["open"]).mean() > 0.97
    assert (buys["high"] > buys["open"]).mean() > 0.97


def test_open_interest_falls_when_much_is_liquidated_and_never_below_what_is_hedged(
    market: SimulatedMarket,
) -> None:
    interest = market.open_interest
    assert interest.columns == ["symbol", "ts", "open_interest", "open_interest_usd"]
    steps = interest.select(pl.col("ts").diff().over("symbol").drop_nulls()).to_series()
    assert steps.unique().to_list() == [timedelta(minutes=5)]
    price = market.bars.select("symbol", "close", ts=pl.col("ts") + timedelta(minutes=1))
    joined = interest.join(price, on=["symbol", "ts"], how="left")
    assert_frame_equal(
        joined.select(pl.col("open_interest") * pl.col("close")),
        joined.select(open_interest=pl.col("open_interest_usd")),
        rel_tol=1e-4,
    )
    hedged = 1.0 - sum(each.share for each in DEFAULT_LEVERAGE_CLASSES)
    for contract in market.parameters.contracts:
        own = interest.filter(pl.col("symbol") == contract.symbol)["open_interest"]
        whole = contract.open_interest_usd / contract.start_price_usd
        assert hedged * whole < own.min() < own.max() <= 1.0001 * whole
    liquidated = market.liquidations.group_by(
        "symbol", ts=pl.col("ts").dt.truncate("5m") + timedelta(minutes=5)
    ).agg(pl.col("size").sum())
    changes = (
        interest.with_columns(change=pl.col("open_interest").diff().over("symbol"))
        .join(liquidated, on=["symbol", "ts"], how="left")
        .with_columns(pl.col("size").fill_null(0.0) / pl.col("open_interest"))
        .drop_nulls("change")
    )
    largest = changes.sort("size", descending=True).head(20)
    assert (largest["change"] < 0.0).all()
    assert (changes.filter(pl.col("size") == 0.0)["change"] > 0.0).mean() > 0.9


# --- listing and delisting ----------------------------------------------------------------------


@pytest.mark.parametrize("stale", [False, True])
def test_a_contract_trades_from_its_listing_to_its_delisting(stale: bool) -> None:
    listed, delisted = START + timedelta(hours=5), START + timedelta(hours=30, minutes=7)
    alt, btc = select_contracts(["SIM-ALT", "SIM-BTC"])
    short_lived = replace(alt, listed_at=listed, delisted_at=delisted, stale_after_delisting=stale)
    market = simulate_market(
        MarketParameters(contracts=(short_lived, btc)), days=2, seed=4, start=START
    )
    own = {
        name: frame.filter(pl.col("symbol") == "SIM-ALT") for name, frame in market.tables.items()
    }
    bars = own["bars"]
    assert bars["ts"][0] == listed
    assert bars["open"][0] == alt.start_price_usd
    alive = bars.filter(pl.col("ts") < delisted)
    assert len(alive) == 25 * 60 + 7
    assert (alive["volume"] > 0.0).all()
    after = bars.filter(pl.col("ts") >= delisted)
    if stale:
        assert after["ts"][-1] == START + timedelta(days=2) - timedelta(minutes=1)
        assert after["ts"].diff().drop_nulls().unique().to_list() == [timedelta(minutes=1)]
        assert (after["volume"] == 0.0).all()
        prices = after.select("open", "high", "low", "close").to_numpy()
        assert (prices == alive["close"][-1]).all()
    else:
        assert after.is_empty()
    for name in ("book", "trades", "open_interest", "liquidations"):
        assert listed < own[name]["ts"].min()
        assert own[name]["ts"].max() <= delisted
    # Positions are built up from nothing.
    interest = own["open_interest"]["open_interest"]
    hedged = 1.0 - sum(each.share for each in DEFAULT_LEVERAGE_CLASSES)
    assert interest[0] / (alt.open_interest_usd / alt.start_price_usd) - hedged < 0.01
    assert interest[-1] > 1.02 * interest[0]
    # The other contract's minutes are all there.
    assert len(market.bars.filter(pl.col("symbol") == "SIM-BTC")) == 2 * 1440


def test_tables_do_not_depend_on_the_number_of_threads() -> None:
    program = (
        "import hashlib\n"
        "from datetime import UTC, datetime\n"
        "from margincast.data.simulated.market import simulate_market\n"
        "from margincast.data.simulated.parameters import MarketParameters, select_contracts\n"
        "start = datetime(2025, 1, 1, tzinfo=UTC)\n"
        "contracts = select_contracts(['SIM-ALT', 'SIM-BTC'])\n"
        "market = simulate_market(\n"
        "    MarketParameters(contracts=contracts), days=1, seed=1, start=start\n"
        ")\n"
        "for frame in [*market.tables.values(), market.state]:\n"
        "    content = frame.write_ipc(None).getvalue()\n"
        "    print(hashlib.sha256(content).hexdigest(), len(frame))\n"
    )
    printed = [
        subprocess.run(  # noqa: S603  # this interpreter on the text above
            [sys.executable, "-c", program],
            env=os.environ | {"POLARS_MAX_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "3")
    ]
    assert printed[0] == printed[1] != ""


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
    with pytest.raises(InputError, match=r"jump_branching .* at most 0.95, found 1.0"):
        MarketParameters(jump_branching=1.0)
    with pytest.raises(InputError, match=r"calm_minutes .* at least 2"):
        MarketParameters(calm_minutes=1.0)
    with pytest.raises(InputError, match="a class has leverage 100"):
        MarketParameters(maintenance_margin_rate=0.01)
    with pytest.raises(InputError, match=r"leverage classes' shares .* at most 1"):
        MarketParameters(leverage_classes=DEFAULT_LEVERAGE_CLASSES * 4)
    with pytest.raises(InputError, match=r"listed_at .* whole minute"):
        replace(DEFAULT_CONTRACTS[0], listed_at=datetime(2025, 1, 1))  # noqa: DTZ001
    with pytest.raises(InputError, match=r"delisted_at .* after listed_at"):
        replace(DEFAULT_CONTRACTS[0], listed_at=START, delisted_at=START)
    never = replace(DEFAULT_CONTRACTS[0], delisted_at=START)
    with pytest.raises(InputError, match="SIM-BTC does not trade on any of the simulated days"):
        simulate_market(MarketParameters(contracts=(never,)), days=1, seed=1, start=START)
    coarse = replace(DEFAULT_CONTRACTS[0], tick_size_usd=100.0)
    with pytest.raises(InputError, match="smaller tick_size_usd"):
        simulate_market(MarketParameters(contracts=(coarse,)), days=1, seed=1, start=START)
