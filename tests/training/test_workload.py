"""One road from raw files to decisions: complete, repeatable, and blind to the future."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from margincast.core.errors import InputError
from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from margincast.training.workload import build_workload, data_digest, describe

WORKSPACE = Path(__file__).resolve().parents[2]
START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 3
SYMBOLS = ("SIM-BTC", "SIM-ETH")


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    parameters = MarketParameters(contracts=select_contracts(SYMBOLS))
    write_market(simulate_market(parameters, days=DAYS, seed=4, start=START), folder)
    return folder


def job_with(*overrides: str) -> TrainingJob:
    return load_spec(WORKSPACE / "training" / "demo.toml", TrainingJob, overrides)


@pytest.fixture(scope="module")
def workload(market):
    return build_workload(job_with(), WORKSPACE, market)


def test_every_contract_decides_on_the_grid_after_its_warm_up(workload):
    frame = workload.panel.frame
    first, last = START + timedelta(days=1), START + timedelta(days=DAYS)
    grid = pd.date_range(first, last, freq="5min", unit="us")
    for symbol in SYMBOLS:
        assert list(frame.loc[frame["symbol"] == symbol, "ts"]) == list(grid)
    assert list(frame.columns) == ["symbol", "ts", "close", *workload.table.units]


def test_every_outcome_is_the_excursion_after_its_decision(workload, market):
    panel = workload.panel
    assert workload.horizon_minutes == 30
    for symbol in SYMBOLS:
        bars = pl.read_parquet(market / "bars" / f"{symbol}.parquet")
        low, high, close = (bars[name].to_numpy() for name in ("low", "high", "close"))
        own = np.flatnonzero((panel.frame["symbol"] == symbol).to_numpy())
        for row in own[:: len(own) // 50]:
            # bars from this one on open at or after the decision
            k = round((panel.frame["ts"].iloc[row] - START) / timedelta(minutes=1))
            long, short = panel.outcomes["long"][row], panel.outcomes["short"][row]
            if k + 30 > len(close):
                assert np.isnan(long)
                assert np.isnan(short)
                continue
            assert panel.frame["close"].iloc[row] == close[k - 1]
            assert long == pytest.approx(max(0, 1 - low[k : k + 30].min() / close[k - 1]))
            assert short == pytest.approx(max(0, high[k : k + 30].max() / close[k - 1] - 1))
            assert panel.log_range[row] == pytest.approx(
                np.log(high[k : k + 30].max() / low[k : k + 30].min())
            )


def test_a_label_is_known_a_horizon_after_its_decision(workload):
    panel = workload.panel
    assert (panel.label_end - panel.decided == np.timedelta64(30, "m")).all()


def test_data_that_ends_earlier_gives_the_same_decisions_up_to_its_end(workload, market, tmp_path):
    end = START + timedelta(days=2, hours=7)
    for path in market.rglob("*.parquet"):
        target = tmp_path / path.parent.name / path.name
        target.parent.mkdir(exist_ok=True)
        until = pl.col("ts") < end if path.parent.name == "bars" else pl.col("ts") <= end
        pl.read_parquet(path).filter(until).write_parquet(target)
    short = build_workload(job_with(), WORKSPACE, tmp_path).panel
    before = (workload.panel.frame["ts"] <= end).to_numpy()
    longer = workload.panel.rows(before)
    pd.testing.assert_frame_equal(short.frame, longer.frame, check_exact=True)
    known = short.label_end <= np.datetime64(end.replace(tzinfo=None), "us")
    for side in ("long", "short"):
        np.testing.assert_array_equal(short.outcomes[side][known], longer.outcomes[side][known])
        assert np.isnan(short.outcomes[side][~known]).all()


def test_without_bars_the_book_gives_the_prices(market):
    made = build_workload(job_with("data.bars=[]"), WORKSPACE, market)
    frame = made.panel.frame
    assert set(frame["symbol"]) == set(SYMBOLS)
    for symbol in SYMBOLS:
        book = pl.read_parquet(market / "book" / f"{symbol}.parquet").select(
            "ts", mid=(pl.col("bid_price_0") + pl.col("ask_price_0")) / 2
        )
        mid = dict(book.iter_rows())
        own = frame[frame["symbol"] == symbol]
        assert len(own) == 2 * 288 + 1
        expected = [mid[ts] for ts in own["ts"].dt.to_pydatetime()]
        np.testing.assert_allclose(own["close"], expected, rtol=1e-12)
    assert made.panel.labelled.mean() > 0.95


def test_a_feature_set_that_needs_a_book_is_refused_without_one(market):
    with pytest.raises(InputError, match=r"has \[\[book\]\] features, but data.book names nothing"):
        build_workload(job_with("data.book=[]", "data.trades=[]"), WORKSPACE, market)


def test_the_digest_is_that_of_the_content_and_of_nothing_else(market, tmp_path):
    data = job_with().data
    digest = data_digest(data, market)
    moved = tmp_path / "moved"
    shutil.copytree(market, moved)
    assert data_digest(data, moved) == digest
    assert data_digest(job_with("data.symbols=SIM-BTC").data, market) != digest
    for table in ("bars", "book", "trades"):
        path = moved / table / "SIM-ETH.parquet"
        original = path.read_bytes()
        pl.read_parquet(path).head(-1).write_parquet(path)
        assert data_digest(data, moved) != digest
        path.write_bytes(original)
    assert data_digest(data, moved) == digest


@pytest.mark.parametrize(
    ("stride", "horizon", "overlap"), [(5, "30m", 6.0), (1, "30m", 30.0), (60, "30m", 1.0)]
)
def test_overlap_is_how_many_decisions_share_a_horizon(market, stride, horizon, overlap):
    job = job_with(f"target.stride={stride}", f"target.horizon={horizon}", "data.symbols=SIM-BTC")
    assert build_workload(job, WORKSPACE, market).overlap == overlap


def test_a_scale_column_that_is_not_built_is_answered_with_the_nearest(market):
    job = job_with("model.scale.columns=parkinson_volatility_15min")
    with pytest.raises(InputError, match=r"did you mean 'parkinson_volatility_15m'\?"):
        build_workload(job, WORKSPACE, market)


def test_the_description_says_how_much_there_is(workload):
    assert describe(workload) == (
        f"2 contracts, {2 * (2 * 288 + 1):,} decisions every 5m from 2026-01-02 to 2026-01-04, "
        f"{len(workload.table.units)} features"
    )
