"""Margins set by hand, on the record: who may set what, what holds when, and how it ends."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from margincast.core.errors import InputError, LedgerError
from margincast.serving.ledger import Ledger
from margincast.serving.margin_overrides import (
    Wish,
    end_override,
    overrides_at,
    recorded_overrides,
    set_override,
)
from margincast.serving.standing import standing_of
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

SERVING = Path(__file__).resolve().parents[2] / "serving"
SCHEDULE = load_spec(SERVING / "schedules" / "perpetuals.toml", BaseSchedule)
POLICY = load_spec(SERVING / "perp-8h.toml", MarginPolicy)
NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "mlruns" / "ledger.jsonl")


def wish(**changes):
    plain = {
        "action": "raise",
        "mmr": 0.08,
        "symbol": "BTCUSDT",
        "side": None,
        "tier": None,
        "approver": "head of risk",
        "expires": NOW + 8 * HOUR,
    }
    return Wish(**(plain | changes))


def asked(ledger, now=NOW, policy=POLICY, **changes):
    return set_override(
        ledger,
        policy,
        SCHEDULE,
        wish(**changes),
        contracts=("BTCUSDT", "FTTUSDT"),
        who="night desk",
        why="an exchange stopped withdrawals",
        now=now,
    )


def test_an_override_is_a_line_of_the_ledger_and_holds_until_its_end(ledger):
    entry = asked(ledger)
    assert entry.what == "margin of perp-8h: BTCUSDT raised to 8 % until 2024-05-01 20:00 UTC"
    assert (entry.who, entry.why) == ("night desk", "an exchange stopped withdrawals")
    (found,) = overrides_at(ledger.read(), POLICY, NOW)
    assert (found.line, found.mmr, found.symbol) == (1, 0.08, "BTCUSDT")
    assert (found.approver, found.expires) == ("head of risk", NOW + 8 * HOUR)
    for moment, holds in ((-HOUR, 0), (8 * HOUR - timedelta(microseconds=1), 1), (8 * HOUR, 0)):
        assert len(overrides_at(ledger.read(), POLICY, NOW + moment)) == holds
    other = POLICY.model_copy(update={"name": "perp-1h"})
    assert overrides_at(ledger.read(), other, NOW) == ()
    # the promotions of a model are not concerned
    assert standing_of(ledger.read(), "perp-8h").holders == {}


def test_an_expired_override_says_so(ledger):
    asked(ledger)
    (one,) = recorded_overrides(ledger.read(), "perp-8h")
    assert one.state(NOW) == "in force"
    assert one.state(NOW + 9 * HOUR) == "expired at 2024-05-01 20:00 UTC: no effect any more"


def test_an_override_ends_before_its_time_once(ledger):
    asked(ledger)
    entry = end_override(ledger, 1, who="day desk", why="withdrawals are open", now=NOW + HOUR)
    assert "override of line 1 ended (BTCUSDT both sides all tiers, raise to 8 %)" in entry.what
    assert len(overrides_at(ledger.read(), POLICY, NOW + HOUR - timedelta(seconds=1))) == 1
    assert overrides_at(ledger.read(), POLICY, NOW + HOUR) == ()
    with pytest.raises(InputError, match="line 1 is over: ended by day desk at 2024-05-01 13:00"):
        end_override(ledger, 1, who="day desk", why="again", now=NOW + 2 * HOUR)
    with pytest.raises(InputError, match=r"line 2 of the ledger sets no margin; .*: none"):
        end_override(ledger, 2, who="day desk", why="wrong line", now=NOW + 2 * HOUR)


def test_all_contracts_and_the_speed_limit(ledger):
    asked(ledger, symbol=None, action="lift", mmr=None, side="short")
    (found,) = overrides_at(ledger.read(), POLICY, NOW)
    assert (found.symbol, found.side, found.action) == (None, "short", "lift")
    assert found.text == "lift the speed limit"


def test_a_changed_line_is_refused(ledger):
    asked(ledger)
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"mmr":0.08', b'"mmr":0.01'))
    with pytest.raises(LedgerError, match="line 1: it was changed after it was written"):
        asked(ledger)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expires": NOW}, r"must end in the future, found 2024-05-01 12:00 UTC"),
        ({"expires": NOW - HOUR}, "must end in the future"),
        ({"approver": " "}, r"needs the name of who approves it \(--approver\)"),
        ({"approver": "Night Desk"}, "approved by another person than who asks for it"),
        ({"symbol": "BTCUSD"}, r"unknown contract 'BTCUSD' \(did you mean 'BTCUSDT'\?\)"),
        ({"side": "both"}, "'both' is no side; sides are long, short"),
        ({"tier": 9}, "BTCUSDT has tiers 1 to 8, found 9"),
        ({"tier": 0}, "BTCUSDT has tiers 1 to 8, found 0"),
        ({"tier": 1, "symbol": None}, "name the contract too"),
        ({"mmr": 5.0}, r"500 % lies above limits.mmr_cap = 50 % .*: 0.05 is 5 %"),
        ({"mmr": 0.0005}, r"0.05 % lies below 0.4 %, the larger of limits.mmr_floor and the fees"),
        ({"mmr": 0.0803}, "multiple of rounding.mmr_step = 0.0005, found 0.0803"),
        ({"mmr": float("nan")}, "give the rate as a fraction"),
        ({"mmr": None}, "give the rate as a fraction"),
        ({"action": "lift"}, "lifting the speed limit takes no rate"),
        ({"action": "lower"}, "'lower' is no override; there are raise, fix, lift"),
    ],
)
def test_what_cannot_be_set_is_refused_and_leaves_no_line(ledger, changes, said):
    with pytest.raises(InputError, match=said):
        asked(ledger, **changes)
    assert ledger.read() == ()


def test_a_policy_without_a_limit_has_none_to_lift(ledger):
    bare = POLICY.model_copy(update={"speed": None})
    with pytest.raises(InputError, match="has no speed limit to lift"):
        asked(ledger, policy=bare, action="lift", mmr=None)
