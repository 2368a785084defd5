"""The shipped specs on real markets: what is known to have happened shows in the targets."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from margincast.data.bars import read_bars
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from margincast.training.workload import Workload, build_workload

HOURLY = ("bars/binance_perp_1h", "bars/binance_alts_1h")
CONTRACTS = 'data.symbols=["BTCUSDT", "FTTUSDT"]'
LAST_FTT_TRADE = datetime(2022, 11, 14, 5, tzinfo=UTC)
"""Close of the last FTTUSDT bar with volume; 18,691 stale bars follow."""


@pytest.fixture(scope="module")
def workload(shared_data, workspace) -> Workload:
    """Perp-8h on the contract that every crash hit and the one that was delisted."""
    job = load_spec(workspace / "training" / "perp-8h.toml", TrainingJob, [CONTRACTS])
    return build_workload(job, workspace, shared_data / "data")


def decision(workload: Workload, symbol: str, ts: str) -> tuple[float, float, float]:
    """Decision price, long and short excursion of one decision."""
    frame = workload.frame
    at = (frame["symbol"] == symbol) & (frame["ts"] == pd.Timestamp(ts, tz="UTC"))
    row = int(np.flatnonzero(at)[0])
    outcomes = workload.panels[480].outcomes
    return frame["close"].iloc[row], outcomes["long"][row], outcomes["short"][row]


def test_the_low_of_march_2020_is_in_the_targets(workload):
    # 3,621.81 in the bar of 02:00, so decisions from 19:00 of the day before to 02:00 meet it
    for ts in ("2020-03-12 20:00", "2020-03-13 00:00", "2020-03-13 02:00"):
        price, long, _ = decision(workload, "BTCUSDT", ts)
        assert price * (1 - long) == pytest.approx(3621.81)
    price, long, _ = decision(workload, "BTCUSDT", "2020-03-13 03:00")
    assert price * (1 - long) > 3621.81
    assert decision(workload, "BTCUSDT", "2020-03-12 20:00")[1] == pytest.approx(0.3998, abs=1e-4)


def test_the_crash_of_may_2021_is_in_the_targets(workload, shared_data):
    day = pl.col("ts").dt.date() == datetime(2021, 5, 19, tzinfo=UTC).date()
    bars = pl.read_parquet(shared_data / "data" / HOURLY[0] / "BTCUSDT.parquet").filter(day)
    assert bars["low"].min() / bars["high"].max() - 1 == pytest.approx(-0.34, abs=0.005)
    price, long, _ = decision(workload, "BTCUSDT", "2021-05-19 09:00")
    assert price * (1 - long) == pytest.approx(bars["low"].min())
    assert long == pytest.approx(0.2915, abs=1e-4)


def test_the_crash_of_august_2024_is_in_the_targets(workload):
    price, long, short = decision(workload, "BTCUSDT", "2024-08-05 00:00")
    assert price * (1 - long) == pytest.approx(49_000, rel=0.003)
    assert long == pytest.approx(0.159, abs=1e-3)
    assert short < 0.01


def test_the_collapse_of_ftt_is_in_the_targets_of_both_sides(workload):
    opened = decision(workload, "FTTUSDT", "2022-11-08 00:00")[0]
    closed = decision(workload, "FTTUSDT", "2022-11-09 00:00")[0]
    assert closed / opened - 1 == pytest.approx(-0.75, abs=0.005)
    assert decision(workload, "FTTUSDT", "2022-11-08 17:00")[1] == pytest.approx(0.8606, abs=1e-4)
    assert decision(workload, "FTTUSDT", "2022-11-08 16:00")[2] == pytest.approx(0.53, abs=1e-3)


def test_a_delisted_contract_has_neither_features_nor_targets(workload):
    frame = workload.frame
    own = (frame["symbol"] == "FTTUSDT").to_numpy()
    assert frame.loc[own, "ts"].max() == LAST_FTT_TRADE
    features = workload.table.frame
    assert features.loc[features["symbol"] == "FTTUSDT", "ts"].max() == LAST_FTT_TRADE
    labelled = frame.loc[own & workload.panels[480].labelled, "ts"]
    # eight hours of living bars must follow
    assert labelled.max() == LAST_FTT_TRADE - timedelta(hours=8)
    stale = next(
        finding
        for finding in workload.findings
        if finding.symbol == "FTTUSDT" and finding.what.startswith("stale bars")
    )
    assert stale.count == 18_691
    assert stale.first == LAST_FTT_TRADE


def test_two_markets_named_adausdt_are_told_apart(shared_data):
    names = ("ADAUSDT", "ADAUSDT@binance_alts_1h")
    table = read_bars(shared_data / "data", HOURLY, names, timedelta(hours=1))
    perpetual, spot = (table.frames[name] for name in names)
    assert perpetual["ts"].min() < datetime(2020, 6, 1, tzinfo=UTC)
    assert spot["ts"].min() == datetime(2022, 5, 25, 15, tzinfo=UTC)
    both = perpetual.join(spot, on="ts", suffix="_spot")
    assert len(both) == len(spot)
    assert (both["close"] != both["close_spot"]).mean() > 0.5
    assert ((both["close"] / both["close_spot"] - 1).abs() < 0.05).all()
    assert [finding.symbol for finding in table.findings if "same name" in finding.what] == [
        "ADAUSDT@binance_alts_1h"
    ]


def test_perp_8h_runs_on_a_crash_with_finite_figures(command, workspace, shared_data, tmp_path):
    settings = (
        'data.symbols=["BTCUSDT", "ETHUSDT", "FTTUSDT"]',
        "backtest.start=2022-11-01",
        "backtest.end=2022-11-20",
        "model.window=2y",
        "model.head.rounds=10",
        'backtest.peers=["static", "ewma_fhs"]',
    )
    out = tmp_path / "out"
    ending = command(
        "backtest", workspace / "training" / "perp-8h.toml", "--data", shared_data / "data",
        "--out", out, *(part for text in settings for part in ("--set", text)),
    )  # fmt: skip
    assert ending.code == 0, ending.errors
    assert "FTTUSDT: 18,691 of 23,805 bars rows: stale bars" in ending.errors
    forecasts = pl.read_parquet(out / "forecasts.parquet")
    assert forecasts["forecast"].is_finite().all()
    assert forecasts["forecast"].is_between(0, 5).all()
    last = forecasts.group_by(pl.col("symbol").cast(pl.String)).agg(pl.col("ts").max())
    assert dict(last.iter_rows()) == {
        "BTCUSDT": datetime(2022, 11, 20, 23, tzinfo=UTC),
        "ETHUSDT": datetime(2022, 11, 20, 23, tzinfo=UTC),
        "FTTUSDT": LAST_FTT_TRADE,
    }
    summary = json.loads((out / "summary.json").read_text())
    for cell in summary["cells"]:
        for name in ("pinball", "pinball_ratio", "exceedance_ratio", "mean_forecast"):
            assert np.isfinite(cell[name])
    ours = next(model for model in summary["models"] if model["model"] == "margincast")
    static = next(model for model in summary["models"] if model["model"] == "static")
    assert ours["crossings"] == 0
    # a margin that saw the volatility rise lost less than one that never moves
    assert ours["pinball_ratio"] < static["pinball_ratio"]


def test_book_features_are_built_from_a_real_feed(command, workspace, shared_data, tmp_path):
    out = tmp_path / "out"
    settings = (
        "data.book=book/standx_BTC-USD_book20_1s.parquet",
        "data.trades=trades/standx_BTC-USD_trades.parquet",
        "data.book_known_after=1s",
    )
    ending = command(
        "features", "build", workspace / "features" / "book-1m.toml",
        "--data", shared_data / "data", "--out", out,
        *(part for text in settings for part in ("--set", text)),
    )  # fmt: skip
    assert ending.code == 0, ending.errors
    features = pl.read_parquet(out / "features.parquet")
    assert features["symbol"].unique().to_list() == ["BTC-USD"]
    assert features["ts"].is_sorted()
    assert features["ts"].dt.second().max() == 0
    # two days of minutes, less the hour of warm-up and the feed's own gap
    assert 2 * 1440 < len(features) < 2 * 1440 + 66
    record = json.loads((out / "features.json").read_text())
    spread = next(name for name in record["units"] if name.startswith("relative_spread"))
    assert features[spread].is_between(0, 0.01).mean() > 0.95
    locked = next(f for f in record["findings"] if f["what"].startswith("locked"))
    assert locked["count"] / locked["total"] == pytest.approx(0.46, abs=0.01)


def test_every_shipped_spec_finds_its_feature_set_and_schedule(workspace: Path):
    for path in (workspace / "training").glob("*.toml"):
        job = load_spec(path, TrainingJob)
        assert (workspace / job.features.set).is_file()
