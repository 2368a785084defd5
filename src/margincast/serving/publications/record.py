"""What a publication says of itself: who, when, why, from what, and the digests of its files.

Every record holds the digest of the one before, as lines of the ledger do, so that a publication
that was edited, removed or slipped in is found out.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal, get_args

from margincast.core.digest import digest_of
from margincast.core.errors import PublicationError
from margincast.serving.manifest import json_bytes
from margincast.serving.scored import Origin

Kind = Literal["publish", "revert"]
"""``publish``: margins made by a policy; ``revert``: those of an earlier publication again."""

FORMAT = "margincast-publication"
FORMAT_VERSION = 1
RECORD = "manifest.json"
FIRST_PREVIOUS = "0" * 64
"""What the first publication names as the one before it."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIMES = ("at", "published_at", "data_as_of")


@dataclass(frozen=True)
class Record:
    """What ``manifest.json`` says; its own digest is the publication's identity.

    Attributes:
        number: 1 for the first.
        kind: of act.
        policy: name of the margin policy.
        at: moment the margins were made for, UTC.
        published_at: when they were published, UTC.
        by: the person or service that published them.
        reason: why.
        origin: model, feature set and policy behind every number.
        bundle_digest: identity of the model's bundle; empty where there was no model.
        data_as_of: newest data behind a margin; None where there is none.
        reverts_to: number of the publication that is in force again; None for ``publish``.
        contracts: how many.
        levels: how many.
        previous_digest: digest of the publication before.
        libraries: versions that made it.
        files: SHA-256 of every file, by its path inside the folder.
        digest: SHA-256 of all of the above.
    """

    number: int
    kind: Kind
    policy: str
    at: datetime
    published_at: datetime
    by: str
    reason: str
    origin: Origin
    bundle_digest: str
    data_as_of: datetime | None
    reverts_to: int | None
    contracts: int
    levels: int
    previous_digest: str
    libraries: Mapping[str, str]
    files: Mapping[str, str]
    digest: str = ""

    @property
    def body(self) -> dict[str, Any]:
        """All but the digest, JSON-like."""
        body = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "digest"}
        for name in _TIMES:
            if body[name] is not None:
                body[name] = body[name].isoformat()
        body["origin"] = asdict(self.origin)
        body |= {"libraries": dict(self.libraries), "files": dict(self.files)}
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **body}

    @property
    def content(self) -> bytes:
        """The file, digest included."""
        return json_bytes({**self.body, "digest": digest_of(self.body)}, RECORD)


def parse_record(content: bytes, name: str) -> Record:
    """Read a record, and check it against its own digest.

    Args:
        content: of the file.
        name: of the publication, for messages.

    Raises:
        PublicationError: it is of another format, or was changed.
    """
    try:
        raw = json.loads(content)
        stated = (raw.pop("format"), raw.pop("format_version"))
        if stated != (FORMAT, FORMAT_VERSION):
            raise PublicationError(
                f"publication {name}: {RECORD} says format {stated[0]!r} version {stated[1]!r}; "
                f"this version of margincast reads {FORMAT!r} version {FORMAT_VERSION}"
            )
        for time in _TIMES:
            if raw[time] is not None:
                raw[time] = datetime.fromisoformat(raw[time])
        raw["origin"] = Origin(**raw["origin"])
        record = Record(**raw)
        sound = (
            record.kind in get_args(Kind)
            and record.content == content
            and all(_DIGEST.fullmatch(digest) for digest in record.files.values())
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PublicationError(
            f"publication {name}: {RECORD} is not a record of one ({error}); restore the folder "
            "from a backup"
        ) from error
    if not sound:
        raise PublicationError(
            f"publication {name}: {RECORD} was changed after it was published; restore the folder "
            "from a backup"
        )
    return record
