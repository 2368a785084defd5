"""The model registry: which version sets the margin now, and from which folder it is read.

Versions live in MLflow, each with its bundle, the gate's verdict and the bundle's digest. The
champion's bundle is also kept on disk (``mlruns/last_good``), so that margins can still be
computed while MLflow is down. A version without a passed gate is neither made champion nor served.
"""

import json
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from margincast.core.digest import canonical_json
from margincast.core.errors import BundleError, CheckFailedError, InputError
from margincast.serving.gate import GateVerdict
from margincast.serving.ledger import Ledger, LedgerEntry
from margincast.serving.manifest import verify_bundle
from margincast.serving.mlflow_model import save_pyfunc
from margincast.training.tracking import StoreUnreachableError, connect, resolve_uri, store_errors

Alias = Literal["champion", "challenger", "shadow"]
ALIASES: tuple[Alias, ...] = ("champion", "challenger", "shadow")

GATE_TAG = "margincast.gate_passed"
GATE_DIGEST_TAG = "margincast.gate_digest"
BUNDLE_TAG = "margincast.bundle_digest"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CURRENT = "current.json"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model.

    Attributes:
        name: the registered model.
        version: 1 for the first.
        run_id: the MLflow run it came from.
        bundle_digest: identity of its bundle.
        gate_passed: whether the gate said yes.
        gate_digest: SHA-256 of the gate's verdict.
    """

    name: str
    version: int
    run_id: str
    bundle_digest: str
    gate_passed: bool
    gate_digest: str


@dataclass(frozen=True)
class Champion:
    """The model that sets the margin.

    Attributes:
        version: which one it is.
        bundle_directory: its verified bundle on this disk.
        from_last_good: MLflow could not be asked; this is the champion as last known.
        reason: why, if so; otherwise empty.
    """

    version: RegisteredVersion
    bundle_directory: Path
    from_last_good: bool
    reason: str


class Registry:
    """The registered models of a workspace. Making one asks nothing of MLflow yet.

    Args:
        uri: tracking URI; a relative SQLite path starts at ``workspace``.
        workspace: the operator's folder.

    Raises:
        InputError: the URI is none MLflow accepts.
    """

    def __init__(self, uri: str, workspace: Path) -> None:
        self.uri = resolve_uri(uri, workspace)
        self._workspace = workspace
        self._last_good = workspace.resolve() / "mlruns" / "last_good"

    def register(
        self, name: str, bundle_directory: Path, run_id: str, verdict: GateVerdict
    ) -> RegisteredVersion:
        """Log a bundle in its run and make it a new version of a registered model.

        Done again for the same run and bundle, after an answer was lost, it returns the version.

        Raises:
            BundleError: the bundle does not verify.
            InputError: the name cannot be used, or MLflow refused or cannot be reached.
        """
        manifest = verify_bundle(bundle_directory)
        client = self._connect(name)
        folder = _artifact_folder(manifest.digest)
        tags = {
            GATE_TAG: "yes" if verdict.passed else "no",
            GATE_DIGEST_TAG: verdict.digest(),
            BUNDLE_TAG: manifest.digest,
        }
        with store_errors(self.uri), tempfile.TemporaryDirectory() as temporary:
            model = save_pyfunc(bundle_directory, Path(temporary))
            client.log_artifacts(run_id, str(model), folder)
            source = f"{client.get_run(run_id).info.artifact_uri}/{folder}"
            try:
                client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            of_run = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
            known = [found for found in of_run if found.tags.get(BUNDLE_TAG) == manifest.digest]
            created = (
                known[0]
                if known
                else client.create_model_version(name, source, run_id=run_id, tags=tags)
            )
        return _registered(created)

    def version(self, name: str, version: int) -> RegisteredVersion:
        """Return a version.

        Raises:
            InputError: there is none, or MLflow cannot be reached.
        """
        client = self._connect(name)
        with store_errors(self.uri):
            return _registered(client.get_model_version(name, str(version)))

    def at_alias(self, name: str, alias: Alias) -> RegisteredVersion | None:
        """Return the version an alias points at, or None if it points at none.

        Raises:
            InputError: MLflow cannot be reached.
        """
        client = self._connect(name)
        with store_errors(self.uri):
            try:
                return _registered(client.get_model_version_by_alias(name, alias))
            except MlflowException as error:
                # an unknown alias is reported as an invalid parameter, an unknown model as missing
                if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                    return None
                raise

    def promote(
        self, name: str, alias: Alias, version: int, *, ledger: Ledger, who: str, why: str
    ) -> LedgerEntry:
        """Point an alias at a version, and write down who did it and why.

        The ledger's line comes first, so that no promotion can be missing from it; should MLflow
        then fail, a second line says that the promotion did not happen.

        Raises:
            CheckFailedError: a version whose gate did not pass was to become champion.
            InputError: no such alias or version, or MLflow or the ledger cannot be used.
            LedgerError: the ledger does not verify.
        """
        target = self._promotable(name, alias, version)
        before = self.at_alias(name, alias)
        act = f"{alias} of {name}: version {before.version if before else 'none'} -> {version}"
        digest = target.gate_digest
        entry = ledger.append(who=who, what=act, why=why, evidence_digest=digest)
        try:
            self.set_alias(name, alias, version)
        except InputError as error:
            reason = f"not done: {str(error).splitlines()[0]}"
            ledger.append(who=who, what=f"withdrawn: {act}", why=reason, evidence_digest=digest)
            raise
        return entry

    def set_alias(self, name: str, alias: Alias, version: int) -> None:
        """Point an alias at a version; :meth:`promote` also records it.

        Raises:
            CheckFailedError: a version whose gate did not pass was to become champion.
            InputError: no such alias or version, or MLflow cannot be reached.
        """
        self._promotable(name, alias, version)
        client = self._connect(name)
        with store_errors(self.uri):
            client.set_registered_model_alias(name, alias, str(version))

    def champion(self, name: str) -> Champion:
        """Return the champion and the local folder of its verified bundle.

        While MLflow or its artifacts cannot be reached it is the last good one, with the reason.

        Raises:
            CheckFailedError: the champion's gate did not pass (the alias was set by other means).
            BundleError: the bundle is not the one that was registered.
            InputError: there is no champion, or MLflow cannot be reached and nothing was kept.
        """
        try:
            found = self.at_alias(name, "champion")
            if found is None:
                raise InputError(
                    f"no version of {name!r} is champion; train a model that passes its gate, or "
                    "promote a version"
                )
            if not found.gate_passed:
                raise CheckFailedError(
                    f"version {found.version} of {name!r} is champion without a passed gate; it "
                    "is not served: promote a version that passed"
                )
            return Champion(found, self._fetch(found), from_last_good=False, reason="")
        except StoreUnreachableError as error:
            return self._from_last_good(name, str(error))

    def _connect(self, name: str) -> MlflowClient:
        _require_name(name)
        # only a tracker makes a store: a registry of nothing is a mistyped path
        return connect(self.uri, self._workspace, create=False)[0]

    def _promotable(self, name: str, alias: Alias, version: int) -> RegisteredVersion:
        if alias not in ALIASES:
            raise InputError(f"{alias!r} is no alias; aliases are {', '.join(ALIASES)}")
        found = self.version(name, version)
        if alias == "champion" and not found.gate_passed:
            raise CheckFailedError(
                f"version {version} of {name!r} did not pass its gate and cannot become champion; "
                "its run in MLflow says which check failed"
            )
        return found

    def _fetch(self, found: RegisteredVersion) -> Path:
        """Return the bundle from the disk if it is there and whole, else from MLflow."""
        kept = self._last_good / found.name / found.bundle_digest[:16]
        try:
            verify_bundle(kept, found.bundle_digest)
        except BundleError:
            self._download(found, kept)
        self._keep(found)
        return kept

    def _download(self, found: RegisteredVersion, target: Path) -> None:
        client = self._connect(found.name)
        with store_errors(self.uri):
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch.") as temporary:
                path = f"{_artifact_folder(found.bundle_digest)}/artifacts/bundle"
                try:
                    fetched = Path(client.download_artifacts(found.run_id, path, temporary))
                except MlflowException as error:
                    raise StoreUnreachableError(
                        f"the bundle of version {found.version} of {found.name!r} cannot be "
                        f"fetched from MLflow's artifacts ({str(error).splitlines()[0]}); restore "
                        "the artifacts, or promote another version"
                    ) from error
                verify_bundle(fetched, found.bundle_digest)
                if target.exists():
                    shutil.rmtree(target)
                fetched.rename(target)

    def _keep(self, found: RegisteredVersion) -> None:
        """Note the champion, and drop all bundles but its own and its predecessor's."""
        folder = self._last_good / found.name
        note = folder / _CURRENT
        before = _read_note(note)
        if before != found:
            temporary = note.with_suffix(".new")
            temporary.write_text(canonical_json(asdict(found)), encoding="ascii")
            temporary.replace(note)
            wanted = {seen.bundle_digest[:16] for seen in (found, before) if seen is not None}
            for other in folder.iterdir():
                if other.is_dir() and not other.name.startswith(".") and other.name not in wanted:
                    shutil.rmtree(other, ignore_errors=True)

    def _from_last_good(self, name: str, reason: str) -> Champion:
        kept = _read_note(self._last_good / name / _CURRENT)
        if kept is None:
            raise StoreUnreachableError(f"{reason}. No earlier champion of {name!r} is on disk")
        directory = self._last_good / name / kept.bundle_digest[:16]
        verify_bundle(directory, kept.bundle_digest)
        return Champion(kept, directory, from_last_good=True, reason=reason)


def _artifact_folder(digest: str) -> str:
    # a folder of its own for each bundle: two registered by one run must not mix
    return f"model-{digest[:12]}"


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"registered model {name!r}: use letters, digits, '.', '_' and '-', starting with a "
            "letter or digit"
        )


def _registered(found: ModelVersion) -> RegisteredVersion:
    tags = found.tags
    return RegisteredVersion(
        name=found.name,
        version=int(found.version),
        run_id=str(found.run_id),
        bundle_digest=tags.get(BUNDLE_TAG, ""),
        gate_passed=tags.get(GATE_TAG) == "yes",
        gate_digest=tags.get(GATE_DIGEST_TAG, ""),
    )


def _read_note(path: Path) -> RegisteredVersion | None:
    try:
        return RegisteredVersion(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, it is written again") from error
