"""``margincast explain``: the chain behind a margin, and a change whose parts add up."""

import json
import math
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from margincast.models.catalogue import LOADERS
from margincast.serving.bundle import read_bundle, write_bundle
from margincast.serving.champion import resolve_champion
from margincast.serving.registry import Registry
from margincast.serving.verdict import GateVerdict

THEN, NOW = "2026-01-09T15:00", "2026-01-10T20:00"
FREE = ("--set", "limits.multiplier_floor=0.0", "--set", "limits.mmr_floor=0.0005")
"""Small forecasts of a small market show where no schedule lies above them."""


@pytest.fixture(scope="module")
def place(workspace, trained, tmp_path_factory):
    """A copy of the workspace with a second version, whose forecasts are 30 % higher."""
    assert trained.ending.code == 0, trained.ending.errors
    folder = tmp_path_factory.mktemp("explained")
    place = shutil.copytree(workspace, folder / "workspace")
    registry = Registry("sqlite:///mlruns/mlflow.db", place)
    champion = resolve_champion(registry, "demo")
    made = read_bundle(champion.bundle_directory, LOADERS)
    for model in made.forecaster.forecasters.values():
        factors = model._fitted.factors
        factors.everybody[:] += math.log(1.3)
        for own in factors.contracts.values():
            own[:] += math.log(1.3)
    write_bundle(
        made.forecaster, folder / "other", loaders=LOADERS,
        metadata=made.manifest.metadata, specs=made.specs,
    )  # fmt: skip
    verdict = GateVerdict(passed=True, checks=())
    other = registry.register("demo", folder / "other", champion.version.run_id, verdict, who="x")
    assert other.version == 2
    text = (place / "serving" / "demo.toml").read_text()
    (place / "serving" / "earlier.toml").write_text(text.replace("rate = 0.1\n", "rate = 0.3\n"))
    return place


@pytest.fixture(scope="module")
def explain(command, place, market):
    def run(symbol, *options, policy="demo.toml"):
        return command("explain", symbol, place / "serving" / policy, "--data", market, *options)

    return run


@pytest.fixture(scope="module")
def change(explain):
    def run(*options):
        ending = explain("SIM-BTC", "--at", NOW, "--since", THEN, "--side", "long", "--json",
                         *FREE, *options)  # fmt: skip
        assert ending.code == 0, ending.errors
        (record,) = json.loads(ending.output)
        return record

    return run


@pytest.fixture(scope="module")
def plain(change):
    """The change under one model and one policy."""
    return change()


@pytest.fixture(scope="module")
def tables(command, place, market, tmp_path_factory):
    """What was published at both moments."""
    folder = tmp_path_factory.mktemp("tables")
    for at in (THEN, NOW):
        ending = command(
            "score", place / "serving" / "demo.toml", "--data", market, "--at", at,
            "--out", folder / at[:10], *FREE,
        )  # fmt: skip
        assert ending.code == 0, ending.errors
    return [folder / at[:10] / "margin_levels.parquet" for at in (THEN, NOW)]


def published(path):
    table = pd.read_parquet(path)
    own = (table["symbol"] == "SIM-BTC") & (table["side"] == "long") & (table["tier"] == 1)
    return table[own].iloc[0]


def adds_up(record):
    since, lines = record["since"], record["since"]["lines"]
    assert since["after"] == record["mmr"] == record["chain"][-1]["value_after"]
    assert since["change"] == since["after"] - since["before"]
    assert math.fsum(line["change"] for line in lines) == pytest.approx(
        since["change"], abs=1e-12, rel=0
    )
    assert math.fsum(since["by_cause"].values()) == pytest.approx(since["change"], abs=1e-12, rel=0)
    return {(line["cause"], line["what"]): line["change"] for line in lines}


def test_a_change_is_split_into_features_and_steps_without_remainder(plain, tables):
    record, lines = plain, adds_up(plain)
    then, now = map(published, tables)
    assert (record["since"]["before"], record["mmr"]) == (then["mmr"], now["mmr"])
    features = [moved for (_, what), moved in lines.items() if what.startswith("feature ")]
    assert len(features) > 5
    of_forecast = [
        moved
        for (_, what), moved in lines.items()
        if what.startswith(("feature ", "exceedances", "order between", "forecast,"))
    ]
    assert math.fsum(of_forecast) == pytest.approx(now["forecast"] - then["forecast"], abs=1e-12)
    assert abs(lines.get(("data", "forecast, numerical remainder"), 0.0)) < 1e-12
    assert ("data", "liquidation cost") in lines
    assert ("policy", "buffer") in lines
    # the chain is that of the published table
    said = {step["name"]: step["value_after"] for step in record["chain"]}
    assert said["forecast"] == now["forecast"]
    assert said["rounding"] == now["step_rounding"] == now["mmr"]


def test_another_model_and_another_policy_file_are_parts_of_their_own(change, plain, place):
    record = change("--version-since", "2", "--policy-since", place / "serving" / "earlier.toml")
    lines = adds_up(record)
    assert record["since"]["model_version"] == "demo/2"
    assert lines["model", "demo/2 -> demo/1"] < 0.0
    assert lines["policy file", "demo -> demo"] < 0.0
    # what is left is the change of the same model under the same policy
    parts = record["since"]["by_cause"]
    left = record["since"]["change"] - parts["policy file"] - lines["model", "demo/2 -> demo/1"]
    assert left == pytest.approx(plain["since"]["change"], abs=1e-12)


def test_a_person_reads_a_table_of_steps_and_one_of_parts(explain):
    ending = explain("SIM-BTC", "--at", NOW, "--since", THEN, "--tier", "2")
    assert ending.code == 0, ending.errors
    text = " ".join(ending.output.split())
    for said in (
        "SIM-BTC long, tier 2", "SIM-BTC short, tier 2", "rounded up to a multiple of 0.05 %",
        "in force from 2026-01-10 20:00 UTC", "since 2026-01-09 15:00 UTC", "together",
        "another order gives other shares",
    ):  # fmt: skip
        assert said in text, said


def test_written_tables_tell_the_same_without_model_and_policy(command, tables, plain):
    then, now = tables
    ending = command("explain", "SIM-BTC", "--levels", now, "--against", then, "--side", "long",
                     "--json")  # fmt: skip
    assert ending.code == 0, ending.errors
    (record,) = json.loads(ending.output)
    lines = adds_up(record)
    assert [step["value_after"] for step in record["chain"]] == [
        step["value_after"] for step in plain["chain"]
    ]
    moved = [line["change"] for line in plain["since"]["lines"] if line["cause"] == "policy"]
    assert [lines[key] for key in lines if key[0] == "policy"] == pytest.approx(moved, abs=1e-15)


def test_an_override_is_explained_with_who_and_why(command, place, explain):
    ending = command(
        "override", "set", place / "serving" / "demo.toml", "SIM-ETH", "--raise", "0.05",
        "--reason", "books are empty", "--approver", "head of risk", "--expires", "1d",
    )  # fmt: skip
    assert ending.code == 0, ending.errors
    ending = explain("SIM-ETH", "--side", "short", "--json")
    (record,) = json.loads(ending.output)
    last = record["chain"][-1]
    assert (last["name"], last["value_after"], record["mmr"]) == ("override", 0.05, 0.05)
    assert "approved by head of risk until" in last["reason"]
    assert record["override_reason"] == "books are empty"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("SIM-BTX",), "no margin of 'SIM-BTX' (did you mean 'SIM-BTC'?)"),
        (("SIM-BTC", "--tier", "9"), "SIM-BTC has tiers 1 to 4 in this run, found 9"),
        (("SIM-BTC", "--side", "both"), "'both' is no side; sides are long, short"),
        (("SIM-BTC", "--since", "2026-01-11"), "must lie before the moment explained"),
        (("SIM-BTC", "--at", "2020-01-01"), "no data at or before 2020-01-01"),
        (("SIM-BTC", "--at", "noon"), "--at: "),
        (("SIM-BTC", "--version-since", "2"), "belong to --since; give it too"),
        (("SIM-BTC", "--levels", "x.parquet"), "--levels takes --against, --side, --tier"),
    ],
)
def test_what_cannot_be_explained_is_refused(explain, options, said):
    ending = explain(options[0], *options[1:])
    assert ending.code == 2
    assert said in " ".join(re.sub("[│╭╮╰╯─]", " ", ending.errors).split())


def test_a_table_of_another_policy_or_of_something_else_is_refused(command, place, tables, market):
    of_policy = command("explain", "SIM-BTC", place / "serving" / "earlier.toml",
                        "--levels", tables[1])  # fmt: skip
    assert "was made by another policy or base schedule" in of_policy.errors
    other = next(market.rglob("*.parquet"))
    ending = command("explain", "SIM-BTC", "--levels", other)
    assert "is no table of margin levels with their steps" in ending.errors
    assert {of_policy.code, ending.code} == {2}
    assert np.isfinite(published(tables[1])["mmr"])
