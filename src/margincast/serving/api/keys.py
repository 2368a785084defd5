"""API keys: who may ask the service for what.

A key is ``mc_IDENTIFIER_SECRET`` with a random secret of 256 bits, shown once, when it is made. The
file keeps a salted BLAKE2b digest of it. A slow hash (scrypt) is for passwords that people choose
and others can guess; a secret of 256 bits cannot be guessed at any speed, and a fast hash lets
every request be checked in microseconds (OWASP, Password Storage Cheat Sheet, on slow hashes for
human passwords; RFC 7693 for BLAKE2).
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from margincast.core.errors import InputError, did_you_mean
from margincast.specs.service import SCOPES, Scope

MOST_VALID = 2
"""Keys of one holder that may be valid at a time: the old one and, while it changes, the new."""
_KEY = re.compile(r"mc_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_HOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
_NOBODY = b"\x00" * 32
_SALT_BYTES = 16


@dataclass(frozen=True)
class Key:
    """What is kept of a key.

    Attributes:
        identifier: its public part, 12 hexadecimal digits.
        holder: who it was given to.
        scopes: what it allows.
        created: when it was made, UTC, ISO 8601.
        expires: from when on it is refused; empty: never.
        revoked: since when it is refused; empty: it is not.
        salt: of the digest, hexadecimal.
        digest: of salt and secret, hexadecimal.
    """

    identifier: str
    holder: str
    scopes: tuple[Scope, ...]
    created: str
    expires: str
    revoked: str
    salt: str
    digest: str

    def state(self, now: datetime) -> str:
        """Return ``valid``, ``expired`` or ``revoked``."""
        if self.revoked:
            return "revoked"
        if self.expires and now >= datetime.fromisoformat(self.expires):
            return "expired"
        return "valid"


class KeyFile:
    """The file of all keys ever made; only its owner may read it.

    Args:
        path: the file; it comes into being with the first key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Key, ...]:
        """Return all keys, oldest first.

        Raises:
            InputError: the file is damaged, or others than its owner may read it.
        """
        try:
            if self.path.stat().st_mode & 0o077:
                raise InputError(
                    f"{self.path} can be read or written by others than its owner; run "
                    f"chmod 600 {self.path}"
                )
            content = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be read ({error.strerror}); it must belong to who "
                "serves: make keys as that user, or chown it"
            ) from error
        try:
            return tuple(_key(one) for one in json.loads(content)["keys"])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{self.path} is damaged ({error}); restore it from a backup, or remove it and "
                "make new keys"
            ) from error

    def create(
        self, holder: str, scopes: Sequence[str], *, expires: datetime | None, now: datetime
    ) -> tuple[Key, str]:
        """Make a key.

        Args:
            holder: who it is for.
            scopes: what it allows.
            expires: from when on it is refused; None: never.
            now: the time of making.

        Returns:
            What is kept, and the key itself, which is not.

        Raises:
            InputError: a name or scope that is none, an expiry that is over, or the holder has two
                valid keys already.
        """
        _require(holder, scopes, expires, now)
        with self._locked():
            keys = self.read()
            valid = [k for k in keys if k.holder == holder and k.state(now) == "valid"]
            if len(valid) >= MOST_VALID:
                names = " and ".join(key.identifier for key in valid)
                raise InputError(
                    f"{holder} has {len(valid)} valid keys already ({names}): revoke the older one "
                    "first, two are enough to change from one to the other"
                )
            identifier, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
            salt = secrets.token_bytes(_SALT_BYTES)
            key = Key(
                identifier,
                holder,
                tuple(scope for scope in SCOPES if scope in scopes),
                created=_text(now),
                expires=_text(expires) if expires is not None else "",
                revoked="",
                salt=salt.hex(),
                digest=_digest(secret, salt).hex(),
            )
            self._write((*keys, key))
        return key, f"mc_{identifier}_{secret}"

    def revoke(self, identifier: str, *, now: datetime) -> Key:
        """Refuse a key from now on.

        Raises:
            InputError: there is no such key, or it is revoked already.
        """
        with self._locked():
            keys = self.read()
            known = {key.identifier: key for key in keys}
            if identifier not in known:
                raise InputError(
                    f"no key {identifier!r}{did_you_mean(identifier, known)}; "
                    "`margincast keys list` names them"
                )
            if known[identifier].revoked:
                raise InputError(f"key {identifier} was revoked at {known[identifier].revoked}")
            gone = replace(known[identifier], revoked=_text(now))
            self._write([gone if key.identifier == identifier else key for key in keys])
        return gone

    def _write(self, keys: Sequence[Key]) -> None:
        text = json.dumps({"keys": [asdict(key) for key in keys]}, indent=1)
        temporary = self.path.with_name(f"{self.path.name}.new")
        temporary.unlink(missing_ok=True)
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f"{self.path.name}.lock").open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: holder of the key, or the address of who shows none.
        scopes: what he may ask for.
        key: identifier of the key; empty without one.
    """

    name: str
    scopes: frozenset[Scope]
    key: str = ""


class KeyRing:
    """The keys as the service checks them.

    Args:
        keys: all keys.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys: Mapping[str, tuple[Key, bytes, bytes, Caller]] = {
            key.identifier: (
                key,
                bytes.fromhex(key.salt),
                bytes.fromhex(key.digest),
                Caller(key.holder, frozenset(key.scopes), key.identifier),
            )
            for key in keys
        }

    def __len__(self) -> int:
        return len(self._keys)

    def still_opens(self, caller: Caller, now: datetime) -> bool:
        """Say whether who was let in would be let in now; without a key he would."""
        found = self._keys.get(caller.key)
        return not caller.key or (found is not None and found[0].state(now) == "valid")

    def caller(self, shown: str, now: datetime) -> Caller | None:
        """Return who shows a key, or None where it is not a valid one.

        A wrong secret is compared in constant time, and an unknown identifier costs as much.
        """
        match = _KEY.fullmatch(shown)
        if match is None:
            return None
        found = self._keys.get(match[1])
        salt, expected = found[1:3] if found is not None else (_NOBODY[:_SALT_BYTES], _NOBODY)
        same = hmac.compare_digest(_digest(match[2], salt), expected)
        if not same or found is None or found[0].state(now) != "valid":
            return None
        return found[3]


def _key(raw: Mapping[str, Any]) -> Key:
    """Return a key as the file holds it.

    Raises:
        ValueError: it is none.
    """
    key = Key(**{**raw, "scopes": tuple(raw["scopes"])})
    for name in ("identifier", "holder", "created", "expires", "revoked", "salt", "digest"):
        if not isinstance(getattr(key, name), str):
            raise TypeError(f"{name} is no text")
    if not set(key.scopes) <= set(SCOPES):
        raise ValueError(f"scopes of key {key.identifier} are {key.scopes}")
    for time in (key.created, key.expires, key.revoked):
        if time and datetime.fromisoformat(time).tzinfo is None:
            raise ValueError(f"{time} of key {key.identifier} has no time zone")
    if len(bytes.fromhex(key.salt)) != _SALT_BYTES or len(bytes.fromhex(key.digest)) != len(
        _NOBODY
    ):
        raise ValueError(f"salt or digest of key {key.identifier} is cut off")
    return key


def _digest(secret: str, salt: bytes) -> bytes:
    return hashlib.blake2b(
        secret.encode(), salt=salt, digest_size=32, person=b"margincast key"
    ).digest()


def _text(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds")


def _require(holder: str, scopes: Sequence[str], expires: datetime | None, now: datetime) -> None:
    if not _HOLDER.fullmatch(holder):
        raise InputError(
            f"--name {holder!r}: a holder's name is up to 64 letters, digits, spaces and . _ @ -"
        )
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        found = ", ".join(map(repr, unknown)) or "none"
        raise InputError(f"--scopes: scopes are {', '.join(SCOPES)}, found {found}")
    if expires is not None and expires <= now:
        raise InputError(f"--expires: {_text(expires)} is over already")
