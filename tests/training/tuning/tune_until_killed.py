"""A job that tunes and says so: a program for tests that kill it.

Usage: ``python -m tests.training.tuning.tune_until_killed STORAGE WORKSPACE [OVERRIDE...]``
"""

import sys
from pathlib import Path

from tests.training.tuning.study_cases import LEVELS, job, simulated_panel

from margincast.training.tuning.storage import open_storage
from margincast.training.tuning.tune import tune_head


def main(address: str, workspace: str, *overrides: str) -> None:
    tune_head(
        job(*overrides),
        [simulated_panel(0, 700)],
        LEVELS,
        1,
        lambda trial: print(trial.number, flush=True),  # noqa: T201  # whoever kills it listens
        storage=open_storage(address, Path(workspace)),
        inputs={"data": "the same"},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
