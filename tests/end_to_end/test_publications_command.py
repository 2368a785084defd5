"""``score --publish`` and ``publications``: put in force, compared, reverted, made again."""

import json
import re
import shutil

import pandas as pd
import pytest

from margincast.serving.publications.store import store_of


@pytest.fixture(scope="module")
def place(workspace, trained, tmp_path_factory):
    """A copy of the workspace: what is published here concerns no other test."""
    assert trained.ending.code == 0, trained.ending.errors
    folder = tmp_path_factory.mktemp("published") / "workspace"
    ignored = shutil.ignore_patterns("out", "publications")
    return shutil.copytree(workspace, folder, ignore=ignored)


@pytest.fixture(scope="module")
def score(command, place, market, tmp_path_factory):
    out = tmp_path_factory.mktemp("margins")

    def run(*options):
        spec = place / "serving" / "demo.toml"
        ending = command("score", spec, "--data", market, "--out", out, *options)
        return ending, pd.read_parquet(out / "margin_levels.parquet")

    return run


@pytest.fixture
def publications(command, place):
    def run(act, *arguments):
        return command("publications", act, *arguments, "--workspace", place)

    return run


@pytest.fixture(scope="module")
def two(score, place):
    """A proposal, a publication, the same again, and one of an hour later under another policy."""
    proposed, _ = score("--at", "2026-01-10T20:00")
    nothing = store_of(place, "demo").last_number
    given = ("--publish", "--reason", "nightly", "--by", "anna")
    first, _ = score("--at", "2026-01-10T20:00", *given)
    again, _ = score("--at", "2026-01-10T20:00", *given)
    second, levels = score(
        "--at", "2026-01-10T21:00", *given, "--set", "buffer.rate=0.6", "--set",
        "changes.notable=0.1",
    )  # fmt: skip
    return proposed, nothing, first, again, second, levels


def test_scoring_proposes_and_only_publishing_puts_in_force(two, place):
    proposed, nothing, first, again, second, levels = two
    for ending in (proposed, first, again, second):
        assert ending.code == 0, ending.errors
    assert nothing == 0
    assert "nothing was published yet" in proposed.errors
    assert "published as 000001, in force from 2026-01-10 20:00 UTC" in first.output
    assert "nothing changed since publication 000001" in again.errors
    assert "published as" not in again.output
    assert "published as 000002" in second.output
    latest = store_of(place, "demo").latest()
    assert (latest.number, latest.by, latest.reason) == (2, "anna", "nightly")
    assert latest.levels["mmr"].tolist() == levels["mmr"].tolist()
    # the contract that only the schedule names is published too
    assert latest.symbols == ("SIM-ALT", "SIM-BTC", "SIM-ETH")


def test_a_change_is_summed_up_with_its_cause(two, publications):
    second = two[4]
    printed = " ".join(second.output.split())
    assert "since publication 000001:" in printed
    assert "levels rise" in printed
    assert "buffer +" in printed
    assert "notable changes: by 10 % or more" in second.errors
    ending = publications("diff", 1, 2)
    assert ending.code == 0
    assert "the policy is another one" in ending.errors
    rows = json.loads(publications("diff", 1, 2, "--json").output)
    moved = [row for row in rows if row["change"]]
    assert moved
    causes = {row["cause"] for row in moved}
    assert "buffer" in causes
    assert causes <= {"buffer", "forecast", "liquidation cost", "base schedule", "rounding"}


def test_every_publication_is_made_again_from_what_was_recorded(two, publications):
    for number in (1, 2):
        ending = publications("replay", number)
        assert ending.code == 0, ending.errors
        assert "the same byte by byte" in ending.output
        assert re.search(
            r"forecasts of 3 contracts made again by demo/\d+ from \d+ recorded decisions: "
            "the same to the last bit",
            ending.output,
        )
    steps = publications("replay", 2, "SIM-BTC").output
    assert "SIM-BTC long, tier 1" in steps
    assert "buffer of 60 %" in " ".join(steps.split())


def test_without_its_model_a_publication_is_made_again_from_recorded_forecasts(
    two, publications, place
):
    away = {path: path.with_name(f"{path.name}.away") for path in (
        place / "mlruns" / "last_good", place / "mlruns" / "mlflow.db",
    )}  # fmt: skip
    for path, other in away.items():
        path.rename(other)
    ending = publications("replay", 1)
    for path, other in away.items():
        other.rename(path)
    assert ending.code == 0, ending.errors
    assert "forecasts are taken as recorded" in ending.errors
    assert "the same byte by byte" in ending.output


def test_publications_are_listed_and_shown(two, publications):
    listed = json.loads(publications("list", "--json").output)
    assert [one["number"] for one in listed[:2]] == [1, 2]
    assert listed[1]["previous_digest"] == listed[0]["digest"]
    assert "nightly" in publications("list").output
    shown = publications("show", 1).output
    assert "000001 of demo, publish" in shown
    assert "by anna" in shown
    levels = json.loads(publications("show", 1, "--json").output)["levels"]
    assert {row["symbol"] for row in levels} == {"SIM-ALT", "SIM-BTC", "SIM-ETH"}


def test_going_back_is_on_the_record_and_the_next_margins_go_on_from_there(
    two, publications, score, place
):
    ending = publications("revert", 1, "--reason", "the buffer was a mistake", "--by", "bo")
    assert ending.code == 0, ending.errors
    assert "published as 000003" in ending.output
    store = store_of(place, "demo")
    back = store.latest()
    assert (back.record.kind, back.record.reverts_to, back.by) == ("revert", 1, "bo")
    assert back.levels["mmr"].tolist() == store.read(1).levels["mmr"].tolist()
    assert "000001 again: the buffer was a mistake" in " ".join(publications("list").output.split())
    assert publications("replay", 3).code == 0
    later, levels = score("--at", "2026-01-10T22:00")
    assert later.code == 0
    assert levels["mmr_before"].tolist() == back.levels["mmr"].tolist()


def test_without_a_champion_what_was_published_last_stays_in_force(two, score, place):
    last = store_of(place, "demo").latest()
    ending, levels = score("--at", "2026-01-10T23:00", "--set", "model.registered_model=hopeless")
    assert ending.code == 1
    assert (levels["status"] == "fallback").all()
    assert (levels["mmr"] >= last.levels["mmr"]).all()
    assert levels["reason"].str.startswith("last margin kept").any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--publish"], "--publish and --reason TEXT go together"),
        (["--reason", "nightly"], "--publish and --reason TEXT go together"),
        (["--at", "2026-01-09", "--publish", "--reason", "x"], "margins are not published backwa"),
    ],
)
def test_what_cannot_be_published_is_refused(two, score, options, message):
    ending, _ = score(*options)
    assert ending.code == 2
    assert message in " ".join(ending.errors.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", 9], "no publication 9"),
        (["show", 1, "--policy", "dem"], "did you mean 'demo'?"),
        (["replay", 1, "SIM-BTX"], "did you mean 'SIM-BTC'?"),
        (["revert", 99, "--reason", "x"], "no publication 99"),
    ],
)
def test_what_is_not_there_is_refused(two, publications, arguments, message):
    ending = publications(*arguments)
    assert ending.code == 2
    assert message in " ".join(ending.errors.split())
