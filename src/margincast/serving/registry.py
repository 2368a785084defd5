"""The model registry: the versions that may come to set margins, and where their bundles lie.

Versions live in MLflow, each with its bundle, the gate's verdict and the bundle's digest. Who among
them holds an alias is decided in :mod:`margincast.serving.promotion` and written in the workspace's
ledger; MLflow's aliases show it to people.
"""

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from margincast.core.errors import InputError
from margincast.serving.ledger import LEDGER, Ledger
from margincast.serving.manifest import verify_bundle
from margincast.serving.mlflow_model import save_pyfunc
from margincast.serving.standing import Alias, standing_of
from margincast.serving.verdict import GateVerdict
from margincast.training.tracking import StoreUnreachableError, connect, resolve_uri, store_errors

GATE_TAG = "margincast.gate_passed"
GATE_DIGEST_TAG = "margincast.gate_digest"
BUNDLE_TAG = "margincast.bundle_digest"

ARTIFACTS = Path("mlruns") / "artifacts"
"""Where a workspace keeps its runs' files. MLflow records the absolute folder of the day a run was
made; in a workspace that was moved, or restored elsewhere, they lie here all the same."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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


class Registry:
    """The registered models of a workspace. Making one asks nothing of MLflow yet.

    Args:
        uri: tracking URI; a relative SQLite path starts at ``workspace``.
        workspace: the operator's folder; its ledger is the registry's.

    Raises:
        InputError: the URI is none MLflow accepts.
    """

    def __init__(self, uri: str, workspace: Path) -> None:
        self.uri = resolve_uri(uri, workspace)
        self.workspace = workspace
        self.ledger = Ledger(workspace / LEDGER)

    def register(
        self, name: str, bundle_directory: Path, run_id: str, verdict: GateVerdict, *, who: str
    ) -> RegisteredVersion:
        """Log a bundle in its run and make it a new version of a registered model.

        The ledger gets a line with the gate's verdict and the bundle's digest, against which
        MLflow's tags, which anybody can change, are held later.

        Done again for the same run and bundle, after an answer was lost, it returns the version.

        Raises:
            BundleError: the bundle does not verify.
            LedgerError: the ledger does not verify; nothing is registered.
            InputError: the name cannot be used, or MLflow refused or cannot be reached.
        """
        manifest = verify_bundle(bundle_directory)
        self.ledger.read()
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
        made = _registered(created)
        with self.ledger.writing() as writer:
            if made.version not in standing_of(writer.entries, name).registrations:
                answer = "passed" if verdict.passed else "failed"
                writer.append(
                    kind="registration",
                    who=who,
                    what=f"registered {name} version {made.version}: gate {answer}",
                    why="; ".join(verdict.reasons) or f"gate passed ({len(verdict.checks)} checks)",
                    evidence_digest=made.gate_digest,
                    details={
                        "model": name,
                        "version": made.version,
                        "gate_passed": made.gate_passed,
                        "bundle_digest": made.bundle_digest,
                        "run_id": made.run_id,
                    },
                )
        return made

    @property
    def has_store(self) -> bool:
        """Whether there is a store to ask at all; a server or database is taken to be there."""
        local = self.uri.removeprefix("sqlite:///")
        return local == self.uri or Path(local).exists()

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

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version that each alias of a model points at; none for an unknown model.

        Raises:
            InputError: MLflow cannot be reached.
        """
        client = self._connect(name)
        with store_errors(self.uri):
            try:
                found = client.get_registered_model(name).aliases
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise
        return {alias: int(version) for alias, version in found.items()}

    def point(self, name: str, alias: Alias, version: int) -> None:
        """Point an alias at a version; :mod:`margincast.serving.promotion` says whether it may be.

        Raises:
            InputError: MLflow cannot be reached, or refused.
        """
        client = self._connect(name)
        with store_errors(self.uri):
            client.set_registered_model_alias(name, alias, str(version))

    def clear(self, name: str, alias: Alias) -> None:
        """Take an alias away; one that nobody has is no error.

        Raises:
            InputError: MLflow cannot be reached, or refused.
        """
        client = self._connect(name)
        with store_errors(self.uri):
            client.delete_registered_model_alias(name, alias)

    def fetch(self, found: RegisteredVersion, folder: Path) -> Path:
        """Copy a version's bundle into a folder, verified; returns its path.

        Raises:
            StoreUnreachableError: MLflow or its artifacts cannot be reached.
            BundleError: the bundle is not the one that was registered.
        """
        client = self._connect(found.name)
        path = f"{_artifact_folder(found.bundle_digest)}/artifacts/bundle"
        with store_errors(self.uri):
            try:
                fetched = Path(client.download_artifacts(found.run_id, path, str(folder)))
            except MlflowException as error:
                moved = self.workspace / ARTIFACTS / found.run_id / "artifacts" / path
                if moved.is_dir():
                    fetched = shutil.copytree(moved, folder / "bundle")
                    verify_bundle(fetched, found.bundle_digest)
                    return fetched
                raise StoreUnreachableError(
                    f"the bundle of version {found.version} of {found.name!r} cannot be "
                    f"fetched from MLflow's artifacts ({str(error).splitlines()[0]}); restore "
                    "the artifacts, or promote another version"
                ) from error
        verify_bundle(fetched, found.bundle_digest)
        return fetched

    def fetch_file(self, run_id: str, path: str, folder: Path) -> Path:
        """Copy a file of a run's artifacts into a folder; returns its path.

        Raises:
            StoreUnreachableError: MLflow cannot be reached, or the run has no such file.
        """
        client = connect(self.uri, self.workspace, create=False)[0]
        with store_errors(self.uri):
            try:
                return Path(client.download_artifacts(run_id, path, str(folder)))
            except MlflowException as error:
                raise StoreUnreachableError(
                    f"run {run_id} has no {path} ({str(error).splitlines()[0]})"
                ) from error

    def _connect(self, name: str) -> MlflowClient:
        _require_name(name)
        # only a tracker makes a store: a registry of nothing is a mistyped path
        return connect(self.uri, self.workspace, create=False)[0]


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
