"""The last good champion on this disk, from which margins are computed while MLflow is down.

``mlruns/last_good/MODEL`` holds the champion's bundle as last fetched, its predecessor's, and a
note that says which is which.
"""

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from margincast.core.digest import canonical_json
from margincast.core.errors import BundleError, InputError
from margincast.serving.manifest import verify_bundle
from margincast.serving.registry import RegisteredVersion, Registry

_NOTE = "current.json"


class LastGood:
    """What a workspace keeps of one model's champions.

    Args:
        registry: where bundles are fetched from.
        name: the registered model.
    """

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._folder = registry.workspace.resolve() / "mlruns" / "last_good" / name

    def fetch(self, found: RegisteredVersion) -> Path:
        """Return the champion's bundle from the disk if it is there and whole, else from MLflow.

        Raises:
            StoreUnreachableError: it is not on the disk, and MLflow cannot be reached.
            BundleError: MLflow's is not the one that was registered.
        """
        kept = self._folder / found.bundle_digest[:16]
        try:
            verify_bundle(kept, found.bundle_digest)
        except BundleError:
            self._download(found, kept)
        self._keep(found)
        return kept

    def read(self) -> tuple[RegisteredVersion, Path] | None:
        """Return the champion as last fetched and its verified bundle; None if there is none.

        Raises:
            BundleError: the bundle on the disk was changed.
            InputError: the note is damaged.
        """
        kept = _read_note(self._folder / _NOTE)
        if kept is None:
            return None
        directory = self._folder / kept.bundle_digest[:16]
        verify_bundle(directory, kept.bundle_digest)
        return kept, directory

    def _download(self, found: RegisteredVersion, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch.") as temporary:
            fetched = self._registry.fetch(found, Path(temporary))
            if target.exists():
                shutil.rmtree(target)
            fetched.rename(target)

    def _keep(self, found: RegisteredVersion) -> None:
        """Note the champion, and drop all bundles but its own and its predecessor's."""
        note = self._folder / _NOTE
        before = _read_note(note)
        if before != found:
            temporary = note.with_suffix(".new")
            temporary.write_text(canonical_json(asdict(found)), encoding="ascii")
            temporary.replace(note)
            wanted = {seen.bundle_digest[:16] for seen in (found, before) if seen is not None}
            for other in self._folder.iterdir():
                if other.is_dir() and not other.name.startswith(".") and other.name not in wanted:
                    shutil.rmtree(other, ignore_errors=True)


def _read_note(path: Path) -> RegisteredVersion | None:
    try:
        return RegisteredVersion(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, it is written again") from error
