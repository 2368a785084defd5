"""The JSON record of a fitted model: what was chosen and estimated, as text that runs no code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "model.json"


def write_record(directory: Path, parameters: Mapping[str, Any]) -> None:
    """Write a model's parameters; the same parameters give the same bytes."""
    text = json.dumps(parameters, indent=1, sort_keys=True) + "\n"
    (directory / NAME).write_text(text, encoding="utf-8")


def read_record(directory: Path) -> dict[str, Any]:
    """Read what :func:`write_record` wrote."""
    return dict(json.loads((directory / NAME).read_text(encoding="utf-8")))
