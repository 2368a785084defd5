"""``margincast report`` and ``backtest --policy``: a margin judged from files alone."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

TABLES = ("tests", "pooled", "power", "stress", "regimes", "procyclicality", "scores", "contracts")


class Run(NamedTuple):
    """A finished command and its folder."""

    ending: Any
    out: Path


@pytest.fixture(scope="module")
def backtested(command, workspace, small, trained, tmp_path_factory) -> Run:
    """A backtest with the demo's policy behind it, its folds fitted before."""
    out = tmp_path_factory.mktemp("backtested") / "out"
    shutil.copytree(trained.out / ".folds", out / ".folds")
    ending = command(
        "backtest", workspace / "training" / "demo.toml", "--out", out, *small,
        "--policy", workspace / "serving" / "demo.toml",
    )  # fmt: skip
    return Run(ending, out)


@pytest.fixture(scope="module")
def judged(command, market, backtested, tmp_path_factory) -> Run:
    """Its forecasts, as somebody else would hand them in."""
    out = tmp_path_factory.mktemp("judged")
    ending = command(
        "report", backtested.out / "forecasts.parquet", "--bars", market / "bars",
        "--model", "margincast", "--against", "ewma_fhs", "--against", "static", "--out", out,
    )  # fmt: skip
    return Run(ending, out)


def test_a_report_a_horizon_is_written(judged):
    ending, out = judged.ending, judged.out
    assert ending.code == 0, ending.errors
    pages = sorted(path.name for path in out.glob("*.html"))
    assert pages == ["report-10m.html", "report-30m.html"]
    for name in pages:
        page = (out / name).read_text(encoding="utf-8")
        assert "Regulatory checklist" in page
        assert "Who fails what?" in page
        assert "made elsewhere" in page
        assert "SIM-BTC by side and level" in page
        assert len(page) < 5_000_000


def test_the_figures_are_those_of_our_own_backtest(judged, backtested):
    out = judged.out
    summary = json.loads((backtested.out / "summary.json").read_text())
    for record in summary["horizons"]:
        minutes = record["horizon_minutes"]
        ours = pd.DataFrame(record["contracts"])
        theirs = pd.read_parquet(out / f"report-{minutes}m" / "contracts.parquet")
        keys = ["model", "symbol", "side", "level"]
        both = ours.merge(theirs, on=keys, suffixes=("", "_read"), validate="one_to_one")
        assert len(both) == len(ours)
        for figure in ("decisions", "exceedances", "pinball", "mean_forecast"):
            pd.testing.assert_series_equal(
                both[figure], both[f"{figure}_read"], check_names=False, check_dtype=False,
                rtol=1e-9,
            )  # fmt: skip


def test_the_evidence_can_be_read_again(judged):
    out = judged.out
    folder = out / "report-10m"
    for name in TABLES:
        assert len(pd.read_parquet(folder / f"{name}.parquet")) > 0, name
    record = json.loads((folder / "validation.json").read_text())
    assert record["subject"] == "margincast"
    assert record["reference"] == "ewma_fhs"
    assert {row["answer"] for row in record["checklist"]} <= {
        "met", "not met", "cannot tell", "not judged here",
    }  # fmt: skip
    tests = pd.read_parquet(folder / "tests.parquet")
    assert set(tests["verdict"]) <= {"pass", "fail", "no power"}
    assert len(set(tests.groupby(["symbol", "side"]).size())) == 1


def test_the_backtest_holds_the_same_evidence(judged, backtested):
    out = judged.out
    for name in ("tests", "pooled", "regimes"):
        own = pd.read_parquet(backtested.out / "report-10m" / f"{name}.parquet")
        read = pd.read_parquet(out / "report-10m" / f"{name}.parquet")
        pd.testing.assert_frame_equal(own, read)


@pytest.mark.parametrize(
    "case",
    [
        (("--model", "margincats"), "no forecast of 'margincats' (did you mean 'margincast'?)"),
        (("--model", "margincast", "--against", "nobody"), "no forecast of nobody"),
        (("--bars", "no-such-folder"), "does not exist"),
    ],
)
def test_what_is_not_there_is_named(backtested, market, command, tmp_path, case):
    options, message = case
    bars = () if "--bars" in options else ("--bars", market / "bars")
    forecasts = backtested.out / "forecasts.parquet"
    ending = command("report", forecasts, *bars, *options, "--out", tmp_path)
    assert ending.code == 2
    assert message in ending.errors
    assert not list(tmp_path.glob("*.html"))


def test_the_published_margin_is_judged_at_the_policys_horizon(backtested):
    ending, out = backtested
    assert ending.code == 0, ending.errors
    table = pd.read_parquet(out / "report-30m" / "published.parquet")
    assert not (out / "report-10m" / "published.parquet").exists()
    assert set(table["margin"]) == {"published", "base schedule", "forecast alone"}
    by_margin = table[table["tier"] == 1].set_index("margin")
    # the policy never publishes less than the base schedule
    assert by_margin["mean_margin"]["published"] >= by_margin["mean_margin"]["base schedule"]
    share = by_margin["exceedance_share"]
    assert share["published"] <= share["base schedule"]
    assert "The published margin" in (out / "report-30m.html").read_text(encoding="utf-8")


def test_a_policy_of_another_horizon_is_refused_before_the_work(
    command, workspace, small, tmp_path
):
    ending = command(
        "backtest", workspace / "training" / "demo.toml", "--out", tmp_path / "out", *small,
        "--policy", workspace / "serving" / "perp-8h.toml",
    )  # fmt: skip
    assert ending.code == 2
    assert "margins level 0.99 over 8h" in ending.errors
    assert not (tmp_path / "out" / ".folds").exists()
