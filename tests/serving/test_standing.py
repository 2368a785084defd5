"""Who holds which alias is read from the ledger alone, whatever was done in whatever order."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.serving.ledger_line import LedgerEntry, new_entry
from margincast.serving.standing import (
    ALIASES,
    Holder,
    Override,
    Standing,
    differences,
    models_of,
    standing_of,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def lines(*acts) -> list[LedgerEntry]:
    made = []
    for number, (kind, details) in enumerate(acts, start=1):
        made.append(
            new_entry(
                number,
                "0" * 64,
                kind=kind,
                who="desk",
                what=f"act {number}",
                why="because",
                evidence_digest="e" * 64,
                details={"model": "demo", **details},
                when=NOW,
            )
        )
    return made


def to(alias, version, **more):
    return "promotion", {"alias": alias, "version": version, **more}


def versions(standing: Standing):
    return {alias: holder.version for alias, holder in standing.holders.items()}


def test_a_withdrawn_act_never_was():
    acts = (to("champion", 1), to("champion", 2), ("withdrawal", {"line": 2}))
    assert standing_of(lines(*acts), "demo").champion == Holder(1, line=1)


def test_refusals_registrations_and_repairs_change_nothing():
    quiet = [
        ("refusal", {"alias": "champion", "version": 9}),
        ("registration", {"version": 9}),
        ("repair", {"alias": "champion", "version": 9}),
    ]
    standing = standing_of(lines(to("champion", 1), *quiet), "demo")
    assert versions(standing) == {"champion": 1}
    assert list(standing.registrations) == [9]


def test_models_do_not_see_each_other():
    entries = lines(
        to("champion", 1), ("promotion", {"model": "b", "alias": "shadow", "version": 5})
    )
    assert models_of(entries) == ("b", "demo")
    assert versions(standing_of(entries, "demo")) == {"champion": 1}
    assert versions(standing_of(entries, "b")) == {"shadow": 5}
    assert standing_of(entries, "nobody") == Standing()


def test_a_rollback_keeps_the_override_the_one_before_had():
    given_leave = Override("head of risk", NOW + timedelta(days=7))
    acts = (
        ("override", {
            "alias": "champion", "version": 1, "approver": "head of risk",
            "expires": given_leave.expires.isoformat(),
        }),
        to("champion", 2),
        ("rollback", {"alias": "champion", "version": 1}),
    )  # fmt: skip
    standing = standing_of(lines(*acts), "demo")
    assert standing.champion == Holder(1, line=3, override=given_leave)
    assert standing.rolled_back == 2


@pytest.mark.parametrize(
    ("aliases", "wrong"),
    [
        ({"champion": 1, "shadow": 3}, set()),
        ({"champion": 1, "shadow": 3, "mine": 7}, set()),
        ({"champion": 2, "shadow": 3}, {"champion"}),
        ({"champion": 1, "challenger": 2, "shadow": 3}, {"challenger"}),
        ({}, {"champion", "shadow"}),
    ],
)
def test_differences_between_ledger_and_mlflow_are_named_by_alias(aliases, wrong):
    standing = standing_of(lines(to("champion", 1), to("shadow", 3)), "demo")
    assert set(differences(standing, aliases)) == wrong


promotions = st.tuples(st.sampled_from(ALIASES), st.integers(1, 4)).map(lambda act: to(*act))


@given(st.lists(promotions | st.just("back"), max_size=20))
def test_no_version_holds_two_aliases_and_rollbacks_walk_back_through_the_champions(acts):
    made, stack = [], []
    for act in acts:
        if act == "back":
            if len(stack) < 2:
                continue
            stack.pop()
            act = ("rollback", {"alias": "champion", "version": stack[-1]})  # noqa: PLW2901 - spelt out
        elif act[1]["alias"] == "champion":
            if stack[-1:] != [act[1]["version"]]:
                stack.append(act[1]["version"])
        elif stack[-1:] == [act[1]["version"]]:
            continue  # promote() refuses to take the champion's alias away
        made.append(act)
    standing = standing_of(lines(*made), "demo")
    held = versions(standing)
    assert len(set(held.values())) == len(held)
    assert held.get("champion") == (stack[-1] if stack else None)
    assert [holder.version for holder in standing.champions] == stack
