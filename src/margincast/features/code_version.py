"""Which code a built feature came from: no margin rests on what older code computed.

A feature is as old as the newest change to any module that it runs through; libraries that do the
arithmetic count by their version.
"""

import ast
import platform
import time
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from margincast.core.digest import digest_of, digest_of_file

_PACKAGE = "margincast"
ROOT = Path(__file__).resolve().parents[1]
"""Where the package's source lies."""
_LOADED_AT = time.time()


@cache
def code_version(
    modules: tuple[str, ...], alone: tuple[str, ...] = (), root: Path = ROOT
) -> str | None:
    """SHA-256 of the source of some modules, of all of the package that they import, and libraries.

    A package counts (its ``__init__``) where something is imported from it by name, so that a
    family's functions do not hang on the functions of its neighbours.

    Args:
        modules: dotted names within the package.
        alone: modules that count without what they import.
        root: where the package's source lies.

    Returns:
        None where a file was written after this process began: it runs other code than is there.
    """
    reached: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += _imports_of(module, root)
    files = {name: _file_of(name, root) for name in reached.union(alone)}
    if any(path.stat().st_mtime > _LOADED_AT for path in files.values()):
        return None
    return digest_of(
        {
            "modules": {name: digest_of_file(path) for name, path in files.items()},
            "libraries": {"numpy": np.__version__, "polars": pl.__version__},
            "machine": platform.machine(),
        }
    )


def is_ours(module: str) -> bool:
    """Say whether a module is one whose source is known and counted."""
    return module.startswith(f"{_PACKAGE}.")


def _file_of(module: str, root: Path) -> Path:
    path = root.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _imports_of(module: str, root: Path) -> tuple[str, ...]:
    """List the package's modules that a module names in its import statements."""
    found: list[str] = []
    for node in ast.walk(ast.parse(_file_of(module, root).read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # what is imported may be a module of its own, or a name within this one
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in found if is_ours(name) and _file_of(name, root).is_file())
