"""Fitted scikit-learn estimators as text: how the forest and boosting peers are kept.

No number of the margin is computed here. The skops format describes an estimator by the names of
its types and by plain arrays, and builds only types that the reader names; its archive carries the
time and memory addresses. Here the same content is JSON without either: text, like all else in a
bundle, and the same bytes for the same model.
"""

import base64
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from margincast.core.errors import InputError

Estimator = TypeVar("Estimator")

_SCHEMA = "schema.json"


def save_estimator(estimator: object, path: Path) -> None:
    """Write a fitted estimator as JSON; arrays are kept once each, compressed, in base 64."""
    arrays: dict[str, str] = {}
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    schema = _without_addresses(json.loads(content.pop(_SCHEMA)), content, arrays)
    text = json.dumps({"schema": schema, "arrays": arrays}, indent=None, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


def load_estimator(path: Path, kind: type[Estimator], trusted: Iterable[type]) -> Estimator:
    """Read what :func:`save_estimator` wrote.

    Args:
        path: the file.
        kind: type of the estimator.
        trusted: types beyond NumPy's and scikit-learn's public ones that it is made of.

    Raises:
        InputError: the file asks for another type; nothing of it was built.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(_SCHEMA, json.dumps(record["schema"]))
        for name, packed in record["arrays"].items():
            archive.writestr(name, zlib.decompress(base64.b64decode(packed)))
    named = f"{record['schema']['__module__']}.{record['schema']['__class__']}"
    if named != f"{kind.__module__}.{kind.__qualname__}":
        raise InputError(
            f"{path} holds a {named}, where a {kind.__module__}.{kind.__qualname__} belongs; "
            "the model is not trusted"
        )
    try:
        estimator = skops.io.loads(buffer.getvalue(), trusted=[kind, *trusted])
    except UntrustedTypesFoundException as error:
        raise InputError(
            f"{path} asks for types that a {kind.__qualname__} is not made of; the model is not "
            f"trusted: {error}"
        ) from None
    assert isinstance(estimator, kind)
    return estimator


def _without_addresses(node: object, content: dict[str, bytes], arrays: dict[str, str]) -> object:
    """Copy a schema: arrays named by their digest, no ``__id__`` (the address of an object).

    Without it an object met twice is built twice, which changes no prediction.
    """
    if isinstance(node, list):
        return [_without_addresses(item, content, arrays) for item in node]
    if not isinstance(node, dict):
        return node
    copied: dict[str, object] = {}
    for key, value in node.items():
        if key == "__id__":
            continue
        if key == "file" and isinstance(value, str):
            plain = _without_padding(content[value])
            name = hashlib.sha256(plain).hexdigest() + ".npy"
            if name not in arrays:
                arrays[name] = base64.b64encode(zlib.compress(plain)).decode("ascii")
            copied[key] = name
        else:
            copied[key] = _without_addresses(value, content, arrays)
    return copied


def _without_padding(stored: bytes) -> bytes:
    """Return an array in NumPy's format with zeros between the fields of its records.

    Compilers leave what was in memory there, which differs from run to run.
    """
    array = np.load(io.BytesIO(stored), allow_pickle=False)
    if array.dtype.names is None:
        return stored
    clean = np.zeros(array.shape, array.dtype)
    for name in array.dtype.names:
        clean[name] = array[name]
    buffer = io.BytesIO()
    np.save(buffer, clean, allow_pickle=False)
    return buffer.getvalue()
