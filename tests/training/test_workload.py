"""One road from raw files to decisions: complete, repeatable, and blind to the future."""

import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from margincast.core.errors import InputError
from margincast.data.quality import found
from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.features.contract import states_of
from margincast.features.pipeline import build_features
from margincast.features.tables import columns_of_leader, without_tables
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec, validate_spec
from margincast.specs.training import TrainingJob
from margincast.training.market import data_digest, read_market
from margincast.training.workload import build_workload, describe

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
    frame = workload.frame
    first, last = START + timedelta(days=1), START + timedelta(days=DAYS)
    grid = pd.date_range(first, last, freq="5min", unit="us")
    for symbol in SYMBOLS:
        assert list(frame.loc[frame["symbol"] == symbol, "ts"]) == list(grid)
    assert list(frame.columns) == ["symbol", "ts", "close", *workload.table.units]


def test_every_outcome_is_the_excursion_after_its_decision(workload, market):
    panel = workload.panels[30]
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
    panel = workload.panels[30]
    assert (panel.label_end - panel.decided == np.timedelta64(30, "m")).all()


def test_data_that_ends_earlier_gives_the_same_decisions_up_to_its_end(workload, market, tmp_path):
    end = START + timedelta(days=2, hours=7)
    for path in market.rglob("*.parquet"):
        target = tmp_path / path.parent.name / path.name
        target.parent.mkdir(exist_ok=True)
        until = pl.col("ts") < end if path.parent.name == "bars" else pl.col("ts") <= end
        pl.read_parquet(path).filter(until).write_parquet(target)
    short = build_workload(job_with(), WORKSPACE, tmp_path).panels[30]
    before = (workload.frame["ts"] <= end).to_numpy()
    longer = workload.panels[30].rows(before)
    pd.testing.assert_frame_equal(short.frame, longer.frame, check_exact=True)
    known = short.label_end <= np.datetime64(end.replace(tzinfo=None), "us")
    for side in ("long", "short"):
        np.testing.assert_array_equal(short.outcomes[side][known], longer.outcomes[side][known])
        assert np.isnan(short.outcomes[side][~known]).all()


def test_without_bars_the_book_gives_the_prices(market):
    made = build_workload(job_with("data.bars=[]"), WORKSPACE, market)
    frame = made.frame
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
    assert made.panels[30].labelled.mean() > 0.95


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


# --- what is read ---------------------------------------------------------------------------------


def test_books_and_trades_of_contracts_without_bars_are_not_read(market, tmp_path):
    """Neither mended nor digested: what is wrong with them stops nobody who does not use them."""
    moved = tmp_path / "moved"
    shutil.copytree(market, moved)
    (moved / "bars" / "SIM-ETH.parquet").unlink()
    broken = pl.DataFrame({"ts": [START], "price": [-1.0]})
    for table in ("book", "trades"):
        for name in ("SIM-ETH", "OTHER"):
            broken.write_parquet(moved / table / f"{name}.parquet")
    data = job_with().data
    feature_set = load_spec(WORKSPACE / "features" / "demo-1m.toml", FeatureSet)
    read = read_market(data, feature_set, moved)
    sources = read.sources
    assert sources.books is not None
    assert sources.trades is not None
    assert [*sources.books.frames] == [*sources.trades.frames] == [*sources.bars.frames]
    assert [*sources.bars.frames] == ["SIM-BTC"]
    unread = [finding for finding in read.findings if "without bars" in finding.what]
    assert [finding.table for finding in unread] == ["book", "trades"]
    for finding in unread:
        assert finding.what == "contracts without bars (OTHER, SIM-ETH)"
        assert (finding.count, finding.total, finding.action) == (2, 3, "not read")
    assert data_digest(data, moved) == read.digest
    broken.with_columns(price=-2.0).write_parquet(moved / "book" / "OTHER.parquet")
    assert data_digest(data, moved) == read.digest


def test_a_book_of_no_contract_that_is_decided_on_is_refused(market, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(market, moved)
    for path in sorted((moved / "book").iterdir()):
        path.rename(path.with_name(f"OTHER-{path.name}"))
    for path in sorted((moved / "book").iterdir()):
        pl.read_parquet(path).drop("symbol", strict=False).write_parquet(path)
    with pytest.raises(InputError, match=r"data\.book holds nothing of .*\(SIM-BTC, SIM-ETH\)"):
        build_workload(job_with(), WORKSPACE, moved)


def test_a_leader_without_bars_is_refused_where_it_is_read(market):
    names = ("leader_log_return_5m", "beta_to_leader_log_return_5m_1h", "atm_volatility_30d")
    lines = {
        "market": [
            {"function": "leader", "columns": ["log_return_5m"]},
            {"function": "market_median", "columns": ["log_return_5m"]},
            {"function": "beta_to_leader", "columns": ["log_return_5m"], "windows": ["1h"]},
        ],
        "options": [{"function": "atm_volatility", "windows": ["30d"]}],
    }
    data = job_with("data.book=[]", "data.trades=[]").data
    for kept in ({"market": lines["market"][:1]}, {"market": lines["market"]}, lines):
        wanted = with_states(**kept).model_copy(
            update={"grid": with_states().grid.model_copy(update={"leader": "SIM-BTCUSD"})}
        )
        reading = read_market(data, wanted, market, require_all=False)
        warned = [
            finding for finding in build_features(wanted, reading.sources).findings
            if finding.symbol == "SIM-BTCUSD"
        ]  # fmt: skip
        assert [finding.severity for finding in warned] == ["warning"]
        refused = r"grid\.leader SIM-BTCUSD has no bars \(did you mean 'SIM-BTC'\?\)"
        if "options" not in kept:
            with pytest.raises(InputError, match=refused):
                read_market(data, wanted, market)
        assert set(columns_of_leader(wanted)) <= set(names)
        assert warned[0].count == len(columns_of_leader(wanted)) > 0
    unread = with_states(market=lines["market"][1:2]).model_copy(update={"grid": wanted.grid})
    assert columns_of_leader(unread) == []
    assert read_market(data, unread, market).bars.frames


def test_reading_a_market_loads_no_model():
    program = (
        "import sys, margincast.training.market, margincast.jobs.features\n"
        "print([name for name in sys.modules if name.startswith(('margincast.models', 'lightgbm',"
        " 'sklearn', 'scipy.stats', 'scipy.signal', 'mlflow', 'optuna', 'matplotlib'))])"
    )
    done = subprocess.run(  # noqa: S603  # this interpreter, and a program written here
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --- funding, open interest, liquidations, implied volatility -------------------------------------


def with_states(**sections: object) -> FeatureSet:
    """The demo's feature set with lines over states in place of books and trades."""
    raw = tomllib.loads((WORKSPACE / "features" / "demo-1m.toml").read_text())
    kept = {name: raw[name] for name in ("name", "description", "grid", "bars")}
    standing = {"funding": "9h", "open_interest": "1d"}
    return validate_spec(kept | {"standing": standing} | sections, FeatureSet, "test")


FUNDING = with_states(derivatives=[{"function": "funding_rate"}])


def write_funding(folder: Path, *names: str) -> Path:
    folder.mkdir()
    ts = [START + hours * timedelta(hours=8) for hours in range(3 * DAYS)]
    for name in names:
        rates = [1e-4 * number for number in range(len(ts))]
        pl.DataFrame({"ts": ts, "funding_rate": rates}).write_parquet(folder / f"{name}.parquet")
    return folder


def test_funding_stands_beside_every_decision_from_the_time_it_was_known(market, tmp_path):
    folder = write_funding(tmp_path / "funding", "SIM-BTC")
    data = job_with(f"data.funding={folder}").data
    read = read_market(data, FUNDING, market)
    frame = build_features(FUNDING, read.sources).frame
    bitcoin = frame[frame["symbol"] == "SIM-BTC"]
    eighths = (bitcoin["ts"] - pd.Timestamp(START)) // pd.Timedelta(hours=8)
    np.testing.assert_allclose(bitcoin["funding_rate"], 1e-4 * np.minimum(eighths, 3 * DAYS - 1))
    assert frame.loc[frame["symbol"] == "SIM-ETH", "funding_rate"].isna().all()
    (without,) = [finding for finding in found(read.findings) if finding.table == "funding"]
    assert (without.what, without.count, without.total) == (
        "contracts without rows (SIM-ETH)", 1, 2,
    )  # fmt: skip


def test_states_are_not_picked_by_the_names_of_contracts(market, tmp_path):
    """A table of underlyings has other names, and data.symbols must not ask for them there."""
    folder = write_funding(tmp_path / "funding", "SIM-BTC", "OTHER")
    data = job_with(f"data.funding={folder}", "data.symbols=SIM-BTC").data
    read = read_market(data, FUNDING, market)
    assert set(read.sources.states["funding"].frames) == {"SIM-BTC", "OTHER"}
    before = data_digest(data, market)
    (folder / "OTHER.parquet").unlink()
    assert data_digest(data, market) != before == read.digest


@pytest.mark.parametrize(
    ("section", "function", "table"),
    [
        ("derivatives", {"function": "funding_rate"}, "funding"),
        ("derivatives", {"function": "log_open_interest_change", "windows": ["1h"]},
         "open_interest"),
        ("derivatives", {"function": "liquidation_imbalance", "windows": ["1h"]}, "liquidations"),
        ("implied_vol", {"function": "implied_volatility", "windows": ["1h"]}, "implied_vol"),
        ("options", {"function": "atm_volatility", "windows": ["30d"]}, "options"),
    ],
)  # fmt: skip
def test_a_section_whose_table_is_not_named_is_refused(market, section, function, table):
    wanted = with_states(**{section: [function]})
    message = rf"has \[\[{section}\]\] features, but data.{table} names nothing to read"
    with pytest.raises(InputError, match=message):
        read_market(job_with().data, wanted, market)


MIXED = {
    "bars": [{"function": "log_return", "windows": ["5m"]}],
    "derivatives": [{"function": "funding_rate"}, {"function": "mark_basis"}],
    "implied_vol": [{"function": "implied_volatility", "windows": ["5m"]}],
    "market": [
        {"function": "leader", "columns": ["log_return_5m", "funding_rate"]},
        {"function": "market_median", "columns": ["funding_rate"]},
        {
            "function": "breadth_of_large_moves",
            "columns": ["log_return_5m", "implied_volatility_5m"],
        },
    ],
}


def test_lines_that_read_missing_tables_are_left_out_with_what_reads_them():
    whole = with_states(**MIXED)
    assert without_tables(whole, ()) == whole
    left = without_tables(whole, {"funding", "implied_vol"})
    kept = MIXED | {
        "derivatives": [{"function": "mark_basis"}],
        "implied_vol": [],
        "market": [{"function": "leader", "columns": ["log_return_5m"]}],
    }
    assert left == with_states(**kept)
    assert left.digest() != whole.digest()


@pytest.mark.parametrize("named", [(), ("data.implied_vol=implied_vol/nowhere.parquet",)])
def test_a_job_without_an_index_of_volatility_says_so_and_goes_on(market, tmp_path, named):
    workspace = tmp_path / "workspace"
    shutil.copytree(WORKSPACE / "features", workspace / "features")
    spec = workspace / "features" / "demo-1m.toml"
    more = '[standing]\nimplied_vol = "1d"\n[[implied_vol]]\nfunction = "implied_volatility"\n'
    spec.write_text(spec.read_text() + more + 'windows = ["5m"]\n')
    made = build_workload(job_with(*named), workspace, market)
    assert not made.feature_set.implied_vol
    assert "implied_volatility_5m" not in made.table.units
    (absent,) = [one for one in found(made.findings) if one.severity == "warning"]
    assert (absent.table, absent.symbol, absent.count) == ("features", "implied_vol", 1)
    assert absent.action == "columns that read it are left out of the set"


def test_marks_and_indices_are_columns_of_bars_and_need_no_table(market):
    wanted = with_states(derivatives=[{"function": "mark_basis"}])
    assert not read_market(job_with().data, wanted, market).sources.states


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("vendor_vol_1h", "says no asset by its name, and is the only one in data.implied_vol"),
        ("ETH", "none of ETH is on SIM-BTC, the leader's asset"),
        ("SIM-BTC", None),
    ],
)
def test_an_index_whose_name_says_no_asset_is_the_leaders_and_reported(
    market, tmp_path, name, what
):
    ts = [START + hours * timedelta(hours=1) for hours in range(24 * DAYS)]
    ohlc = {part: [60.0] * len(ts) for part in ("open", "high", "low", "close")}
    pl.DataFrame({"ts": ts, **ohlc}).write_parquet(tmp_path / f"{name}.parquet")
    data = job_with(f"data.implied_vol={tmp_path}").data
    reading = with_states(implied_vol=[{"function": "implied_volatility", "windows": ["1h"]}])
    read = read_market(data, reading, market)
    of_index = [finding for finding in found(read.findings) if finding.table == "implied_vol"]
    assert [finding.what for finding in of_index] == ([] if what is None else [what])
    states = states_of(read.sources.states, "SIM-BTC")
    assert ("implied_vol" in states) == (name != "ETH")


@pytest.mark.parametrize(
    ("stride", "overlaps"), [(5, (6.0, 12.0)), (1, (30.0, 60.0)), (60, (1.0, 1.0))]
)
def test_overlap_is_how_many_decisions_share_a_horizon(market, stride, overlaps):
    job = job_with(f"target.stride={stride}", "target.horizons=[30m, 60m]", "data.symbols=SIM-BTC")
    made = build_workload(job, WORKSPACE, market)
    assert tuple(map(made.overlap, made.panels)) == overlaps


def test_several_horizons_share_decisions_and_differ_in_what_followed(workload, market):
    made = build_workload(job_with("target.horizons=[10m, 30m, 2h]"), WORKSPACE, market)
    assert list(made.panels) == [10, 30, 120]
    alone, short, long = workload.panels[30], made.panels[10], made.panels[120]
    assert all(panel.frame is made.frame for panel in made.panels.values())
    pd.testing.assert_frame_equal(made.frame, alone.frame, check_exact=True)
    np.testing.assert_array_equal(made.panels[30].label_end, alone.label_end)
    for side in ("long", "short"):
        np.testing.assert_array_equal(made.panels[30].outcomes[side], alone.outcomes[side])
        both = long.labelled
        # an excursion cannot shrink when there is more time
        assert (short.outcomes[side][both] <= alone.outcomes[side][both]).all()
        assert (alone.outcomes[side][both] <= long.outcomes[side][both]).all()
    assert long.labelled.sum() < alone.labelled.sum() < short.labelled.sum()
    counted = {
        finding.what: finding.count
        for finding in made.findings
        if finding.what.startswith("no outcome")
    }
    assert counted == {
        f"no outcome yet, or window too gappy, {horizon} horizon": int((~panel.labelled).sum())
        for horizon, panel in zip(("10m", "30m", "2h"), made.panels.values(), strict=True)
    }


def test_a_scale_column_that_is_not_built_is_answered_with_the_nearest(market):
    job = job_with("model.scale.columns=parkinson_volatility_15min")
    with pytest.raises(InputError, match=r"did you mean 'parkinson_volatility_15m'\?"):
        build_workload(job, WORKSPACE, market)


def test_the_description_says_how_much_there_is(workload):
    assert describe(workload) == (
        f"2 contracts, {2 * (2 * 288 + 1):,} decisions every 5m from 2026-01-02 to 2026-01-04, "
        f"{len(workload.table.units)} features"
    )
