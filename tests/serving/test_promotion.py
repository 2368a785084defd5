"""Nobody sets margins without a passed gate or a person's name, and all of it is on record."""

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from margincast.core.errors import BundleError, CheckFailedError, InputError, LedgerError
from margincast.serving.champion import resolve_champion
from margincast.serving.promotion import (
    OvertakenError,
    promote,
    promote_after_training,
    rollback,
)
from margincast.serving.registry import Registry
from margincast.serving.standing import Override, differences, standing_of

NOW = datetime(2100, 1, 1, tzinfo=UTC)
"""Later than any line a test writes by the clock."""


def leave(days: float = 1.0, approver: str = "head of risk") -> Override:
    return Override(approver, NOW + timedelta(days=days))


@pytest.fixture
def act(registry, name):
    """Promote the model of the test."""

    def run(version, alias="champion", **given):
        options = {"who": "desk", "why": "two months of shadow scoring", "now": NOW} | given
        return promote(registry, name, alias, version, **options)

    return run


def kinds(registry):
    return [entry.kind for entry in registry.ledger.read()]


def holders(registry, name):
    standing = standing_of(registry.ledger.read(), name)
    assert differences(standing, registry.aliases(name)) == {}
    return {alias: holder.version for alias, holder in standing.holders.items()}


@pytest.mark.parametrize(
    ("alias", "gate", "allowed"),
    [
        ("champion", "passed", True),
        ("champion", "failed", False),
        ("challenger", "passed", True),
        ("challenger", "failed", False),
        ("shadow", "passed", True),
        ("shadow", "failed", True),
    ],
)
def test_who_may_hold_which_alias(register, registry, name, act, *, request, alias, gate, allowed):
    register(1.0, request.getfixturevalue(gate))
    if allowed:
        act(1, alias)
        assert holders(registry, name) == {alias: 1}
        assert kinds(registry) == ["registration", "promotion"]
        return
    with pytest.raises(CheckFailedError, match=r"did not pass its gate.*quantile crossings 1 is"):
        act(1, alias)
    assert holders(registry, name) == {}
    refusal = registry.ledger.read()[-1]
    assert refusal.kind == "refusal"
    assert refusal.details["reasons"] == ["quantile crossings 1 is not at most 0"]
    assert refusal.why == "two months of shadow scoring"


def test_a_version_holds_one_alias_at_most(register, registry, name, act):
    register(1.0)
    register(2.0)
    for alias in ("shadow", "challenger", "champion"):
        act(1, alias)
        assert holders(registry, name) == {alias: 1}
    act(2, "challenger")
    assert holders(registry, name) == {"champion": 1, "challenger": 2}
    act(2)
    assert holders(registry, name) == {"champion": 2}
    with pytest.raises(InputError, match="is champion; promote another"):
        act(2, "shadow")


def test_after_training_the_first_is_champion_the_next_challenger_a_failed_one_nothing(
    register, registry, name, failed
):
    assert promote_after_training(registry, register(1.0), who="job") == "champion"
    assert promote_after_training(registry, register(2.0, failed), who="job") == ""
    assert promote_after_training(registry, register(3.0), who="job") == "challenger"
    assert promote_after_training(registry, register(4.0), who="job") == "challenger"
    assert holders(registry, name) == {"champion": 1, "challenger": 4}


def test_an_override_says_who_approved_it_and_until_when(register, registry, name, act, failed):
    register(1.0)
    register(2.0, failed)
    act(1)
    entry = act(2, override=leave(7.0))
    assert entry.kind == "override"
    assert entry.what == (
        f"champion of {name}: version 1 -> 2, gate overridden until 2100-01-08 00:00 UTC"
    )
    assert entry.details["approver"] == "head of risk"
    assert holders(registry, name) == {"champion": 2}
    # the same champion may be given more time, by a line of its own
    renewed = act(2, override=leave(5.0), now=NOW + timedelta(days=2))
    assert renewed.details["expires"] == "2100-01-06T00:00:00+00:00"
    assert rollback(registry, name, who="desk", why="enough", now=NOW).details["version"] == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (leave(7.001), r"may last 7d at most .* the latest is 2100-01-08 00:00 UTC"),
        (leave(0.0), "must end in the future"),
        (leave(-1.0), "must end in the future"),
        (leave(approver=" Desk "), "another person"),
        (leave(approver=" "), "needs the name"),
    ],
)
def test_an_override_that_cannot_be_given(
    register, registry, name, act, *, failed, override, message
):
    register(1.0, failed)
    with pytest.raises(InputError, match=message):
        act(1, override=override)
    assert holders(registry, name) == {}
    assert kinds(registry) == ["registration"]


def test_an_override_is_for_a_champion_whose_gate_failed_alone(register, act, failed):
    register(1.0)
    register(2.0, failed)
    with pytest.raises(InputError, match="needs no override"):
        act(1, override=leave())
    with pytest.raises(CheckFailedError, match="cannot become champion or challenger"):
        act(2, "challenger", override=leave())


def test_rollback_goes_back_one_champion_at_a_time(register, registry, name, act):
    for version in (1, 2, 3):
        register(float(version))
        act(version)
    assert rollback(registry, name, who="desk", why="jumps").what == (
        f"champion of {name} rolled back: version 3 -> 2"
    )
    assert resolve_champion(registry, name).version.version == 2
    rollback(registry, name, who="desk", why="jumps too")
    assert holders(registry, name) == {"champion": 1}
    with pytest.raises(CheckFailedError, match=r"no champion .* to go back to"):
        rollback(registry, name, who="desk", why="and on")
    act(3)
    rollback(registry, name, who="desk", why="as before")
    assert holders(registry, name) == {"champion": 1}


def test_rollback_to_one_whose_override_ended_is_refused(register, registry, name, act, failed):
    register(1.0, failed)
    register(2.0)
    act(1, override=leave(1.0))
    act(2)
    with pytest.raises(CheckFailedError, match="head of risk allowed it until 2100-01-02"):
        rollback(registry, name, who="desk", why="jumps", now=NOW + timedelta(days=1))
    assert holders(registry, name) == {"champion": 2}
    rollback(registry, name, who="desk", why="jumps", now=NOW + timedelta(hours=23))
    assert holders(registry, name) == {"champion": 1}


def test_a_champion_whose_override_ended_is_not_champion_already(register, act, failed):
    register(1.0, failed)
    act(1, override=leave(1.0))
    with pytest.raises(InputError, match="is champion already"):
        act(1)
    with pytest.raises(CheckFailedError, match=r"until 2100-01-02 .* is over"):
        act(1, now=NOW + timedelta(days=1))


def test_what_is_so_already_is_said(register, act):
    register(1.0)
    act(1)
    with pytest.raises(InputError, match="is champion already"):
        act(1)


def test_an_unknown_alias_or_version_is_refused(register, act):
    register(1.0)
    with pytest.raises(InputError, match="champion, challenger, shadow"):
        act(1, "production")
    with pytest.raises(InputError, match="not found"):
        act(7)


def test_a_changed_bundle_is_not_promoted(register, registry, name, act, store):
    version = register(1.0)
    (stored,) = (store / "mlruns" / "artifacts" / version.run_id).rglob("480m/factors.json")
    stored.write_text("[[9, 9], [9, 9]]")
    with pytest.raises(BundleError, match=r"480m/factors\.json was changed"):
        act(1)
    assert holders(registry, name) == {}


def test_nothing_is_promoted_on_a_broken_ledger(register, registry, name, act):
    register(1.0)
    registry.ledger.path.write_text("edited\n")
    with pytest.raises(LedgerError, match="line 1"):
        act(1)
    assert registry.aliases(name) == {}


def test_an_outage_between_line_and_alias_is_withdrawn(register, registry, name, act, monkeypatch):
    register(1.0)
    register(2.0)
    act(1)

    def fail(*_):
        raise InputError("MLflow went away\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "point", fail)
        with pytest.raises(InputError, match="went away"):
            act(2)
    last = registry.ledger.read()[-1]
    assert (last.kind, last.why) == ("withdrawal", "not done: MLflow went away")
    assert holders(registry, name) == {"champion": 1}


CRASH = """
import os, signal, sys
from pathlib import Path
from margincast.serving.promotion import promote
from margincast.serving.registry import Registry

uri, workspace, model, version = sys.argv[1:]
registry = Registry(uri, Path(workspace))

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

registry.point = die
promote(registry, model, "champion", int(version), who="desk", why="killed")
"""


def test_a_crash_between_ledger_and_mlflow_is_seen_and_mended_by_promoting_again(
    register, registry, name, act
):
    register(1.0)
    register(2.0)
    act(1)
    act(2, "challenger")
    ended = subprocess.run(  # noqa: S603 - our own interpreter on the text above
        [sys.executable, "-c", CRASH, registry.uri, registry.workspace, name, "2"],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.returncode == -signal.SIGKILL
    standing = standing_of(registry.ledger.read(), name)
    assert set(differences(standing, registry.aliases(name))) == {"champion", "challenger"}
    with pytest.raises(CheckFailedError, match=r"in doubt: line 5 .* says version 2"):
        resolve_champion(registry, name)
    act(2)
    assert kinds(registry)[-1] == "repair"
    assert holders(registry, name) == {"champion": 2}
    assert resolve_champion(registry, name).version.version == 2


def test_an_end_between_two_aliases_is_mended_likewise(register, registry, name, act, monkeypatch):
    register(1.0)
    act(1, "challenger")

    def leave_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry, "clear", leave_off)
        with pytest.raises(KeyboardInterrupt):
            act(1)
    assert registry.aliases(name) == {"champion": 1, "challenger": 1}
    # the champion is not in doubt, the challenger is
    assert resolve_champion(registry, name).version.version == 1
    act(1)
    assert holders(registry, name) == {"champion": 1}


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(
    register, registry, name, monkeypatch
):
    for factor in (1.0, 2.0, 3.0):
        register(factor)
    promote(registry, name, "champion", 1, who="first", why="passed")
    both = threading.Barrier(2)
    fetch = Registry.fetch

    def wait_for_the_other(self, found, folder):
        # both have read the ledger, neither has written
        both.wait(timeout=30)
        return fetch(self, found, folder)

    monkeypatch.setattr(Registry, "fetch", wait_for_the_other)
    outcomes = {}

    def run(version):
        try:
            own = Registry(registry.uri, registry.workspace)
            outcomes[version] = promote(own, name, "champion", version, who=f"v{version}", why="x")
        except OvertakenError as error:
            outcomes[version] = error

    threads = [threading.Thread(target=run, args=(version,)) for version in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (v for v, outcome in outcomes.items() if not isinstance(outcome, OvertakenError))
    loser = 5 - winner
    assert f"v{winner} was faster" in str(outcomes[loser])
    assert holders(registry, name) == {"champion": winner}
    assert kinds(registry).count("promotion") == 2
