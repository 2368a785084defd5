"""Where a job's data lies when its spec asks for the simulated market, which is written once.

Margins of the demo are decided on it. It is apart from :mod:`margincast.jobs.setting` because what
simulates takes longer to load than other jobs take to start.
"""

from dataclasses import asdict
from pathlib import Path

from margincast.core.digest import digest_of
from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.jobs.console import say
from margincast.jobs.setting import Setting
from margincast.specs.training import Data

_DONE = "complete"


def data_root(setting: Setting, data: Data) -> Path:
    """Return the folder data paths start at, simulating the embedded market if asked to."""
    if data.simulated is None or setting.data_named:
        return setting.root
    return simulated_market(data, setting.workspace)


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
