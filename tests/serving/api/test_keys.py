"""Keys: shown once, kept as digests, two at a time, refused when their time is over."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from margincast.core.errors import InputError
from margincast.serving.api.keys import KeyFile, KeyRing

NOW = datetime(2026, 1, 10, tzinfo=UTC)


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path / "deep" / "keys.json")


def test_a_key_opens_what_it_was_made_for_and_its_secret_is_not_kept(file):
    key, shown = file.create("desk", ["score", "read"], expires=None, now=NOW)
    caller = KeyRing(file.read()).caller(shown, NOW)
    assert (caller.name, caller.scopes, caller.key) == ("desk", {"read", "score"}, key.identifier)
    secret = shown.rpartition("_")[2] if shown.count("_") == 2 else shown.split("_", 2)[2]
    assert secret not in file.path.read_text()
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_every_changed_character_closes_it(file):
    _, shown = file.create("desk", ["read"], expires=None, now=NOW)
    ring = KeyRing(file.read())
    for place in range(len(shown)):
        other = shown[:place] + ("a" if shown[place] != "a" else "b") + shown[place + 1 :]
        assert ring.caller(other, NOW) is None, place
    for text in ("", "mc_", shown + "x", shown[:-1], f" {shown}", shown.upper(), "é" * 60):
        assert ring.caller(text, NOW) is None


def test_keys_expire_and_are_revoked(file):
    _, brief = file.create("desk", ["read"], expires=NOW + timedelta(hours=1), now=NOW)
    key, lasting = file.create("desk", ["read"], expires=None, now=NOW)
    ring = KeyRing(file.read())
    assert ring.caller(brief, NOW) is not None
    assert ring.caller(brief, NOW + timedelta(hours=1)) is None
    file.revoke(key.identifier, now=NOW)
    assert KeyRing(file.read()).caller(lasting, NOW) is None
    with pytest.raises(InputError, match="was revoked at"):
        file.revoke(key.identifier, now=NOW)
    with pytest.raises(InputError, match=f"did you mean '{key.identifier}'"):
        file.revoke(key.identifier[:-1], now=NOW)


def test_a_holder_has_two_valid_keys_at_most_so_that_one_can_take_the_others_place(file):
    old, _ = file.create("desk", ["read"], expires=None, now=NOW)
    file.create("desk", ["read"], expires=None, now=NOW)
    with pytest.raises(InputError, match="has 2 valid keys already"):
        file.create("desk", ["read"], expires=None, now=NOW)
    file.create("another desk", ["read"], expires=None, now=NOW)
    file.revoke(old.identifier, now=NOW)
    file.create("desk", ["read"], expires=None, now=NOW)
    assert [key.state(NOW) for key in file.read()] == ["revoked", "valid", "valid", "valid"]


@pytest.mark.parametrize(
    ("holder", "scopes", "hours", "message"),
    [
        ("desk", [], 1, "found none"),
        ("desk", ["write"], 1, "scopes are read, score, publish, admin, found 'write'"),
        ("", ["read"], 1, "a holder's name"),
        ("a\nb", ["read"], 1, "a holder's name"),
        ("desk", ["read"], -1, "is over already"),
    ],
)
def test_what_no_key_can_be_made_of_is_refused(file, holder, scopes, hours, message):
    with pytest.raises(InputError, match=message):
        file.create(holder, scopes, expires=NOW + timedelta(hours=hours), now=NOW)
    assert not file.path.exists()


def test_a_damaged_file_or_one_that_others_can_read_is_refused(file):
    file.create("desk", ["read"], expires=None, now=NOW)
    file.path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        file.read()
    file.path.chmod(0o600)
    raw = json.loads(file.path.read_text())
    file.path.write_text(json.dumps({"keys": [{**raw["keys"][0], "admin": True}]}))
    with pytest.raises(InputError, match="is damaged"):
        file.read()


@pytest.mark.parametrize(
    "damage",
    [
        {"salt": "zz"},
        {"salt": "00"},
        {"digest": "00"},
        {"expires": "never"},
        {"expires": "2030-01-01T00:00:00"},
        {"scopes": "admin"},
        {"scopes": ["root"]},
        {"holder": 5},
    ],
)
def test_a_key_that_could_not_be_checked_is_damage(file, damage):
    file.create("desk", ["read"], expires=None, now=NOW)
    raw = json.loads(file.path.read_text())
    file.path.write_text(json.dumps({"keys": [{**raw["keys"][0], **damage}]}))
    with pytest.raises(InputError, match="is damaged"):
        file.read()
