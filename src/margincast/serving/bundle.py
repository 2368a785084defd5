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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from margincast.core.errors import BundleError, did_you_mean
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Forecaster
from margincast.serving.manifest import (
    MODEL_FOLDER,
    SPEC_FOLDER,
    BundleMetadata,
    Manifest,
    json_bytes,
    read_manifest,
    verify_bundle,
    write_manifest,
)

_CLASS_PATH = re.compile(r"(margincast\.models(?:\.[a-z][a-z0-9_]*)+):([A-Z][A-Za-z0-9]*)")
_SPEC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


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
        (staging / MODEL_FOLDER).mkdir()
        forecaster.save(staging / MODEL_FOLDER)
        (staging / SPEC_FOLDER).mkdir()
        for name, spec in specs.items():
            (staging / SPEC_FOLDER / f"{name}.json").write_bytes(json_bytes(spec, f"spec {name}"))
        manifest = write_manifest(
            staging,
            kind=kinds[0],
            model_class=f"{model_class.__module__}:{model_class.__qualname__}",
            metadata=metadata,
        )
        # mkdtemp made the folder private to this user
        staging.chmod(0o755)
        staging.rename(directory)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
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
    forecaster = HorizonForecaster.load(directory / MODEL_FOLDER, loaders[manifest.kind])
    specs = {
        PurePosixPath(path).stem: json.loads((directory / path).read_bytes())
        for path in manifest.files
        if path.startswith(f"{SPEC_FOLDER}/")
    }
    return Bundle(forecaster=forecaster, manifest=manifest, specs=specs)


def installed_loaders(directory: Path) -> dict[str, type[Forecaster]]:
    """Return the loader of a bundle's kind, where only the installed package can be asked.

    Only classes of ``margincast.models`` are looked up, so that a bundle cannot name other code.

    Raises:
        BundleError: the bundle names a class outside ``margincast.models``, or none.
    """
    manifest = read_manifest(directory)
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
