"""Somebody else's forecasts: judged like ours, refused or counted where they cannot be."""

from datetime import timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

from margincast.backtest.evaluation import evaluate
from margincast.backtest.submitted import join_outcomes, models_of, read_submitted
from margincast.core.errors import InputError
from margincast.data.bars import BarTable

HOUR = timedelta(hours=1)
HOURS = 400


@pytest.fixture(scope="module")
def bars():
    rng = np.random.default_rng(1)
    frames = {}
    for symbol in ("AAA", "BBB"):
        close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, HOURS)))
        open_ = np.append(100.0, close[:-1])
        reach = rng.exponential(0.004, HOURS)
        frames[symbol] = pl.DataFrame(
            {
                "symbol": symbol,
                "ts": pl.datetime_range(
                    pl.datetime(2024, 1, 1, time_zone="UTC"),
                    pl.datetime(2024, 1, 1, time_zone="UTC") + timedelta(hours=HOURS - 1),
                    "1h",
                    time_unit="us",
                    eager=True,
                ),
                "open": open_,
                "high": np.maximum(open_, close) * (1.0 + reach),
                "low": np.minimum(open_, close) * (1.0 - reach),
                "close": close,
                "volume": 1.0,
            }
        )
    return BarTable(frames, HOUR, ())


@pytest.fixture(scope="module")
def table():
    """Two models, both contracts, sides and levels, every hour; one wide and one narrow."""
    ts = pd.date_range("2024-01-01 01:00", periods=HOURS, freq="h", tz="UTC", unit="us")
    index = pd.MultiIndex.from_product(
        [["wide", "narrow"], ts, ["AAA", "BBB"], ["long", "short"], [0.9, 0.99]],
        names=["model", "ts", "symbol", "side", "level"],
    )
    made = index.to_frame(index=False)
    width = made["model"].map({"wide": 1.0, "narrow": 0.2}).to_numpy(np.float64)
    made["forecast"] = width * np.where(made["level"] == 0.9, 0.03, 0.06)
    made["horizon_minutes"] = 240
    return made


def kept(table, path):
    table.to_parquet(path)
    return path


def test_forecasts_are_judged_on_what_followed(table, bars, tmp_path):
    submitted = join_outcomes(read_submitted(kept(table, tmp_path / "f.parquet")), bars)
    assert list(submitted.replays) == [240]
    assert submitted.spacing == HOUR
    assert models_of(submitted.replays) == ["wide", "narrow"]
    made = submitted.replays[240]
    row = int(np.flatnonzero(made.panel.frame["symbol"] == "BBB")[9])
    frame, at = bars.frames["BBB"], 9
    decided = made.panel.frame["ts"].iloc[row]
    assert decided == frame["ts"][at] + HOUR
    after = frame[at + 1 : at + 5]
    assert made.panel.outcomes["long"][row] == pytest.approx(
        max(0.0, 1.0 - after["low"].min() / frame["close"][at]), rel=1e-12
    )
    evaluation = evaluate(
        made,
        "wide",
        horizon=4 * HOUR,
        spacing=submitted.spacing,
        first_decisions=submitted.first_decisions,
        subject="narrow",
    )
    narrow, wide = (evaluation.cell(name, "both", 0.9) for name in ("narrow", "wide"))
    assert narrow.exceedance_ratio > 2.0 * wide.exceedance_ratio
    assert evaluation.scored == 2 * (HOURS - 4)


def test_the_same_table_as_csv_gives_the_same_replay(table, bars, tmp_path):
    table.to_csv(tmp_path / "f.csv", index=False)
    one = join_outcomes(read_submitted(kept(table, tmp_path / "f.parquet")), bars).replays[240]
    other = join_outcomes(read_submitted(tmp_path / "f.csv"), bars).replays[240]
    for name in one.forecasts:
        np.testing.assert_array_equal(
            one.forecasts[name].quantiles, other.forecasts[name].quantiles
        )


def test_the_order_of_rows_changes_nothing(table, bars, tmp_path):
    shuffled = table.sample(frac=1.0, random_state=1)
    one = join_outcomes(read_submitted(kept(table, tmp_path / "a.parquet")), bars).replays[240]
    other = join_outcomes(read_submitted(kept(shuffled, tmp_path / "b.parquet")), bars).replays[240]
    np.testing.assert_array_equal(
        one.forecasts["wide"].quantiles, other.forecasts["wide"].quantiles
    )


def test_only_the_models_asked_for_are_read(table, tmp_path):
    path = kept(table, tmp_path / "f.parquet")
    assert set(read_submitted(path, ["narrow"])["model"]) == {"narrow"}
    with pytest.raises(InputError, match="no forecast of other"):
        read_submitted(path, ["narrow", "other"])


def test_times_at_which_no_bar_closes_are_counted_and_not_judged(table, bars, tmp_path):
    moved = table.copy()
    late = moved["ts"] == moved["ts"].iloc[0]
    moved.loc[late, "ts"] += pd.Timedelta("7min")
    submitted = join_outcomes(read_submitted(kept(moved, tmp_path / "f.parquet")), bars)
    found = [f for f in submitted.findings if f.table == "forecasts"]
    assert [(f.symbol, f.count) for f in found] == [("AAA", 8), ("BBB", 8)]
    assert len(submitted.replays[240].panel) == 2 * (HOURS - 1)


def test_forecasts_stamped_with_the_bars_open_are_caught_where_nothing_fits(table, bars, tmp_path):
    off = table.assign(ts=table["ts"] + pd.Timedelta("30min"))
    with pytest.raises(InputError, match=r"none of .* a bar's ts is its open"):
        join_outcomes(read_submitted(kept(off, tmp_path / "f.parquet")), bars)


def test_a_decision_one_model_skipped_is_not_known_for_it(table, bars, tmp_path):
    gone = (table["model"] == "narrow") & (table["ts"] == table["ts"].iloc[0])
    made = join_outcomes(read_submitted(kept(table[~gone], tmp_path / "f.parquet")), bars)
    forecasts = made.replays[240].forecasts
    assert np.isnan(forecasts["narrow"].quantiles[:2]).all()
    assert np.isfinite(forecasts["wide"].quantiles[:2]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="side"), "no column side"),
        (lambda t: t.assign(ts=t["ts"].dt.tz_localize(None)), "without a time zone"),
        (lambda t: pd.concat([t, t.head(1)]), "2 rows forecast the same thing"),
        (lambda t: t.assign(level=99.0), "did you mean 0.99"),
        (lambda t: t.assign(level=0.01), "share not exceeded: did you mean 0.99"),
        (lambda t: t.assign(side="buy"), "side is 'buy' in row 0"),
        (lambda t: t.assign(forecast=t["forecast"] * 100), "looks like per cent"),
        (lambda t: t.assign(forecast=-t["forecast"]), "zero or more"),
        (lambda t: t.assign(forecast="much"), "holds no numbers"),
        (lambda t: t.assign(horizon_minutes=0), "whole and positive"),
        (lambda t: t.assign(horizon_minutes=np.nan), "is not known"),
        (lambda t: t.head(0), "holds no forecast"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_words(table, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        read_submitted(kept(change(table), tmp_path / "f.parquet"))


def test_a_horizon_that_is_no_whole_number_of_bars_is_refused(table, bars, tmp_path):
    path = kept(table.assign(horizon_minutes=90), tmp_path / "f.parquet")
    with pytest.raises(InputError, match="not a whole number of bars"):
        join_outcomes(read_submitted(path), bars)


def test_a_file_that_is_no_table_is_named(tmp_path):
    path = tmp_path / "f.parquet"
    path.write_text("no table")
    with pytest.raises(InputError, match="cannot be read"):
        read_submitted(path)
    with pytest.raises(InputError, match="is no file"):
        read_submitted(tmp_path / "absent.parquet")


def test_levels_of_single_precision_are_the_levels_they_were_meant_to_be(table, bars, tmp_path):
    single = table.assign(level=table["level"].astype(np.float32))
    made = join_outcomes(read_submitted(kept(single, tmp_path / "f.parquet")), bars)
    assert made.replays[240].forecasts["wide"].levels == (0.9, 0.99)


def test_small_per_cents_are_found_out_by_what_happened(table, bars, tmp_path):
    calm = table.assign(forecast=0.95)
    quiet = BarTable(
        {
            name: frame.with_columns(pl.col("high", "low", "open", "close") * 0.0 + 100.0)
            .with_columns(high=pl.lit(100.01) + pl.int_range(pl.len()) * 1e-6)
            .with_columns(low=pl.lit(99.99))
            for name, frame in bars.frames.items()
        },
        bars.interval,
        (),
    )
    with pytest.raises(InputError, match="looks like per cent"):
        join_outcomes(read_submitted(kept(calm, tmp_path / "f.parquet")), quiet)


def test_times_of_several_offsets_are_times(table, tmp_path):
    mixed = table.head(4).copy()
    mixed["ts"] = ["2024-01-01T01:00:00+00:00", "2024-01-01T03:00:00+02:00"] * 2
    mixed.to_csv(tmp_path / "f.csv", index=False)
    read = read_submitted(tmp_path / "f.csv")
    assert set(read["ts"]) == {pd.Timestamp("2024-01-01T01:00Z")}
    mixed["ts"] = "soonZ"
    mixed.to_csv(tmp_path / "g.csv", index=False)
    with pytest.raises(InputError, match="cannot be read as times"):
        read_submitted(tmp_path / "g.csv")


def test_a_model_that_lacks_a_side_somewhere_is_counted(table, bars, tmp_path):
    gone = (table["model"] == "narrow") & (table["side"] == "short") & (table["symbol"] == "BBB")
    submitted = join_outcomes(read_submitted(kept(table[~gone], tmp_path / "f.parquet")), bars)
    found = [f for f in submitted.findings if "every level and side" in f.what]
    assert [(f.symbol, f.count) for f in found] == [("narrow", HOURS)]
