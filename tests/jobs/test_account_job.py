"""The account view from files: what is printed, and what is refused with its place."""

import json

import pandas as pd
import pytest

from margincast.core.errors import InputError
from margincast.data.writing import write_table
from margincast.jobs import account

POSITIONS = "symbol,side,size,entry_price,mark_price\nBTCUSDT,long,2,30000,32000\n"
COLLATERAL = "asset,amount,price_usd\nUSD,5000,\nBTC,0.5,32000\n"
HAIRCUTS = "asset,haircut,own_haircut,other_haircut,contract\nBTC,0.1,0.4,0.2,BTCUSDT\n"


def levels():
    rows = []
    for symbol, status in (("BTCUSDT", "ok"), ("ETHUSDT", "fallback")):
        for side in ("long", "short"):
            for tier, (floor, cap, mmr) in enumerate([(0, 5e4, 0.05), (5e4, 1e6, 0.1)], start=1):
                rows.append(
                    {
                        "symbol": symbol,
                        "side": side,
                        "tier": tier,
                        "tier_floor_usd": float(floor),
                        "tier_cap_usd": cap,
                        "effective_from": pd.Timestamp("2026-01-01T08:00", tz="UTC"),
                        "mmr": mmr,
                        "imr": 2 * mmr,
                        "forecast": 0.04 if status == "ok" else float("nan"),
                        "liquidation_cost": 0.002 if status == "ok" else float("nan"),
                        "binding_rule": "forecast" if status == "ok" else "fallback",
                        "status": status,
                        "reason": "stale data" if status == "fallback" else "0.99 quantile",
                    }
                )
    return pd.DataFrame(rows)


@pytest.fixture
def view(tmp_path):
    """The account job on files of these texts."""
    write_table(levels(), tmp_path / "levels.parquet")

    def run(positions=POSITIONS, form="csv", **files):
        paths = {}
        for name, text in files.items():
            paths[name] = tmp_path / f"{name}.csv"
            paths[name].write_text(text, encoding="utf-8")
        path = tmp_path / f"positions.{form}"
        path.write_text(positions, encoding="utf-8")
        return account.run(path, tmp_path / "levels.parquet", as_json=True, **paths)

    return run


def test_an_account_by_hand(view, capsys):
    record = view(collateral=COLLATERAL, haircuts=HAIRCUTS)
    # Equity: 5,000 cash, 4,000 profit, and half a bitcoin that a long of two bitcoins in its own
    # contract stands against, so 40 % less: 9,600. Maintenance: 5 % of 50,000 and 10 % of 14,000.
    pool = record["pools"][0]
    assert (pool["equity_usd"], pool["unrealised_usd"]) == (18_600.0, 4_000.0)
    assert (pool["maintenance_usd"], pool["initial_usd"]) == (3_900.0, 12_800.0)
    assert pool["margin_ratio"] == pytest.approx(3_900 / 18_600)
    assert record["total"]["equity_usd"] == 18_600.0
    (position,) = record["positions"]
    # In the first tier, below 25,000: 5,000 + 2 (p - 30,000) + 0.3 p = 0.05 x 2 p
    assert position["liquidation_price_below"] == pytest.approx(55_000 / 2.2)
    assert (position["tier"], position["mmr"], position["binding_rule"]) == (2, 0.1, "forecast")
    assert json.loads(capsys.readouterr().out) == record
    assert [line["scenario"] for line in record["stress"]][:2] == ["BTCUSDT -50%", "BTCUSDT -30%"]


def test_json_says_the_same_as_csv(view):
    row = {
        "symbol": "BTCUSDT",
        "side": "long",
        "size": 2,
        "entry_price": 30000,
        "mark_price": 32000,
    }
    other = {"collateral": COLLATERAL, "haircuts": HAIRCUTS}
    assert view(json.dumps([row]), form="json", **other) == view(**other)


def test_marks_may_come_apart_and_scenarios_may_be_added(view):
    record = view(
        "symbol,side,size,entry_price\nBTCUSDT,long,2,30000\n",
        collateral="asset,amount\nUSD,5000\nBTC,0.5\n",
        haircuts=HAIRCUTS,
        marks="symbol,mark_price\nBTCUSDT,32000\n",
        scenarios="scenario,symbol,move\n2020-03-12,BTCUSDT,-0.5\n",
    )
    assert record["pools"][0]["equity_usd"] == 18_600.0
    last = record["stress"][-1]
    assert (last["scenario"], last["loss_usd"]) == ("2020-03-12", 40_000.0)
    assert not last["is_sufficient"]


def test_a_contract_without_a_forecast_is_not_taken_for_a_calm_one(view, tmp_path):
    quiet = levels()
    quiet.loc[quiet["status"] == "fallback", ["mmr", "imr"]] = [0.0001, 0.0002]
    write_table(quiet, tmp_path / "levels.parquet")
    stress = view()["stress"]
    # led by the one whose moves are known: 2 bitcoins at 32,000 lose what half a price is
    assert stress[0]["scenario"] == "BTCUSDT -50%"
    alone = view("symbol,side,size,entry_price,mark_price\nETHUSDT,long,10,3000,3000\n")["stress"]
    # and it moves no less than that one, though its base schedule's rate is tiny
    assert alone[0]["loss_usd"] >= 0.5 * 30_000


def test_a_fallback_is_shown_with_the_number(view):
    record = view(
        POSITIONS.replace("BTCUSDT,long", "ETHUSDT,short"), collateral="asset,amount\nUSD,1e6\n"
    )
    assert record["positions"][0]["status"] == "fallback"
    assert record["notes"] == ["ETHUSDT short: margin is a fallback, stale data"]


def test_what_is_announced_is_not_charged_and_what_is_set_by_hand_is_shown(view, tmp_path):
    by_hand = {
        "override": "raise to 12 %",
        "override_reason": "delisting",
        "override_approver": "ana",
        "override_expires": pd.Timestamp("2026-01-03", tz="UTC"),
    }
    announced = levels().assign(mmr_in_force=lambda table: (3 * table["mmr"]).round(2), **by_hand)
    write_table(announced, tmp_path / "levels.parquet")
    record = view(collateral=COLLATERAL, haircuts=HAIRCUTS)
    # 15 % of 50,000 and 30 % of 14,000 in force; 20 % to open, which is 12,800, is 11,700 at least
    assert record["pools"][0]["maintenance_usd"] == 11_700.0
    assert record["pools"][0]["initial_usd"] == 12_800.0
    assert record["positions"][0]["mmr"] == pytest.approx(0.3)
    assert record["notes"] == [
        (
            "BTCUSDT long: margin set by hand, raise to 12 % (delisting; ana, until 2026-01-03 "
            "00:00 UTC)"
        ),
        "BTCUSDT long: MMR 10 % announced from 2026-01-01 08:00 UTC, 30 % in force",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("BTCUSDT", "BTCUSD"), r"row 1, column symbol: found 'BTCUSD'; .*did you mean 'BTCUSDT'"),
        (("long", "buy"), "column side: found 'buy'; allowed: one of long, short"),
        ((",2,", ",-2,"), "column size: found '-2'; allowed: a finite number, above 0"),
        ((",2,", ",nan,"), "column size: found 'nan'; allowed: a finite number"),
        ((",2,", ",two,"), "column size: found 'two'"),
        ((",2,", ",,"), "column size: found nothing"),
        ((",2,", ",2e9,"), "end at 1,000,000 USD; this one is 64,000,000,000,000.00 USD"),
        (("32000\n", "32000\nBTCUSDT,long,1,1,1\n"), "row 2, column symbol: .*add them up"),
        (("32000\n", "32,000\n"), "row 1: 6 cells under 5 columns"),
        (("mark_price", "mark_prise"), "unknown column 'mark_prise'.*did you mean 'mark_price'"),
        ((",mark_price\n", "\n"), "5 cells under 4 columns"),
        ((",32000\n", ",\n"), "column mark_price: found nothing; allowed: a mark price of BTCUSDT"),
        (("size", "side"), "a column stands twice in the heading"),
        ((POSITIONS, "symbol,side,size,entry_price\n"), "has no rows"),
    ],
)
def test_positions_that_cannot_be_used_say_where(view, change, said):
    with pytest.raises(InputError, match=said):
        view(POSITIONS.replace(*change))


def test_another_currency_is_refused(view):
    with pytest.raises(InputError, match="column currency: found 'EUR'; allowed: USD"):
        view("symbol,side,size,entry_price,mark_price,currency\nBTCUSDT,long,2,3,3,EUR\n")


@pytest.mark.parametrize(
    ("collateral", "said"),
    [
        ("asset,amount\nETC,1\n", "row 1, column asset: found 'ETC'; allowed: an asset with a h"),
        ("asset,amount\nUSD,1\nUSD,1\n", "row 2, column asset: found 'USD'; allowed: each asset"),
        ("asset,amount\nBTC,1\n", "column price_usd: found nothing; allowed: a mark price of BTC"),
        ("asset,amount\nUSD,0\n", "an amount other than zero"),
        ("asset,amount\nUSD,inf\n", "column amount: found 'inf'"),
        ("asset,amount,price_usd\nUSD,1,0.9\n", "allowed: 1 for USD"),
        ("asset,amount,currency\nUSD,1,EUR\n", "column currency: found 'EUR'"),
    ],
)
def test_collateral_that_cannot_be_used_says_where(view, collateral, said):
    with pytest.raises(InputError, match=said):
        view(collateral=collateral, haircuts=HAIRCUTS)


@pytest.mark.parametrize(
    ("haircuts", "said"),
    [
        (HAIRCUTS.replace("0.4", "1.4"), "column haircut"),
        (HAIRCUTS.replace("0.2", "0.05"), "allowed: haircut <= other_haircut"),
        (HAIRCUTS + "BTC,0,0,0,\n", "row 2, column asset: found 'BTC'; allowed: each asset once"),
        (HAIRCUTS.replace("0.1", "-0.1"), "column haircut: found '-0.1'"),
    ],
)
def test_haircuts_that_cannot_be_used_say_where(view, haircuts, said):
    with pytest.raises(InputError, match=said):
        view(haircuts=haircuts)


def test_two_mark_prices_of_a_contract_are_refused(view):
    with pytest.raises(InputError, match="the mark price of BTCUSDT is given apart"):
        view(marks="symbol,mark_price\nBTCUSDT,1\n")


def test_levels_that_are_none_are_refused(tmp_path):
    path = tmp_path / "levels.parquet"
    with pytest.raises(InputError, match="does not exist"):
        account.run(path, path)
    write_table(levels().drop(columns="imr"), path)
    with pytest.raises(InputError, match="no column imr"):
        account.run(path, path)
    write_table(levels().query("tier == 2"), path)
    with pytest.raises(InputError, match="BTCUSDT long: tiers must follow one another from 0"):
        account.run(path, path)


@pytest.mark.parametrize("text", ["{}", "[1]", "[", '[{"symbol": "BTCUSDT", "size": NaN}]'])
def test_json_that_holds_no_rows_is_refused(view, text):
    with pytest.raises(
        InputError, match=r"positions.json.*(list of objects|cannot be read|column)"
    ):
        view(text, form="json")
