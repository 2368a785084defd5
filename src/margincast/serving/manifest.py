"""The manifest: what a bundle says of itself, and the digests by which a changed byte is found.

``manifest.json`` holds origin and scope of the model, the versions of the libraries it was fitted
with and the SHA-256 of every file; its own digest is the bundle's identity.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from margincast import __version__
from margincast.core.digest import digest_of, digest_of_file
from margincast.core.errors import BundleError
from margincast.core.types import SIDES, Side

FORMAT = "margincast-bundle"
FORMAT_VERSION = 2
MANIFEST_NAME = "manifest.json"
MODEL_FOLDER = "model"
SPEC_FOLDER = "specs"

_LIBRARIES = ("lightgbm", "numpy", "pandas", "scipy")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RESTORE = "it cannot be used: fetch it again from the registry, or train again"


@dataclass(frozen=True)
class BundleMetadata:
    """Where a model comes from and what it answers.

    Attributes:
        job: name of the training job.
        horizons_minutes: liquidation horizons forecast, increasing.
        sides: sides forecast.
        levels: levels forecast, increasing.
        feature_columns: features the model needs, in order (besides ``symbol`` and ``ts``).
        spec_digest: SHA-256 of the training job's spec.
        feature_set_hash: SHA-256 of the feature set's spec.
        training_data_digest: SHA-256 that stands for the data trained on.
        trained_until: last decision the models of all horizons were fitted on, ISO 8601, UTC;
            models with a memory go on from there.
    """

    job: str
    horizons_minutes: tuple[int, ...]
    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    feature_columns: tuple[str, ...]
    spec_digest: str
    feature_set_hash: str
    training_data_digest: str
    trained_until: str


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says.

    Attributes:
        kind: the name, among the loaders it was written with, of every horizon's model.
        model_class: import path of their class, ``module:Class``, for the record.
        metadata: origin and scope of the model.
        libraries: versions of the libraries it was fitted with.
        files: SHA-256 of every file, by its path inside the bundle.
        digest: SHA-256 of all of the above: the bundle's identity.
    """

    kind: str
    model_class: str
    metadata: BundleMetadata
    libraries: Mapping[str, str]
    files: Mapping[str, str]
    digest: str


def write_manifest(
    directory: Path, *, kind: str, model_class: str, metadata: BundleMetadata
) -> Manifest:
    """Write the manifest of a folder's files; the same files and metadata give the same bytes.

    Raises:
        BundleError: a file is not text, or the metadata cannot be written as JSON.
    """
    files = {path: digest_of_file(directory / path) for path in _files_in(directory)}
    _require_text(directory, files)
    body: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "model_class": model_class,
        "metadata": asdict(metadata),
        "libraries": library_versions(_LIBRARIES),
        "files": files,
    }
    text = json_bytes({**body, "digest": digest_of(body)}, "metadata")
    (directory / MANIFEST_NAME).write_bytes(text)
    return verify_bundle(directory)


def verify_bundle(directory: Path, expected_digest: str | None = None) -> Manifest:
    """Check a bundle against its manifest, without loading the model.

    Args:
        directory: the bundle.
        expected_digest: the identity it must have, where that is known (the registry knows it).

    Raises:
        BundleError: names the file that is missing, extra or changed, or says what is wrong with
            the manifest.
    """
    manifest = read_manifest(directory)
    for path in manifest.files:
        _require_inside(path, directory)
    found = set(_files_in(directory)) - {MANIFEST_NAME}
    listed = set(manifest.files)
    for path in sorted(listed - found):
        raise BundleError(f"bundle {directory}: {path} is missing; {_RESTORE}")
    for path in sorted(found - listed):
        raise BundleError(f"bundle {directory}: {path} is not in the manifest; {_RESTORE}")
    for path, stated in sorted(manifest.files.items()):
        if digest_of_file(directory / path) != stated:
            raise BundleError(
                f"bundle {directory}: {path} was changed after it was written; {_RESTORE}"
            )
    if expected_digest is not None and manifest.digest != expected_digest:
        raise BundleError(
            f"bundle {directory} has digest {manifest.digest}, expected {expected_digest}: it is "
            f"another model; {_RESTORE}"
        )
    return manifest


def bundle_digest(directory: Path) -> str:
    """Return the identity of a bundle: the digest of its (verified) manifest.

    Raises:
        BundleError: the bundle does not verify.
    """
    return verify_bundle(directory).digest


def read_manifest(directory: Path) -> Manifest:
    """Read what a bundle says of itself; its files are not looked at (:func:`verify_bundle` does).

    Raises:
        BundleError: there is no manifest, of this format, as it was written.
    """
    path = directory / MANIFEST_NAME
    if not path.is_file():
        raise BundleError(f"{directory} is not a bundle: it has no {MANIFEST_NAME}")
    content = path.read_bytes()
    try:
        raw = json.loads(content)
        stated_format = (raw["format"], raw["format_version"])
        if stated_format != (FORMAT, FORMAT_VERSION):
            raise BundleError(
                f"bundle {directory}: {MANIFEST_NAME} says format {stated_format[0]!r} version "
                f"{stated_format[1]!r}; this version of margincast reads {FORMAT!r} version "
                f"{FORMAT_VERSION}"
            )
        body = {key: value for key, value in raw.items() if key != "digest"}
        # comparing bytes too refuses a change that JSON would not notice, such as a space
        if digest_of(body) != raw["digest"] or json_bytes(raw, MANIFEST_NAME) != content:
            raise BundleError(
                f"bundle {directory}: {MANIFEST_NAME} was changed after it was written; {_RESTORE}"
            )
        return _manifest(raw)
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(
            f"bundle {directory}: {MANIFEST_NAME} is not a manifest ({error}); {_RESTORE}"
        ) from error


def _manifest(raw: dict[str, Any]) -> Manifest:
    metadata = dict(raw["metadata"])
    for name in ("horizons_minutes", "sides", "levels", "feature_columns"):
        metadata[name] = tuple(metadata[name])
    if not set(metadata["sides"]) <= set(SIDES):
        raise ValueError(f"unknown sides {metadata['sides']}")
    files = dict(raw["files"])
    if not all(isinstance(value, str) and _DIGEST.fullmatch(value) for value in files.values()):
        raise ValueError("a file's digest is not a SHA-256")
    return Manifest(
        kind=str(raw["kind"]),
        model_class=str(raw["model_class"]),
        metadata=BundleMetadata(**metadata),
        libraries=dict(raw["libraries"]),
        files=files,
        digest=str(raw["digest"]),
    )


def _require_inside(path: str, directory: Path) -> None:
    parts = PurePosixPath(path).parts
    plain = str(PurePosixPath(*parts)) == path and "\\" not in path and ":" not in path
    if not plain or path.startswith("/") or ".." in parts or len(parts) < 2:
        raise BundleError(
            f"bundle {directory}: the manifest names {path!r}, which lies outside "
            f"{MODEL_FOLDER}/ and {SPEC_FOLDER}/; the bundle is not trusted"
        )


def _files_in(directory: Path) -> Iterable[str]:
    """Paths of all files below a folder, sorted; a link is refused, it leads elsewhere."""
    paths = []
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(f"bundle {directory}: {relative} is a link or device, not a file")
        if path.is_file():
            paths.append(relative)
    return paths


def _require_text(directory: Path, files: Iterable[str]) -> None:
    for path in files:
        try:
            (directory / path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BundleError(
                f"the model saved {path}, which is not text; bundles hold text and JSON only"
            ) from error


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of margincast and of some libraries."""
    found = {"margincast": __version__}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def json_bytes(value: object, what: str) -> bytes:
    """Write JSON for people and digests: sorted keys, so that equal values give equal bytes.

    Raises:
        BundleError: it is not JSON; names ``what``.
    """
    try:
        text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{what} cannot be written as JSON: {error}") from error
    return f"{text}\n".encode()
