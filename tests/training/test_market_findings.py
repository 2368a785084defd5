"""What is odd about a market's files is said when they are read."""

from datetime import UTC, datetime, timedelta

import polars as pl

from margincast.data.quality import found
from margincast.specs.features import FeatureSet
from margincast.specs.loading import validate_spec
from margincast.specs.training import Data
from margincast.training.market import read_market

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
FUNDING = validate_spec(
    {
        "name": "funding",
        "description": "the rate",
        "grid": {"interval": "1h", "warm_up": "2h", "minimum_present": 0.5, "leader": "BTCUSDT"},
        "standing": {"funding": "8h"},
        "derivatives": [{"function": "funding_rate"}],
    },
    FeatureSet,
    "funding",
)


def test_rows_of_another_market_and_columns_that_hide_a_table_are_warned_of(tmp_path):
    ts = [START + number * HOUR for number in range(6)]
    prices = {"open": 100.0, "high": 101.0, "low": 99.0, "close": 100.0, "volume": 5.0}
    bars = pl.DataFrame({"ts": ts}).with_columns(
        pl.lit(value).alias(n) for n, value in prices.items()
    )
    (tmp_path / "bars").mkdir()
    bars.with_columns(funding_rate=0.05).write_parquet(tmp_path / "bars" / "BTCUSDT.parquet")
    (tmp_path / "funding").mkdir()
    rates = pl.DataFrame({"ts": ts[:1], "funding_rate": [1e-4]})
    rates.write_parquet(tmp_path / "funding" / "BTC-USD.parquet")
    market = read_market(Data(bars=("bars",), funding=("funding",)), FUNDING, tmp_path)
    warned = {one.what: one for one in found(market.findings) if one.severity == "warning"}
    assert set(warned) == {
        "bars with the column funding_rate",
        "contracts with another market's rows (BTCUSDT: BTC-USD)",
    }
