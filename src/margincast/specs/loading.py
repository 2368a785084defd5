"""Read a TOML spec, apply ``--set section.key=value``, and report every problem at once."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from margincast.core.errors import InputError, SpecError, did_you_mean
from margincast.specs.base import Spec

SpecType = TypeVar("SpecType", bound=Spec)
_WORKSPACE_FOLDERS = ("features", "training", "serving")


def load_spec(path: Path, model: type[SpecType], overrides: Iterable[str] = ()) -> SpecType:
    """Read ``path`` as a spec of kind ``model``, with command-line overrides applied.

    Args:
        path: a TOML file.
        model: the kind of spec the file holds.
        overrides: texts ``section.key=value``; the value is read as TOML, and as plain text where
            it is not TOML (so that dates, numbers, lists and bare words all work).

    Raises:
        InputError: the file is missing or is not TOML, or an override has no ``=``.
        SpecError: keys are unknown or missing or values are not allowed; all are listed.
    """
    return validate_spec(apply_overrides(read_toml(path), overrides), model, str(path))


def validate_spec(raw: dict[str, Any], model: type[SpecType], source: str) -> SpecType:
    """Turn a raw spec into its model.

    Raises:
        SpecError: with every problem, each naming its key.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = [_problem(detail, model) for detail in error.errors(include_url=False)]
        raise SpecError(source, problems) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        InputError: missing, a folder, or not TOML (with the line the parser stopped at).
    """
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, siblings) or (
            f"; {path.parent} holds: {', '.join(sorted(siblings))}" if siblings else ""
        )
        raise InputError(f"spec file {path} does not exist{hint}")
    if path.is_dir():
        raise InputError(f"{path} is a folder; a spec is one TOML file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a TOML file: {error}") from None


def find_workspace(spec_path: Path) -> Path:
    """Return the workspace a spec belongs to: the nearest folder above it with the spec folders.

    Where there is none (a lone spec file) it is the current folder.
    """
    for folder in spec_path.resolve().parents:
        if all((folder / name).is_dir() for name in _WORKSPACE_FOLDERS):
            return folder
    return Path.cwd()


def apply_overrides(raw: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply ``section.key=value`` texts to a raw spec, in order, and return it.

    Raises:
        InputError: a text has no ``=`` or reaches into a value.
    """
    for override in overrides:
        _apply_override(raw, override)
    return raw


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise InputError(
            f"--set {override!r}: write section.key=value, for example target.horizons=4h"
        )
    value = _parse_value(text)
    target = raw
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise InputError(f"--set {override!r}: '{part}' is a value, not a section")
    target[parts[-1]] = value


def _parse_value(text: str) -> object:
    """Read a value as TOML; what is not TOML is text, or a list of texts within brackets."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        bare = text.strip()
        if bare.startswith("[") and bare.endswith("]"):
            return [_parse_value(item.strip()) for item in bare[1:-1].split(",") if item.strip()]
        return text


def _problem(detail: ErrorDetails, model: type[BaseModel]) -> str:
    location = detail["loc"]
    key = ".".join(str(part) for part in location)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        hint = did_you_mean(str(location[-1]), known) or f" (known: {', '.join(sorted(known))})"
        return f"{key}: unknown key{hint}"
    if detail["type"] == "missing":
        return f"{key}: missing; every value of a spec is written in its file"
    message = detail["msg"].removeprefix("Value error, ")
    found = detail.get("input")
    shown = repr(found)
    if "found" in message or len(shown) > 80 or isinstance(found, dict):
        return f"{key}: {message}" if key else message
    return f"{key}: {message}, found {shown}" if key else f"{message}, found {shown}"


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys allowed at a location of a spec, by walking the models' annotations."""
    current: list[type[BaseModel]] = [model]
    for part in location:
        if isinstance(part, int):
            continue
        following: list[type[BaseModel]] = []
        for candidate in current:
            field = candidate.model_fields.get(part)
            if field is not None:
                following += _models_in(field.annotation)
        current = following or current
    return [name for candidate in current for name in candidate.model_fields]


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    arguments = getattr(annotation, "__args__", ())
    return [found for argument in arguments for found in _models_in(argument)]
