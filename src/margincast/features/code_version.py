"""Which code a built feature came from: no margin rests on what older code computed.

A feature is as old as the newest change to any module that it runs through; Python, and the
libraries that these modules import, count by their version.
"""

import ast
import os
import platform
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import resolve_name
from pathlib import Path

from margincast.core.digest import digest_of, digest_of_file

_PACKAGE = "margincast"
ROOT = Path(__file__).resolve().parents[1]
"""Where the package's source lies."""


def process_start() -> float:
    """Return when this process began, in Unix seconds.

    No module can have been loaded before. Where the system does not say (``/proc``, Linux), it is
    the present time: call it as early as can be.
    """
    now = time.time()
    if sys.platform == "linux":
        with suppress(OSError):
            text = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
            # field 22 of proc_pid_stat(5), in ticks since boot; the name before it may hold blanks
            ticks = int(text.rpartition(")")[2].split()[19])
            began = ticks / os.sysconf("SC_CLK_TCK")
            return now - max(time.clock_gettime(time.CLOCK_BOOTTIME) - began, 0.0)
    return now


@dataclass(frozen=True)
class SourceCode:
    """The source that a process runs.

    Attributes:
        root: folder of the package.
        loaded_after: no module was loaded before this time (Unix seconds).
        inode: of the folder when the package was loaded; a release moved into its place has
            another, while the times of its files may be old.
    """

    root: Path
    loaded_after: float
    inode: int


RUNNING = SourceCode(ROOT, process_start(), ROOT.stat().st_ino)
"""What this process runs."""


@dataclass(frozen=True)
class Unkept:
    """Why a value has no name, so that it is neither read back nor kept."""

    reason: str


@cache
def code_version(
    modules: tuple[str, ...], alone: tuple[str, ...] = (), source: SourceCode = RUNNING
) -> str | Unkept:
    """SHA-256 of the source of some modules, of all of the package that they import, and libraries.

    A package counts (its ``__init__``) where something is imported from it by name, so that a
    family's functions do not hang on the functions of its neighbours.

    Args:
        modules: dotted names within the package.
        alone: modules that count without what they import.
        source: what the process runs.

    Returns:
        The digest, or why there is none: a file changed since the process began, which runs other
        code than is there. Both times of a file count, because what is copied with its times
        (``cp -p``, ``rsync -a``, ``tar``) keeps the older one of modification.
    """
    root = source.root
    reached: set[str] = set()
    libraries: set[str] = set()
    waiting = list(modules)
    try:
        while waiting:
            module = waiting.pop()
            if module not in reached:
                reached.add(module)
                imports = _imports_of(module, root)
                waiting += imports.of_ours
                libraries |= imports.of_libraries
        files = {name: _file_of(name, root) for name in reached.union(alone)}
        # digests first: what is replaced between the two shows by its time
        digests = {name: digest_of_file(path) for name, path in files.items()}
        changed = _changed(files.values(), source)
    except (OSError, SyntaxError) as error:
        return Unkept(f"the package's source cannot be read ({type(error).__name__})")
    if changed:
        return Unkept(changed)
    versions = {name: _version_of(name) for name in libraries}
    for name in sorted(libraries):
        if versions[name] is None:
            return Unkept(f"the version of the library {name} is not known")
    return digest_of(
        {
            "modules": digests,
            "libraries": versions,
            "python": [platform.python_implementation(), platform.python_version()],
            "machine": platform.machine(),
        }
    )


def is_ours(module: str) -> bool:
    """Say whether a module is one whose source is known and counted."""
    return module.startswith(f"{_PACKAGE}.")


@dataclass(frozen=True)
class _Imports:
    """Modules of the package, and libraries by the first part of their name."""

    of_ours: tuple[str, ...]
    of_libraries: frozenset[str]


def _changed(files: Iterable[Path], source: SourceCode) -> str:
    """Say which file is not the one that was loaded; empty where all are."""
    if source.root.stat().st_ino != source.inode:
        return "the package was replaced after this process began"
    times = {path: _written_at(path) for path in files}
    newest = max(times, key=times.__getitem__)
    if times[newest] <= source.loaded_after:
        return ""
    name = newest.relative_to(source.root.parent).as_posix()
    if times[newest] > time.time():
        return f"{name} is dated in the future"
    return f"{name} was written after this process began"


def _written_at(path: Path) -> float:
    status = path.stat()
    return max(status.st_mtime, status.st_ctime)


def _version_of(library: str) -> str | None:
    """Version of what was loaded; of what is installed, for a library that does not say its own."""
    version = getattr(sys.modules.get(library), "__version__", None)
    if version is None:
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(library)
    return None if version is None else str(version)


def _file_of(module: str, root: Path) -> Path:
    path = root.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _imports_of(module: str, root: Path) -> _Imports:
    """List what a module names in its import statements, Python's own modules aside."""
    file = _file_of(module, root)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    named: list[str] = []
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            named.append(origin)
            # what is imported may be a module of its own, or a name within this one
            within = [f"{origin}.{alias.name}" for alias in node.names]
            found += [name for name in within if is_ours(name) and _file_of(name, root).is_file()]
    tops = {name.partition(".")[0] for name in named}
    return _Imports(
        (*filter(is_ours, named), *found), frozenset(tops - sys.stdlib_module_names - {_PACKAGE})
    )
