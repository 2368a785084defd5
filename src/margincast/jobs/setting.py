"""Where a job runs: workspace, data folder, output folder, threads."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from margincast.core.digest import digest_of
from margincast.core.errors import InputError
from margincast.core.threads import available_threads
from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.jobs.console import say
from margincast.specs.loading import find_workspace
from margincast.specs.training import Data

DATA_VARIABLE = "MARGINCAST_DATA"
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
    """

    workspace: Path
    root: Path
    out: Path
    threads: int
    data_named: bool

    @classmethod
    def of(cls, spec: Path, data: Path | None, out: Path | None, name: str) -> "Setting":
        """Settle folders: ``--data``, else ``MARGINCAST_DATA``, else the workspace; likewise out.

        Raises:
            InputError: the data folder does not exist, or the output cannot be a folder.
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
        return cls(
            workspace,
            (named or workspace).resolve(),
            target,
            available_threads(),
            data_named=data is not None,
        )

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
