"""What a run was made from: code, libraries, machine and data, so that it can be made again."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import polars as pl

from margincast.core.digest import digest_of
from margincast.core.threads import available_threads
from margincast.features.sources import Origin
from margincast.training.market import Market
from margincast.training.tracking.operations import DatasetRecord
from margincast.training.workload import Workload

NO_CHECKOUT = "not a git checkout"
LIBRARIES = ("margincast", "lightgbm", "mlflow", "numpy", "optuna", "pandas", "polars", "scipy")
"""Libraries whose versions stand among the parameters; the artifact lists all."""

_DIGEST_LENGTH = 32
_GIT_SECONDS = 10.0


def commit_of(folder: Path) -> str:
    """Return the git commit of a folder's checkout, with a remark where files of it were changed.

    ``not a git checkout`` where there is none, git is not installed or does not answer.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return NO_CHECKOUT
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return commit if changed == "" else f"{commit}, with changes that are not committed"


def package_commit() -> str:
    """Return the commit of the checkout this package runs from, if it is one."""
    package = Path(__file__).resolve().parents[2]
    # installed into a folder that happens to lie in somebody's checkout is not a checkout of it
    if not _git(package, "ls-files", "--error-unmatch", "__init__.py"):
        return NO_CHECKOUT
    return commit_of(package)


@dataclass(frozen=True)
class Environment:
    """Where a run was computed.

    Attributes:
        facts: Python, platform, cores.
        packages: version of every installed distribution, by name in lower case.
    """

    facts: Mapping[str, str]
    packages: Mapping[str, str]

    @classmethod
    def here(cls) -> "Environment":
        """Look around."""
        facts = {
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cores": str(os.cpu_count() or "unknown"),
            "threads": str(available_threads()),
        }
        found = {each.name.lower(): each.version for each in distributions() if each.name}
        return cls(facts, dict(sorted(found.items())))

    @property
    def lock_digest(self) -> str:
        """SHA-256 over all installed distributions: two runs of one digest ran the same code."""
        return digest_of(dict(self.packages))

    def parameters(self) -> dict[str, str]:
        """Return facts, versions of the main libraries and the lock digest, for a run."""
        versions = {name: self.packages.get(name, "not installed") for name in LIBRARIES}
        return {**self.facts, **versions, "lock_digest": self.lock_digest}

    def requirements(self) -> str:
        """Return all distributions as ``name==version``, a line each."""
        return "".join(f"{name}=={version}\n" for name, version in self.packages.items())


def data_manifest(market: Market) -> dict[str, dict[str, Any]]:
    """Return the digest of every file that was read, by table and contract."""
    return {
        table: {symbol: _record(origin) for symbol, origin in of_table.items()}
        for table, of_table in market.sources.origins.items()
    }


def datasets_of(workload: Workload) -> list[DatasetRecord]:
    """Return the data sets of a job: every table that was read, and the decisions made of them."""
    market, job = workload.market, workload.job
    manifest = data_manifest(market)
    named = job.data.model_dump(mode="json")
    sets = [
        DatasetRecord(
            name=table,
            digest=digest_of({symbol: one["files"] for symbol, one in of_table.items()})[
                :_DIGEST_LENGTH
            ],
            source=json.dumps({"data": named[table]}),
            schema_text=_schema(_columns(market, table)),
            profile=json.dumps(
                {
                    "contracts": len(of_table),
                    "files": sum(len(one["files"]) for one in of_table.values()),
                    "size_bytes": sum(one["size_bytes"] for one in of_table.values()),
                }
            ),
            context="training",
        )
        for table, of_table in manifest.items()
    ]
    frame = workload.frame
    decisions = DatasetRecord(
        name=f"decisions of {job.name}",
        digest=digest_of([market.digest, workload.feature_set.digest()])[:_DIGEST_LENGTH],
        source=json.dumps({"feature_set": job.features.set, "data_digest": market.digest}),
        schema_text=_schema(dict.fromkeys(workload.table.units, "double")),
        profile=json.dumps(
            {
                "rows": len(frame),
                "contracts": int(frame["symbol"].nunique()),
                "features": len(workload.table.units),
                "first": frame["ts"].min().isoformat(),
                "last": frame["ts"].max().isoformat(),
            }
        ),
        context="training",
    )
    return [*sets, decisions]


def _record(origin: Origin) -> dict[str, Any]:
    return {
        "files": list(origin.digests),
        "size_bytes": sum(stamp.size_bytes for stamp in origin.stamps),
        "reading": origin.reading,
    }


def _columns(market: Market, table: str) -> dict[str, str]:
    """Return the columns of a table, as MLflow names their types; none where nothing was read."""
    sources = market.sources
    frames: Mapping[str, pl.DataFrame | pl.LazyFrame] = {}
    if table == "bars":
        frames = sources.bars.frames
    elif table == "book":
        frames = sources.books.frames if sources.books else {}
    elif table == "trades":
        frames = sources.trades.frames if sources.trades else {}
    elif table in sources.states:
        frames = sources.states[table].frames
    if not frames:
        return {}
    schema = next(iter(frames.values())).lazy().collect_schema()
    return {name: _type_of(kind) for name, kind in schema.items()}


def _type_of(kind: pl.DataType) -> str:
    if kind.is_float():
        return "double"
    if kind.is_integer():
        return "long"
    return "datetime" if kind.is_temporal() else "string"


def _schema(columns: Mapping[str, str]) -> str:
    """Return columns in the form the MLflow pages show."""
    specs = [{"name": name, "type": kind, "required": True} for name, kind in columns.items()]
    return json.dumps({"mlflow_colspec": specs})


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git says about a folder; None where it says nothing."""
    try:
        done = subprocess.run(  # noqa: S603  # no shell, and all arguments are ours
            ["git", "-C", str(folder), *arguments],  # noqa: S607  # whichever git the operator uses
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
