"""``margincast schedule``: files in, files out, what is printed, and the exit codes."""

import contextlib
import io
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from margincast.cli import main
from margincast.core.types import SIDES
from margincast.data.writing import write_table
from margincast.margin.venues.catalogue import VENUES
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule

SERVING = Path(__file__).resolve().parents[2] / "serving"
FILES = {"binance": "json", "csv": "csv", "json": "json", "toml": "toml"}


@pytest.fixture
def levels(tmp_path):
    """Fallback levels of two contracts, one tier each; the shorts of one are dearer."""
    rates = {("XRPUSDT", "short"): 0.009}
    rows = [
        {
            "symbol": symbol,
            "side": side,
            "tier": 1,
            "tier_floor_usd": 0.0,
            "tier_cap_usd": cap,
            "mmr": rates.get((symbol, side), mmr),
            "imr": 2 * mmr,
            "maintenance_amount": 0.0,
            "status": "fallback",
        }
        for symbol, cap, mmr in (("BTCUSDT", 50_000.0, 0.004), ("XRPUSDT", 10_000.0, 0.006))
        for side in SIDES
    ]
    path = tmp_path / "margin_levels.parquet"
    write_table(pd.DataFrame(rows), path)
    return path


def run(*arguments):
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setattr(sys, "argv", ["margincast", "schedule", *map(str, arguments)])
        with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code, " ".join(output.getvalue().split()), errors.getvalue()


@pytest.mark.parametrize("venue", FILES)
def test_what_is_exported_is_imported_with_the_same_margins(venue, levels, tmp_path):
    file, out = tmp_path / f"table.{FILES[venue]}", tmp_path / "again.toml"
    code, shown, said = run("export", venue, levels, "--out", file)
    assert code == 0, said
    assert "maintenance margins equal at every notional: 2 of 2 contracts" in shown
    assert "4 of 4 levels are fallbacks" in said
    # 0.9 % against 0.6 % for the longs of one contract of two
    assert (
        "long positions pay +25.00% on average against their own levels, at most +50.00%" in shown
    )
    code, _, said = run("import", venue, file, "--out", out)
    assert code == 0, said
    again = load_spec(out, BaseSchedule)
    assert again.name == "again"
    assert [(one.symbols, one.tiers[0].mmr) for one in again.brackets] == [
        (("BTCUSDT",), 0.004),
        (("XRPUSDT",), 0.009),
    ]
    text = out.read_text()
    assert text.startswith(f"# Imported from {venue} by margincast ")
    assert f"{file.name}, SHA-256 " in text


def test_one_side_alone_says_what_the_other_lacks(levels, tmp_path):
    code, shown, _ = run("export", "json", levels, "--side", "long", "--out", tmp_path / "x.json")
    assert code == 0
    assert "short positions pay -16.67% on average" in shown
    assert "TOO LITTLE by up to 33.33% (XRPUSDT)" in shown
    assert len(json.loads((tmp_path / "x.json").read_text())) == 2


def test_a_price_and_a_largest_position_reach_the_venue(levels, tmp_path):
    out = tmp_path / "drift.json"
    prices = ["--price", "BTCUSDT=60000", "--price", "XRPUSDT=0.5"]
    code, _, said = run("export", "drift", levels, "--out", out, "--up-to", "5000", *prices)
    assert code == 0, said
    markets = json.loads(out.read_text())["perp_markets"]
    assert [market["oracle_price_usd"] for market in markets] == [60_000.0, 0.5]
    assert {market["largest_position_usd"] for market in markets} == {5_000.0}
    # the least ratio of the venue is five times that of the levels
    assert "drift: no ratio lies below 2 %" in said


def test_show_prints_tiers_with_amounts():
    code, shown, _ = run("show", SERVING / "schedules" / "perpetuals.toml")
    assert code == 0
    assert "BTCUSDT, ETHUSDT" in shown
    assert "50,000 500,000 0.5% 1% 100x 50" in shown
    assert "ADAUSDT, AVAXUSDT, BCHUSDT, BNBUSDT and 5 more" in shown
    assert "all others 0 5,000 1% 2% 50x 0" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "binance", "absent.json"], "absent.json is no file"),
        (["import", "okex", "table.json"], "no venue 'okex' (did you mean 'okx'?)"),
        (["import", "binance", "table.json"], "table.json is no response of GET /fapi"),
        (["import", "drift", "drift.json"], "they are no tiers, and cannot be a schedule"),
        (["export", "okx", "LEVELS"], "tables of okx are only read"),
        (["export", "csv", "absent.parquet"], "margincast score writes margin_levels.parquet"),
        (["export", "csv", "table.json"], "table.json is no Parquet table"),
        (["export", "csv", "LEVELS", "--side", "log"], "(did you mean 'long'?)"),
        (["export", "csv", "LEVELS", "--up-to", "0"], "positions can be exported up to 50,000 USD"),
        (["export", "drift", "LEVELS"], "give it with --price BTCUSDT=USD"),
        (["export", "drift", "LEVELS", "--price", "BTCUSDT"], "write SYMBOL=USD"),
        (["show", "absent.toml"], "does not exist"),
    ],
)
def test_bad_input_is_one_message_and_writes_nothing(
    arguments, said, levels, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("table.json").write_text("{,")
    market = {"symbol": "A", "margin_ratio_initial": 500, "margin_ratio_maintenance": 300}
    market |= {"imf_factor": 10, "oracle_price_usd": 1.0}
    Path("drift.json").write_text(json.dumps({"perp_markets": [market]}))
    wanted = [levels if one == "LEVELS" else one for one in arguments]
    out = [] if arguments[0] == "show" else ["--out", "out.toml"]
    code, _, errors = run(*wanted, *out)
    assert code == 2
    assert errors.startswith("error: ")
    assert said in errors
    assert not Path("out.toml").exists()


def test_a_schedule_that_is_there_is_not_overwritten(tmp_path):
    out = tmp_path / "mine.toml"
    out.write_text("in force")
    code, _, errors = run("import", "csv", tmp_path / "table.csv", "--out", out)
    assert code == 2
    assert "a schedule in force is not overwritten" in errors
    assert out.read_text() == "in force"


def test_every_venue_is_named_in_the_commands_help():
    from margincast.cli.schedule import VENUES_READ, VENUES_WRITTEN  # noqa: PLC0415  # as a command

    listed = {name.strip(" .") for name in VENUES_WRITTEN.split(",")}
    assert listed == {name for name, venue in VENUES.items() if venue.export is not None}
    assert {name.strip(" .") for name in VENUES_READ.split(",")} == set(VENUES) - {"drift", "toml"}
