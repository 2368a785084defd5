"""The bundle: the one folder from which the forecast behind a served margin is computed.

Text models, JSON specs and a manifest with the SHA-256 of every file. Loading runs no code from
the folder (there is no pickle in it), and a changed, missing or added file is refused.

Layout: ``manifest.json``, ``model/`` (what the forecaster saved, a folder a horizon),
``specs/<name>.json``.
"""

import importlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from margincast import __version__
from margincast.core.digest import digest_of, digest_of_file
from margincast.core.errors import BundleError, did_you_mean
from margincast.core.types import SIDES, Side
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Forecaster

FORMAT = "margincast-bundle"
FORMAT_VERSION = 2
MANIFEST_NAME = "manifest.json"

_MODEL_FOLDER = "model"
_SPEC_FOLDER = "specs"
_LIBRARIES = ("lightgbm", "numpy", "pandas", "scipy")
_CLASS_PATH = re.compile(r"(margincast\.models(?:\.[a-z][a-z0-9_]*)+):([A-Z][A-Za-z0-9]*)")
_SPEC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


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


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: the fitted model, its manifest, and the specs it was made from."""

    forecaster: HorizonForecaster
    manifest: Manifest
    specs: Mapping[str, Any]


def write_bundle(
    forecaster: HorizonForecaster,
    directory: Path,
    *,
    loaders: Mapping[str, type[Forecaster]],
    metadata: BundleMetadata,
    specs: Mapping[str, Any],
) -> Manifest:
    """Write a fitted model as a bundle; the same model and specs give the same bytes.

    The folder appears whole or not at all (written beside its place, then renamed).

    Args:
        forecaster: a fitted model; the class of its horizons' models is one of ``loaders``.
        directory: where the bundle goes; must not exist.
        loaders: the model classes that may be shipped, by name.
        metadata: origin and scope of the model.
        specs: JSON-like specs by name, kept as ``specs/<name>.json``.

    Raises:
        BundleError: the folder exists, the class is not among the loaders, the metadata names
            other horizons, a spec is not JSON, or the model saved something that is not text.
    """
    model_class = _class_of(forecaster)
    kinds = [kind for kind, loader in loaders.items() if loader is model_class]
    if not kinds:
        raise BundleError(
            f"a {model_class.__name__} cannot be bundled; models that can: "
            f"{', '.join(sorted(loaders)) or 'none'}"
        )
    if metadata.horizons_minutes != forecaster.horizons_minutes:
        raise BundleError(
            f"the metadata names horizons of {list(metadata.horizons_minutes)} minutes, the model "
            f"has {list(forecaster.horizons_minutes)}"
        )
    for name in specs:
        if not _SPEC_NAME.fullmatch(name):
            raise BundleError(f"spec name {name!r} may hold only letters, digits, - and _")
    if directory.exists():
        raise BundleError(f"{directory} exists already; bundles are never overwritten")
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        (staging / _MODEL_FOLDER).mkdir()
        forecaster.save(staging / _MODEL_FOLDER)
        (staging / _SPEC_FOLDER).mkdir()
        for name, spec in specs.items():
            (staging / _SPEC_FOLDER / f"{name}.json").write_bytes(_to_json(spec, f"spec {name}"))
        files = {path: digest_of_file(staging / path) for path in _files_in(staging)}
        _require_text(staging, files)
        body: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": kinds[0],
            "model_class": f"{model_class.__module__}:{model_class.__qualname__}",
            "metadata": asdict(metadata),
            "libraries": _library_versions(),
            "files": files,
        }
        manifest = _to_json({**body, "digest": digest_of(body)}, "metadata")
        (staging / MANIFEST_NAME).write_bytes(manifest)
        verified = verify_bundle(staging)
        # mkdtemp made the folder private to this user
        staging.chmod(0o755)
        staging.rename(directory)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return verified


def verify_bundle(directory: Path, expected_digest: str | None = None) -> Manifest:
    """Check a bundle against its manifest, without loading the model.

    Args:
        directory: the bundle.
        expected_digest: the identity it must have, where that is known (the registry knows it).

    Raises:
        BundleError: names the file that is missing, extra or changed, or says what is wrong with
            the manifest.
    """
    manifest = _read_manifest(directory)
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


def read_bundle(
    directory: Path,
    loaders: Mapping[str, type[Forecaster]],
    expected_digest: str | None = None,
) -> Bundle:
    """Verify and load a bundle.

    Args:
        directory: the bundle.
        loaders: the model classes that may be loaded, by name.
        expected_digest: the identity it must have, where that is known.

    Raises:
        BundleError: it does not verify, or its kind of model is not among the loaders.
    """
    manifest = verify_bundle(directory, expected_digest)
    if manifest.kind not in loaders:
        raise BundleError(
            f"bundle {directory} holds a model of kind {manifest.kind!r}"
            f"{did_you_mean(manifest.kind, loaders)}; kinds that can be loaded: "
            f"{', '.join(sorted(loaders)) or 'none'}"
        )
    forecaster = HorizonForecaster.load(directory / _MODEL_FOLDER, loaders[manifest.kind])
    specs = {
        PurePosixPath(path).stem: json.loads((directory / path).read_bytes())
        for path in manifest.files
        if path.startswith(f"{_SPEC_FOLDER}/")
    }
    return Bundle(forecaster=forecaster, manifest=manifest, specs=specs)


def bundle_digest(directory: Path) -> str:
    """Return the identity of a bundle: the digest of its (verified) manifest.

    Raises:
        BundleError: the bundle does not verify.
    """
    return verify_bundle(directory).digest


def installed_loaders(directory: Path) -> dict[str, type[Forecaster]]:
    """Return the loader of a bundle's kind, where only the installed package can be asked.

    Only classes of ``margincast.models`` are looked up, so that a bundle cannot name other code.

    Raises:
        BundleError: the bundle names a class outside ``margincast.models``, or none.
    """
    manifest = _read_manifest(directory)
    match = _CLASS_PATH.fullmatch(manifest.model_class)
    if match is None:
        raise BundleError(
            f"bundle {directory} names the model class {manifest.model_class!r}; only classes of "
            "margincast.models are loaded"
        )
    try:
        loader = getattr(importlib.import_module(match[1]), match[2])
    except (ImportError, AttributeError) as error:
        raise BundleError(
            f"bundle {directory} needs {manifest.model_class}, which this version of margincast "
            f"does not have ({error}); install the version that wrote it: "
            f"{manifest.libraries.get('margincast', 'unknown')}"
        ) from error
    if not (isinstance(loader, type) and loader.__module__ == match[1] and hasattr(loader, "load")):
        raise BundleError(f"bundle {directory}: {manifest.model_class} is not a model class")
    return {manifest.kind: loader}


def _class_of(forecaster: HorizonForecaster) -> type[Forecaster]:
    """Return the class of every horizon's model.

    Raises:
        BundleError: there are several, or none.
    """
    classes = {type(model) for model in forecaster.forecasters.values()}
    if len(classes) != 1:
        names = ", ".join(sorted(each.__name__ for each in classes)) or "none"
        raise BundleError(f"the horizons of a bundle share one class of model, found {names}")
    return classes.pop()


_RESTORE = "it cannot be used: fetch it again from the registry, or train again"


def _read_manifest(directory: Path) -> Manifest:
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
        if digest_of(body) != raw["digest"] or _to_json(raw, MANIFEST_NAME) != content:
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
            f"{_MODEL_FOLDER}/ and {_SPEC_FOLDER}/; the bundle is not trusted"
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


def _library_versions() -> dict[str, str]:
    found = {"margincast": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _to_json(value: object, what: str) -> bytes:
    try:
        text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{what} cannot be written as JSON: {error}") from error
    return f"{text}\n".encode()
