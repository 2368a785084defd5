"""What a process computes with: the package's source and the libraries that fit models.

Two processes with the same environment on the same kind of machine forecast the same to the last
bit. A stored fold of another environment is not taken, and a worker with another one is refused.
"""

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from margincast import __version__
from margincast.core.digest import digest_of, digest_of_file

FITTING_LIBRARIES = (
    "arch",
    "lightgbm",
    "numpy",
    "polars",
    "quantile-forest",
    "scikit-learn",
    "scipy",
)


def library_versions() -> dict[str, str]:
    """Return the installed version of every library that fits models, or ``not installed``."""
    found = {}
    for name in FITTING_LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def code_digest() -> str:
    """SHA-256 of the package's own source: a changed model must not find its old forecasts."""
    package = Path(__file__).resolve().parents[2]
    rooms = ("core", "data", "features", "models", "training")
    files = [path for room in rooms for path in sorted((package / room).rglob("*.py"))]
    return digest_of({str(path.relative_to(package)): digest_of_file(path) for path in files})


@cache
def environment() -> Mapping[str, str]:
    """Return what results hang on besides data and spec: source, libraries, Python, machine."""
    return {
        "margincast": __version__,
        "margincast's source": code_digest()[:12],
        **library_versions(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
    }


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """Say in which points two environments differ; empty where they do not."""
    return ", ".join(
        f"{name} {there.get(name, 'not known')} there and {here.get(name, 'not known')} here"
        for name in {**here, **there}
        if here.get(name) != there.get(name)
    )
