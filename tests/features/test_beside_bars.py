"""What stands beside a contract's bars is the contract's own, and comes from its own table."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from margincast.data.bars import read_bars
from margincast.data.states import StateTable, read_states
from margincast.features.pipeline import build_features
from margincast.features.sources import Sources
from margincast.specs.features import FeatureSet
from margincast.specs.loading import validate_spec

HOUR = timedelta(hours=1)
START = datetime(2026, 3, 2, tzinfo=UTC)
COUNT = 24
CLOSE = 50_000.0
LINES = [
    {"function": "funding_rate"},
    {"function": "log_open_interest_to_volume", "windows": ["4h"]},
    {"function": "log_open_interest_change", "windows": ["4h"]},
    {"function": "log_open_interest_usd_change", "windows": ["4h"]},
    {"function": "log_long_liquidated_usd", "windows": ["1h"]},
]


def feature_set() -> FeatureSet:
    return validate_spec(
        {
            "name": "beside",
            "description": "what stands beside bars",
            "grid": {
                "interval": "1h", "warm_up": "4h", "minimum_present": 0.5, "leader": "BTCUSDT"
            },
            "standing": {"funding": "8h", "open_interest": "2h"},
            "derivatives": LINES,
        },
        FeatureSet,
        "beside",
    )  # fmt: skip


def hours(count: int = COUNT) -> list[datetime]:
    return [START + number * HOUR for number in range(count)]


def built(folder, contract, tables, **of_bars):
    """Features of one contract, of files that are written and read: by table, symbol and rows."""
    prices = dict.fromkeys(("open", "high", "low", "close"), np.full(COUNT, CLOSE))
    prices["high"] = prices["high"] + 1
    frame = pl.DataFrame({"ts": hours(), **prices, "volume": np.full(COUNT, 10.0), **of_bars})
    frame.write_parquet(folder / f"{contract}.parquet")
    bars = read_bars(folder, [f"{contract}.parquet"], [], HOUR)
    states: dict[str, StateTable] = {}
    for table, (symbol, columns) in tables.items():
        (folder / table).mkdir()
        pl.DataFrame(columns).write_parquet(folder / table / f"{symbol}.parquet")
        states[table] = read_states(folder, [table], table)
    return build_features(feature_set(), Sources(bars, states=states)).frame


def open_interest(held: float, usd: float | None = None) -> dict[str, list]:
    growing = [1.01**number for number in range(COUNT)]
    columns = {"ts": hours(), "open_interest": [held * factor for factor in growing]}
    return columns if usd is None else columns | {"open_interest_usd": [usd * f for f in growing]}


# the last decision but one is at the time of the last row


def test_open_interest_of_the_contract_itself_is_valued_at_its_close(tmp_path):
    tables = {"open_interest": ("BTCUSDT", open_interest(8.0))}
    last = built(tmp_path, "BTCUSDT", tables).iloc[-2]
    held, traded = 8.0 * 1.01 ** (COUNT - 1), 4 * 10.0
    assert last["log_open_interest_to_volume_4h"] == pytest.approx(math.log(held / traded))
    assert last["log_open_interest_change_4h"] == pytest.approx(4 * math.log(1.01))


@pytest.mark.parametrize(
    ("contract", "symbol"),
    [
        ("BTCUSDT", "BTCUSD_PERP"),  # in contracts of 100 USD
        ("1000BONKUSDT", "BONK"),  # in coins, a thousand to the contract's
        ("BTC-USDT-SWAP", "BTC"),
    ],
)
def test_open_interest_of_another_market_counts_in_usd_alone(tmp_path, contract, symbol):
    (tmp_path / "coins").mkdir()
    tables = {"open_interest": (symbol, open_interest(5e6))}
    coins = built(tmp_path / "coins", contract, tables)
    of_open_interest = [name for name in coins.columns if "open_interest" in name]
    assert coins[of_open_interest].isna().all(axis=None)
    (tmp_path / "usd").mkdir()
    tables = {"open_interest": (symbol, open_interest(5e6, usd=1e9))}
    last = built(tmp_path / "usd", contract, tables).iloc[-2]
    held, traded = 1e9 * 1.01 ** (COUNT - 1), 4 * 10.0 * CLOSE
    assert last["log_open_interest_to_volume_4h"] == pytest.approx(math.log(held / traded))
    assert last["log_open_interest_usd_change_4h"] == pytest.approx(4 * math.log(1.01))
    assert math.isnan(last["log_open_interest_change_4h"])


def test_a_dated_future_says_nothing_of_the_perpetual(tmp_path):
    tables = {"open_interest": ("BTC-USDT-240329", open_interest(5e6, usd=1e9))}
    frame = built(tmp_path, "BTC-USDT-SWAP", tables)
    assert frame["log_open_interest_usd_change_4h"].isna().all()


def test_columns_of_bars_do_not_stand_in_for_tables(tmp_path):
    """Bars that carry a rate, known who knows when: the table's is taken, as long as it stands."""
    shadows = {"funding_rate": np.full(COUNT, 0.05), "long_liquidated_usd": np.full(COUNT, 9e9)}
    (tmp_path / "with").mkdir()
    funding = {"ts": [START], "funding_rate": [1e-4]}
    frame = built(tmp_path / "with", "BTCUSDT", {"funding": ("BTCUSDT", funding)}, **shadows)
    # decisions from the fourth close on; the rate stands for eight hours
    expected = [1e-4] * 5 + [math.nan] * (COUNT - 8)
    assert frame["funding_rate"].to_list() == pytest.approx(expected, nan_ok=True)
    assert frame["log_long_liquidated_usd_1h"].isna().all()
    (tmp_path / "without").mkdir()
    frame = built(tmp_path / "without", "BTCUSDT", {}, **shadows)
    assert frame["funding_rate"].isna().all()
