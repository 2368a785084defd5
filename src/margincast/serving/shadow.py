"""The shadow: the version that is scored beside the champion and never published.

It may have failed its gate, so there is nothing to ask but that it is the version that was given
the alias, and that its bundle is the one that was registered.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from margincast.core.errors import BundleError, CheckFailedError
from margincast.serving.champion import require_record
from margincast.serving.manifest import verify_bundle
from margincast.serving.registry import RegisteredVersion, Registry
from margincast.serving.standing import differences, standing_of

KEPT = Path("mlruns") / "shadow"
"""Where a workspace keeps the bundles of shadows."""


@dataclass(frozen=True)
class Shadow:
    """The version that is compared with the champion.

    Attributes:
        version: which one it is.
        bundle_directory: its verified bundle on this disk.
    """

    version: RegisteredVersion
    bundle_directory: Path


def resolve_shadow(registry: Registry, name: str) -> Shadow | None:
    """Return the shadow of a model and the local folder of its verified bundle; None for none.

    Raises:
        CheckFailedError: ledger and MLflow name different shadows, or its record was changed.
        LedgerError: the ledger does not verify.
        BundleError: the bundle is not the one that was registered.
        StoreUnreachableError: MLflow or its artifacts cannot be reached.
    """
    standing = standing_of(registry.ledger.read(), name)
    found = registry.at_alias(name, "shadow")
    if found is None and "shadow" not in standing.holders:
        return None
    aliases = {} if found is None else {"shadow": found.version}
    problem = differences(standing, aliases).get("shadow")
    if problem or found is None:
        raise CheckFailedError(f"who is shadow of {name!r} is in doubt: {problem}")
    require_record(found, standing)
    folder = registry.workspace.resolve() / KEPT / name
    kept = folder / found.bundle_digest[:16]
    try:
        verify_bundle(kept, found.bundle_digest)
    except BundleError:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch.") as temporary:
            fetched = registry.fetch(found, Path(temporary))
            # earlier shadows are not asked again
            for other in folder.iterdir():
                if other.is_dir() and not other.name.startswith("."):
                    shutil.rmtree(other)
            fetched.rename(kept)
    return Shadow(found, kept)
