"""The file of forecasts holds every forecast once, in the published schema, or does not exist."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from margincast.backtest.forecasts import SCHEMA, write_forecasts
from margincast.backtest.replay import Replay
from margincast.models.protocol import Panel, TailForecast
from margincast.training.splits import Fold

SIDES = ("long", "short")
LEVELS = (0.99, 0.995, 0.999)
FIRST, SECOND = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 2, tzinfo=UTC)


@pytest.fixture
def replayed() -> Replay:
    """Two contracts, four hours, two folds; the second model is blind in one row."""
    hours = pd.date_range(FIRST, periods=4, freq="h", unit="us")
    frame = pd.DataFrame(
        {"ts": np.repeat(hours, 2), "symbol": ["BTCUSDT", "ETHUSDT"] * 4, "close": 1.0}
    )
    unknown = np.full(8, np.nan)
    panel = Panel(
        frame, {}, {"long": unknown, "short": unknown}, unknown, hours.repeat(2).to_numpy()
    )
    every = np.ones(8, dtype=bool)
    folds = (Fold(FIRST, SECOND, every, every), Fold(SECOND, FIRST, every, every))
    quantiles = np.arange(8 * 2 * 3, dtype=float).reshape(8, 2, 3) / 1000
    blind = quantiles + 1.0
    blind[5] = np.nan
    return Replay(
        panel,
        folds,
        np.repeat([0, 1], 4),
        {
            "margincast": TailForecast(SIDES, LEVELS, quantiles, quantiles * 1.5),
            "static": TailForecast(SIDES, LEVELS, blind),
        },
    )


def test_the_schema_is_the_published_one(replayed, tmp_path):
    path = tmp_path / "forecasts.parquet"
    rows = write_forecasts(path, {480: replayed}, version="job-1234")
    assert rows == 8 * 2 * 3 * 2
    written = pq.read_schema(path)
    assert written.names == SCHEMA.names
    assert [str(field.type) for field in written] == [
        "dictionary<values=string, indices=int32, ordered=0>",
        "timestamp[us, tz=UTC]",
        "int32",
        "dictionary<values=string, indices=int32, ordered=0>",
        "double",
        "double",
        "double",
        "dictionary<values=string, indices=int32, ordered=0>",
        "dictionary<values=string, indices=int32, ordered=0>",
    ]
    assert [item.name for item in tmp_path.iterdir()] == ["forecasts.parquet"]


def test_every_number_stands_in_its_own_row(replayed, tmp_path):
    path = tmp_path / "forecasts.parquet"
    write_forecasts(path, {480: replayed}, version="job-1234")
    table = pl.read_parquet(path)
    at = {tuple(row[:5]): row[5:] for row in table.select(
        "model", "symbol", "ts", "side", "level",
        "forecast", "expected_shortfall", "model_version", "horizon_minutes",
    ).iter_rows()}  # fmt: skip
    assert len(at) == len(table)
    for model, forecast in replayed.forecasts.items():
        for n, (symbol, ts) in enumerate(
            zip(replayed.panel.frame["symbol"], replayed.panel.frame["ts"], strict=True)
        ):
            for i, side in enumerate(SIDES):
                for j, level in enumerate(LEVELS):
                    value, shortfall, version, minutes = at[
                        model, symbol, ts.to_pydatetime(), side, level
                    ]
                    expected = forecast.quantiles[n, i, j]
                    assert value == (None if np.isnan(expected) else expected)
                    if model == "margincast":
                        assert shortfall == expected * 1.5
                    else:
                        assert shortfall is None
                    assert version == f"job-1234@2024-01-01T0{0 if n < 4 else 2}:00"
                    assert minutes == 480


def test_a_forecast_that_is_not_known_is_null_and_not_nan(replayed, tmp_path):
    path = tmp_path / "forecasts.parquet"
    write_forecasts(path, {480: replayed}, version="job-1234")
    column = pl.read_parquet(path)["forecast"]
    assert column.null_count() == 2 * 3
    assert not column.is_nan().any()


def test_a_file_that_fails_half_way_leaves_the_earlier_one_as_it_was(replayed, tmp_path):
    path = tmp_path / "forecasts.parquet"
    write_forecasts(path, {480: replayed}, version="job-1234")
    before = path.read_bytes()
    replayed.forecasts["static"] = TailForecast(SIDES, LEVELS, np.zeros((3, 2, 3)))
    with pytest.raises(ValueError, match="length"):
        write_forecasts(path, {480: replayed}, version="job-1234")
    assert path.read_bytes() == before
