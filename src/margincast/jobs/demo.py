"""``margincast demo``: the main job, end to end, on the embedded simulated market."""

import time
from pathlib import Path

from margincast.jobs import score, train
from margincast.jobs.console import output
from margincast.jobs.setting import Setting

TRAINING = Path("training") / "demo.toml"
POLICY = Path("serving") / "demo.toml"


def run(workspace: Path, out: Path | None) -> bool:
    """Train, backtest, register and score on the simulated market.

    Returns:
        Whether the gate passed.
    """
    started = time.monotonic()
    target = out or workspace / "out" / "demo"
    trained = train.run(workspace / TRAINING, None, target, [])
    output.print()
    score.run(workspace / POLICY, None, target, [])
    setting = Setting.of(workspace / TRAINING, None, target, "demo")
    output.print()
    output.print(f"Backtest report: {trained.backtest.report}", soft_wrap=True)
    output.print("Compare the models in the MLflow UI: .venv/bin/margincast ui", soft_wrap=True)
    output.print(
        f"Done in {time.monotonic() - started:.0f} s on {setting.threads} threads. The market is "
        "simulated; for real data see the README."
    )
    return trained.backtest.verdict.passed
