"""Where a job runs: workspace, data folder, output folder, threads."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from margincast.core.digest import digest_of
from margincast.core.errors import InputError
from margincast.core.threads import available_threads
from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.features.cache import FeatureCache
from margincast.jobs.console import say
from margincast.specs.loading import find_workspace
from margincast.specs.training import Data

DATA_VARIABLE = "MARGINCAST_DATA"
CACHE = Path(".margincast") / "features"
"""Where built features are kept, below the workspace."""
NO_CACHE = "none"
_DONE = "complete"


@dataclass(frozen=True)
class Setting:
    """Folders and threads of a job.

    Attributes:
        workspace: folder that spec paths start at.
        root: folder that data paths start at.
        out: folder that results go to.
        threads: OpenMP threads.
        data_named: whether ``--data`` named the root; a spec's simulated market yields to it.
        cache: built features; None where none are kept.
    """

    workspace: Path
    root: Path
    out: Path
    threads: int
    data_named: bool
    cache: FeatureCache | None = None

    @classmethod
    def of(
        cls, spec: Path, data: Path | None, out: Path | None, name: str, cache: str | None = None
    ) -> "Setting":
        """Settle folders: ``--data``, else ``MARGINCAST_DATA``, else the workspace; likewise out.

        Built features are kept in ``--cache``, else below the workspace; nowhere with ``none``.

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
        kept = None if cache == NO_CACHE else Path(cache) if cache else workspace / CACHE
        if kept is not None and kept.exists() and not kept.is_dir():
            raise InputError(f"{kept} is a file; --cache takes a folder, or '{NO_CACHE}'")
        return cls(
            workspace,
            (named or workspace).resolve(),
            target,
            available_threads(),
            data_named=data is not None,
            cache=None if kept is None else FeatureCache(kept),
        )

    def say_what_was_reused(self) -> None:
        """Say how many features were read back, where any could be."""
        if self.cache is not None and self.cache.reused + self.cache.built:
            say(self.cache.describe())

    def data_root(self, data: Data) -> Path:
        """Return the folder data paths start at, simulating the embedded market if asked to."""
        if data.simulated is None or self.data_named:
            return self.root
        return simulated_market(data, self.workspace)


def simulated_market(data: Data, workspace: Path) -> Path:
    """Write the simulated market of a spec once and return its folder."""
    wanted = data.simulated
    assert wanted is not None
    parameters = MarketParameters(contracts=select_contracts(wanted.contracts))
    law = digest_of(asdict(parameters))[:8]
    name = f"{wanted.start:%Y%m%d}-{wanted.days}d-seed{wanted.seed}-{'-'.join(wanted.contracts)}"
    folder = workspace / wanted.folder / f"{name}-{law}"
    if not (folder / _DONE).exists():
        say(f"simulating {wanted.days} days of {', '.join(wanted.contracts)} (seed {wanted.seed})")
        market = simulate_market(
            parameters,
            days=wanted.days,
            seed=wanted.seed,
            start=wanted.start,
        )
        write_market(market, folder)
        (folder / _DONE).touch()
    return folder
