"""A line of the ledger: what is written down when a model, or a person, is made to set margins.

Two formats are read. Format 2 names the kind of act and its details as values; of format 1, which
had only sentences, they are read from the sentence. What was written once is never written anew.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from margincast.core.digest import canonical_json, digest_of
from margincast.core.errors import InputError

Kind = Literal[
    "registration", "promotion", "override", "refusal", "rollback", "withdrawal", "repair",
    "margin override", "margin override end", "job start", "job end", "service start", "key",
    "key end",
]  # fmt: skip
"""``registration``: a version came to be; ``promotion``: it got an alias; ``override``: it became
champion although its gate failed, for a time; ``refusal``: it was not allowed to; ``rollback``: the
champion before came back; ``withdrawal``: an act written down could not be carried out; ``repair``:
MLflow's alias was put back to what the ledger says; ``margin override``: a person set a margin by
hand, for a time; ``margin override end``: it was ended before that; ``job start``: an alarm of a
monitor started a training job; ``job end``: how that ended. In the audit log of a service:
``service start``; ``key``: a caller was given one; ``key end``: it was revoked."""
KINDS: tuple[Kind, ...] = get_args(Kind)

FORMAT = 2
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEXTS = ("when", "who", "what", "why", "evidence_digest", "previous_hash")
_SENTENCE = re.compile(
    r"(?P<withdrawn>withdrawn: )?(?P<alias>champion|challenger|shadow) of (?P<model>\S+): "
    r"version (?P<before>none|\d+) -> (?P<version>\d+)"
)


@dataclass(frozen=True)
class LedgerEntry:
    """One line of the ledger.

    Attributes:
        number: 1 for the first line.
        when: ISO 8601, UTC.
        who: the person or service that acted.
        what: the act, for example ``champion of perp-8h: version 3 -> 4``.
        why: the reason given.
        evidence_digest: SHA-256 of the evidence (the gate's verdict) the act rests on.
        previous_hash: hash of the line before.
        hash: SHA-256 of the canonical JSON of all the others that its format has.
        kind: the kind of act; empty for a sentence of format 1 that is no promotion.
        details: the act as values, such as ``model``, ``alias`` and ``version``.
        format: 1 or 2.
    """

    number: int
    when: str
    who: str
    what: str
    why: str
    evidence_digest: str
    previous_hash: str
    hash: str
    kind: Kind | Literal[""] = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def instant(self) -> datetime:
        """When, as a time."""
        return datetime.fromisoformat(self.when)

    @property
    def record(self) -> dict[str, Any]:
        """The line as values, as it stands in the file."""
        record = {name: getattr(self, name) for name in ("number", *_TEXTS, "hash")}
        if self.format > 1:
            record |= {"kind": self.kind, "details": dict(self.details), "format": self.format}
        return record

    @property
    def true_hash(self) -> str:
        """What the hash must be."""
        return digest_of({name: value for name, value in self.record.items() if name != "hash"})

    @property
    def line(self) -> bytes:
        """The line as bytes."""
        return canonical_json(self.record).encode() + b"\n"


def new_entry(
    number: int,
    previous_hash: str,
    *,
    kind: Kind,
    who: str,
    what: str,
    why: str,
    evidence_digest: str,
    details: Mapping[str, Any],
    when: datetime,
) -> LedgerEntry:
    """Make a line that follows another.

    Raises:
        InputError: a text is empty, the digest is none, or the time has no timezone.
    """
    texts = {"who": who, "what": what, "why": why}
    empty = [name for name, text in texts.items() if not text.strip()]
    if empty:
        raise InputError(f"a ledger line must say {', '.join(empty)}; found an empty text")
    if kind not in KINDS:
        raise InputError(f"{kind!r} is no kind of ledger line; kinds are {', '.join(KINDS)}")
    if not _DIGEST.fullmatch(evidence_digest):
        raise InputError(
            f"evidence_digest must be a SHA-256 in hex (64 digits), found {evidence_digest!r}"
        )
    if when.tzinfo is None:
        raise InputError(f"the time of a ledger line needs a timezone, found {when}")
    body = {
        **texts,
        "number": number,
        "when": when.astimezone(UTC).isoformat(timespec="microseconds"),
        "evidence_digest": evidence_digest,
        "previous_hash": previous_hash,
        "kind": kind,
        # as it will be read back: tuples become lists, times texts
        "details": json.loads(canonical_json(dict(details))),
        "format": FORMAT,
    }
    return LedgerEntry(**body, hash=digest_of(body))


def parse_line(line: bytes) -> LedgerEntry:
    """Read a line; whether it is the true one and in its place is another question.

    Raises:
        ValueError: it is not JSON, or of a format not known here.
        TypeError: it is not a ledger entry.
    """
    raw = json.loads(line)
    if not isinstance(raw, dict):
        raise TypeError("a ledger entry is an object")
    stated = raw.get("format", 1)
    if type(raw.get("number")) is not int or not all(
        isinstance(raw.get(name), str) for name in (*_TEXTS, "hash")
    ):
        raise TypeError("a ledger entry holds a number and texts")
    if stated == 1 and "format" not in raw:
        kind, details = _of_sentence(raw["what"])
        return LedgerEntry(**raw, kind=kind, details=details, format=1)
    if stated != FORMAT or raw.get("kind") not in KINDS or not isinstance(raw["details"], dict):
        raise ValueError(f"format {stated!r}, kind {raw.get('kind')!r}")
    datetime.fromisoformat(raw["when"])
    return LedgerEntry(**raw)


def _of_sentence(what: str) -> tuple[Kind | Literal[""], dict[str, Any]]:
    found = _SENTENCE.fullmatch(what)
    if found is None:
        return "", {}
    before = found["before"]
    details = {
        "model": found["model"],
        "alias": found["alias"],
        "before": None if before == "none" else int(before),
        "version": int(found["version"]),
    }
    return ("withdrawal" if found["withdrawn"] else "promotion"), details
