"""The examples run as a reader would run them, and print what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # this interpreter on a script of the checkout
        [sys.executable, "-W", "error", str(CHECKOUT / "examples" / script), *arguments],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def printed_by(script: str, *arguments: str) -> str:
    finished = run(script, *arguments)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.slow
def test_forecasts_are_near_the_true_quantiles_and_in_their_order() -> None:
    printed = printed_by(
        "forecast_from_bars.py", "--days", "16", "--rounds", "10", "--paths", "2000"
    )
    rows = re.findall(
        r"^\d\d-\d\d \d\d:\d\d +(SIM-\w+) +(long|short) .* (\d+\.\d\d)$", printed, re.MULTILINE
    )
    assert len(rows) == 5 * 3 * 2  # decisions x contracts x sides
    assert all(0.3 < float(ratio) < 3.0 for _, _, ratio in rows)
    summary = re.search(r"forecast/true (\d+\.\d\d), rank correlation (-?\d\.\d\d)", printed)
    assert summary is not None
    assert 0.6 < float(summary[1]) < 1.6
    assert float(summary[2]) > 0.7


@pytest.mark.parametrize(("side", "forecast"), [("long", 0.025), ("short", 0.06)])
def test_the_margin_of_a_position_follows_from_the_printed_steps(
    side: str, forecast: float
) -> None:
    printed = printed_by("margin_of_a_position.py", "--side", side, "--forecast", str(forecast))
    steps = re.findall(r"^\w[\w ]+? +(\d+\.\d+)% -> +(\d+\.\d+)%  ", printed, re.MULTILINE)
    assert len(steps) == 8
    assert float(steps[0][1]) == pytest.approx(100 * forecast)
    assert [before for before, _ in steps[1:]] == [after for _, after in steps[:-1]]
    final = re.search(
        r"of ([\d,]+) USD: [\d,]+ x (\d+\.\d+)% - ([\d,]+\.\d\d) = ([\d,]+\.\d\d) USD", printed
    )
    assert final is not None
    notional, rate, amount, margin = (float(text.replace(",", "")) for text in final.groups())
    assert rate == float(steps[-1][1])
    assert margin == pytest.approx(notional * rate / 100 - amount, abs=0.01)
    assert margin > notional * forecast - amount


def test_a_notional_beyond_the_last_tier_is_refused() -> None:
    finished = run("margin_of_a_position.py", "--notional", "1e12")
    assert finished.returncode != 0
    assert "has no tier" in finished.stderr
