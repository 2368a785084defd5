"""Where a job runs: workspace, data folder, output folder, threads, and on which machines."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from margincast.core.errors import InputError
from margincast.core.execution import Execution
from margincast.core.threads import available_threads
from margincast.features.cache import FeatureCache
from margincast.jobs.console import say
from margincast.specs.loading import find_workspace
from margincast.training.execution.local import LocalExecution
from margincast.training.execution.opening import open_execution

DATA_VARIABLE = "MARGINCAST_DATA"
CACHE = Path(".margincast") / "features"
"""Where built features are kept, below the workspace."""
NO_CACHE = "none"


@dataclass(frozen=True)
class Setting:
    """Folders and threads of a job.

    Attributes:
        workspace: folder that spec paths start at.
        root: folder that data paths start at.
        out: folder that results go to.
        threads: OpenMP threads.
        execution: where refits and other work that can be done side by side run.
        data_named: whether ``--data`` named the root; a spec's simulated market yields to it.
        cache: built features; None where none are kept.
    """

    workspace: Path
    root: Path
    out: Path
    threads: int
    execution: Execution
    data_named: bool
    cache: FeatureCache | None = None

    @classmethod
    def of(
        cls,
        spec: Path,
        data: Path | None,
        out: Path | None,
        name: str,
        cache: str | None = None,
        *,
        keeps_features: bool = True,
    ) -> "Setting":
        """Settle folders: ``--data``, else ``MARGINCAST_DATA``, else the workspace; likewise out.

        Built features are kept in ``--cache``, else below the workspace; nowhere with ``none``.
        Without ``keeps_features`` those that are there are read, and none is added.

        Raises:
            InputError: the data folder does not exist, or output or cache cannot be a folder.
        """
        workspace = find_workspace(spec)
        named = data or (Path(os.environ[DATA_VARIABLE]) if DATA_VARIABLE in os.environ else None)
        if named is not None and not named.is_dir():
            raise InputError(
                f"data folder {named} does not exist; give an existing one with --data"
            )
        target = out or workspace / "out" / name
        if target.exists() and not target.is_dir():
            raise InputError(f"{target} is a file; --out takes a folder")
        kept = _cache_folder(cache, workspace)
        threads = available_threads()
        return cls(
            workspace,
            (named or workspace).resolve(),
            target,
            threads,
            LocalExecution(threads),
            data_named=data is not None,
            cache=None if kept is None else FeatureCache(kept, read_only=not keeps_features),
        )

    @contextmanager
    def on(self, cluster: str | None) -> Iterator["Setting"]:
        """Run on a Dask cluster while this lasts, where one is named (``--cluster``).

        Raises:
            InputError: the cluster cannot be used.
        """
        with open_execution(cluster, self.threads) as execution:
            if cluster is not None:
                say(f"on {execution.description}")
            yield replace(self, execution=execution)

    def say_what_was_reused(self) -> None:
        """Say how many features were read back, where any could be, and why some were not kept."""
        if self.cache is not None and self.cache.reused + self.cache.built:
            say(self.cache.describe())


def _cache_folder(cache: str | None, workspace: Path) -> Path | None:
    if cache is None:
        folder = workspace / CACHE
    elif not cache.strip():
        raise InputError(
            f"--cache is empty; give a folder, or '{NO_CACHE}' to keep nothing, or leave it out "
            f"for {CACHE} below the workspace"
        )
    elif cache.strip().casefold() == NO_CACHE:
        return None
    else:
        folder = Path(cache)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; --cache takes a folder, or '{NO_CACHE}'")
    return folder
