"""``margincast override``: a margin set by hand is published, shown, and gone when it ends."""

import json
import re
import shutil

import pandas as pd
import pytest

from margincast.serving.ledger import LEDGER, Ledger


@pytest.fixture(scope="module")
def place(workspace, trained, tmp_path_factory):
    """A copy of the workspace: what is set by hand here concerns no other test."""
    assert trained.ending.code == 0, trained.ending.errors
    return shutil.copytree(workspace, tmp_path_factory.mktemp("by_hand") / "workspace")


@pytest.fixture
def score(command, place, market, tmp_path):
    def run(*options):
        ending = command(
            "score", place / "serving" / "demo.toml", "--data", market, "--out", tmp_path,
            *options,
        )  # fmt: skip
        return ending, pd.read_parquet(tmp_path / "margin_levels.parquet")

    return run


@pytest.fixture
def override(command, place):
    def run(act, *options):
        at = [] if act == "set" else ["--workspace", place]
        policy = [place / "serving" / "demo.toml"] if act == "set" else []
        return command("override", act, *policy, *options, *at)

    return run


def test_a_margin_set_by_hand_is_published_until_it_is_ended(score, override, place, command):
    given = ("--reason", "books are empty", "--approver", "head of risk", "--expires", "1d")
    made = override("set", "SIM-BTC", "--raise", "0.05", "--side", "long", *given)
    assert made.code == 0, made.errors
    assert "margin of demo: SIM-BTC long raised to 5 % until" in made.output
    line = len(Ledger(place / LEDGER).read())

    ending, levels = score()
    assert ending.code == 0, ending.errors
    by_hand = levels["binding_rule"] == "override"
    own = (levels["symbol"] == "SIM-BTC") & (levels["side"] == "long")
    assert by_hand.any()
    assert (levels.loc[by_hand, "mmr"] == 0.05).all()
    assert (levels["override_line"].notna() == own).all()
    assert (levels.loc[own, "override_approver"] == "head of risk").all()
    printed = " ".join(ending.output.split())
    assert f"override: raise to 5 % ({own.sum()} levels, line {line} of the ledger)" in printed
    assert "books are empty" in printed

    (listed,) = json.loads(override("list", "--json").output)
    assert (listed["line"], listed["mmr"], listed["state"]) == (line, 0.05, "in force")
    # a day after its end; the data is too old by then, and an override would hold in a fallback
    ending, late = score("--at", re.sub(r"\+.*", "", listed["expires"]))
    assert (late["status"] == "fallback").all()
    assert late["override_line"].isna().all()
    assert f"the override of line {line} (SIM-BTC long all tiers, raise to 5 %) expired" in (
        ending.errors
    )

    assert override("end", line, "--reason", "books are full").code == 0
    again = override("end", line, "--reason", "books are full")
    assert again.code == 2
    assert f"the override of line {line} is over" in again.errors
    _, after = score()
    assert after["override_line"].isna().all()
    assert "raise to 5 %" in override("list").output
    shown = command("ledger", "show", "--workspace", place).output
    assert "(approved by head of risk)" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("symbol", "options", "said"),
    [
        ("SIM-BTX", ["--raise", "0.05"], "unknown contract 'SIM-BTX' (did you mean 'SIM-BTC'?)"),
        ("all", ["--raise", "0.9"], "an MMR of 90 % lies above limits.mmr_cap"),
        ("all", ["--raise", "0.05", "--fix", "0.05"], "give one of --raise MMR, --fix MMR"),
        ("all", [], "give one of --raise MMR, --fix MMR"),
        ("all", ["--raise", "0.05", "--expires", "2020-01-01"], "must end in the future"),
        ("all", ["--raise", "0.05", "--expires", "soon"], "neither a time nor a duration"),
    ],
)
def test_what_cannot_be_set_is_refused(override, symbol, options, said):
    given = ["--reason", "x", "--approver", "head of risk", "--expires", "1d"]
    ending = override("set", symbol, *given, *options)
    assert ending.code == 2
    assert said in " ".join(re.sub("[│╭╮╰╯─]", " ", ending.errors).split())
