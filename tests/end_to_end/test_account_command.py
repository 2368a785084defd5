"""From the champion to one account: score, haircuts, account."""

import json

import pandas as pd
import pytest

OPEN_INTEREST = (
    'open_interest={max_age="2h", unknown_share=0.5, '
    'days={lower_cap_days=0.0, upper_cap_days=1e3, window="5d"}}'
)
ASSETS = (
    'assets=[{asset="BTC", market={contract="SIM-BTC", horizon="30m", cost_bps=10.0, '
    'joint_tail=0.6, fallback=0.25}}, {asset="USDT", depeg_floor=0.05}]'
)


def test_scores_haircuts_and_an_account(command, workspace, market, trained, tmp_path):
    assert trained.ending.code == 0, trained.ending.errors
    out = tmp_path / "out"
    scored = command(
        "score", workspace / "serving" / "demo.toml", "--data", market, "--out", out,
        "--set", OPEN_INTEREST, "--set", 'initial.forecast={level=0.99, horizon="30m"}',
        "--set", "data.open_interest=open_interest",
    )  # fmt: skip
    assert scored.code == 0, scored.errors
    levels = pd.read_parquet(out / "margin_levels.parquet")
    held = levels[levels["open_interest_usd"].notna()]
    assert set(held["symbol"]) == {"SIM-BTC", "SIM-ETH"}
    assert held["open_interest_share"].between(0.0, 1.0).all()
    assert (levels["imr"] > levels["mmr"]).all()
    bars = pd.read_parquet(market / "bars" / "SIM-BTC.parquet").tail(5 * 1440)
    daily = (bars["close"] * bars["volume"]).mean() * 1440
    own = held[held["symbol"] == "SIM-BTC"].iloc[0]
    assert own["open_interest_share"] == pytest.approx(
        own["open_interest_usd"] / daily / 1e3, rel=1e-3
    )

    forecasts = pd.read_parquet(out / "latest_forecasts.parquet")
    asked = forecasts.query("horizon_minutes == 30 and level == 0.99 and side == 'long'")
    shown = levels[(levels["side"] == "long") & (levels["symbol"] == "SIM-BTC")]["forecast"]
    assert asked.set_index("symbol").loc["SIM-BTC", "forecast"] == shown.iloc[0]

    made = command(
        "haircuts", workspace / "serving" / "collateral" / "perpetuals.toml",
        out / "latest_forecasts.parquet", "--out", out, "--bars", market / "bars",
        "--set", "forecast.level=0.95", "--set", "forecast.tail_level=0.99", "--set", ASSETS,
        "--set", "long_run.minimum_history=1d",
    )  # fmt: skip
    assert made.code == 0, made.errors
    haircuts = pd.read_parquet(out / "haircuts.parquet").set_index("asset")
    assert haircuts["status"].tolist() == ["ok", "ok"]
    assert haircuts.loc["BTC", "haircut"] <= haircuts.loc["BTC", "own_haircut"]

    price = float(bars["close"].iloc[-1])
    (tmp_path / "positions.json").write_text(
        json.dumps([
            {"symbol": "SIM-BTC", "side": "long", "size": 1, "entry_price": price,
             "mark_price": price},
        ]),
        encoding="utf-8",
    )  # fmt: skip
    (tmp_path / "collateral.csv").write_text(
        f"asset,amount,price_usd\nBTC,0.1,{price}\nUSDT,1000,0.999\n", encoding="utf-8"
    )
    seen = command(
        "account", tmp_path / "positions.json", "--levels", out / "margin_levels.parquet",
        "--collateral", tmp_path / "collateral.csv", "--haircuts", out / "haircuts.parquet",
    )  # fmt: skip
    assert seen.code == 0, seen.errors
    assert "SIM-BTC long" in seen.output
    both = command(
        "account", tmp_path / "positions.json", "--levels", out / "margin_levels.parquet",
        "--collateral", tmp_path / "collateral.csv", "--haircuts", out / "haircuts.parquet",
        "--json",
    )  # fmt: skip
    record = json.loads(both.output)
    counted = 0.1 * price * (1 - haircuts.loc["BTC", "own_haircut"]) + 999 * 0.95
    assert record["total"]["equity_usd"] == pytest.approx(counted)


def test_a_bad_file_ends_with_one_message(command, tmp_path):
    ending = command("account", tmp_path / "p.csv", "--levels", tmp_path / "levels.parquet")
    assert ending.code == 2
    assert "margin levels:" in ending.errors
