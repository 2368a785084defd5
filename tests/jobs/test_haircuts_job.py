"""Haircuts from a table of forecasts: what is written, and what falls back with its reason."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from margincast.core.errors import InputError, SpecError
from margincast.jobs import account_inputs, haircuts
from margincast.specs.collateral import CollateralPolicy
from margincast.specs.loading import load_spec

SPEC = Path(__file__).resolve().parents[2] / "serving" / "collateral" / "perpetuals.toml"
AT = pd.Timestamp("2024-03-01T08:00", tz="UTC")


def table(rows=(("BTCUSDT", 0.04, 0.08), ("ETHUSDT", 0.05, 0.1)), at=AT):
    return pd.DataFrame(
        [
            (symbol, at - pd.Timedelta(hours=age), 480, "long", level, forecast * (1 + age))
            for symbol, low, high in rows
            for age in (0, 1)
            for level, forecast in ((0.99, low), (0.999, high))
        ],
        columns=["symbol", "ts", "horizon_minutes", "side", "level", "forecast"],
    )


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """A hundred days in which BTC falls by 10 % over 8 hours now and then."""
    folder = tmp_path_factory.mktemp("bars")
    hours, start = 2400, datetime(2023, 11, 20, 0, tzinfo=UTC)
    price = np.where(np.arange(hours) % 500 < 8, 90.0, 100.0)
    frame = pl.DataFrame(
        {
            "ts": pl.datetime_range(
                start, start + timedelta(hours=hours - 1), "1h", time_unit="us", eager=True
            ),
            **dict.fromkeys(("open", "high", "low", "close"), price),
            "volume": np.arange(1.0, hours + 1.0),
        }
    )
    for symbol in ("BTCUSDT", "ETHUSDT"):
        frame.write_parquet(folder / f"{symbol}.parquet")
    return folder


@pytest.fixture
def made(tmp_path, bars):
    def run(forecasts=None, *overrides, at=None, with_bars=True):
        path = tmp_path / "forecasts.parquet"
        (table() if forecasts is None else forecasts).to_parquet(path)
        return haircuts.run(
            SPEC, path, [str(bars)] if with_bars else [], tmp_path, at=at, overrides=overrides
        ).set_index("asset")

    return run


def test_haircuts_by_hand(made):
    found = made(None, "long_run.floor=0.0")
    # 1 - 0.96 x 0.999 = 4.096 %; own: the ratio of 2 a tenfold step continues to 0.01 %: 16 %, and
    # 1 - 0.84 x 0.999 = 16.084 %; other, chi = 0.6: 0.04 x 2 ** log10(60) = 13.72, with cost 13.81
    assert found.loc["BTC", ["haircut", "own_haircut", "other_haircut"]].tolist() == [
        0.045,
        0.165,
        0.14,
    ]
    assert found.loc["BTC", "binding_rule"] == "forecast"
    assert found.loc["BTC", "reason"].startswith("0.99 quantile of the fall of BTCUSDT over 8h")
    assert found.loc["BTC", "data_as_of"] == AT
    assert found.loc[["USDC", "USDT"], "haircut"].tolist() == [0.05, 0.05]
    assert found.loc["USDT", "reason"] == "raised to the depeg floor of USDT"
    steps = found.loc["BTC", [name for name in found if name.startswith("step_")]].tolist()
    assert steps == pytest.approx([0.04, 0.04096, 0.04096, 0.04096, 0.04096, 0.04096, 0.045])


def test_history_is_a_floor(made):
    found = made()
    # eight decisions before each of the falls, more than one in a hundred: the quantile is 10 %
    assert found.loc["BTC", "long_run_rate"] == pytest.approx(0.1)
    assert found.loc["BTC", ["haircut", "binding_rule"]].tolist() == [0.09, "long-run floor"]


def test_the_written_table_is_what_an_account_reads(made, tmp_path):
    found = made()
    read = account_inputs.read_haircuts(tmp_path / "haircuts.parquet")
    assert read["BTC"].own_haircut == found.loc["BTC", "own_haircut"]
    assert (read["BTC"].contract, read["USDT"].contract) == ("BTCUSDT", None)


@pytest.mark.parametrize(
    ("forecasts", "at", "said"),
    [
        (table(at=AT - pd.Timedelta(hours=3)), AT.isoformat(), "is stale: allowed age 2h"),
        (table([("BTCUSD", 0.04, 0.08)]), None, "did you mean 'BTCUSD'"),
        (table().query("level < 0.999"), None, "over 8h at 0.999"),
        (
            table().assign(horizon_minutes=60),
            None,
            "no forecast of the long side of BTCUSDT over 8h",
        ),
        (table([("BTCUSDT", 0.08, 0.04)]), None, "forecasts 0.08 and 0.04 are not rising fract"),
        (table(), "2024-03-01T06:00", "no forecast of BTCUSDT by 2024-03-01 06:00"),
    ],
)
def test_what_cannot_be_forecast_falls_back_with_the_reason(made, forecasts, at, said):
    found = made(forecasts, at=at)
    assert found.loc["BTC", ["status", "haircut"]].tolist() == ["fallback", 0.25]
    assert said in found.loc["BTC", "reason"]
    assert found.loc["USDT", "status"] == "ok"


def test_forecasts_after_the_moment_are_not_used(made):
    found = made(None, "long_run.floor=0.0", at="2024-03-01T07:30")
    assert found.loc["BTC", "forecast"] == 0.08


def test_history_needs_bars(made):
    with pytest.raises(InputError, match="give the contracts' bars with --bars"):
        made(with_bars=False)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("forecast.tail_level=0.98", "tail_level must lie above level"),
        ("limits.floor=0.96", "floor must not lie above cap"),
        ("limits.cap=0.951", "cap must be a multiple of step"),
        ("limits.cap=0.2", "'ETH': 0.3 lies above limits.cap"),
        ('assets=[{asset="X"}]', "neither a market nor a depeg_floor"),
        ('assets=[{asset="X", depeg_floor=0.1}, {asset="X", depeg_floor=0.1}]', "'X' stands twice"),
    ],
)
def test_contradictory_policies_are_refused(override, said):
    with pytest.raises(SpecError, match=said):
        load_spec(SPEC, CollateralPolicy, [override])
