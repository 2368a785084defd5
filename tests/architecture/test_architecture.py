"""The command line answers at once, and every module says in a line what it is responsible for."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from margincast.cli import app

SOURCE = Path(__file__).resolve().parents[2] / "src" / "margincast"
MODULES = sorted(SOURCE.rglob("*.py"))
HEAVY = {
    "mlflow", "optuna", "pandas", "polars", "lightgbm", "matplotlib", "fastapi", "pyarrow", "scipy",
    "sklearn", "arch",
}  # fmt: skip
CALL = "import sys; from margincast.cli import main; sys.argv = ['margincast', *{!r}]; main()"
LOADED = "import json, sys, margincast.cli; print(json.dumps(sorted(sys.modules)))"
HELP_SECONDS = 0.5


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603  # our own interpreter on the text above
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )


def processor_seconds(code: str) -> float:
    """Processor time of a child process: unlike the wall's, it does not hang on the neighbours."""
    before = os.times()
    assert run(code).returncode == 0
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


def test_help_answers_at_once():
    best = min(processor_seconds(CALL.format(["--help"])) for _ in range(3))
    assert best < HELP_SECONDS


def test_the_command_line_loads_no_heavy_library():
    loaded = {name.partition(".")[0] for name in json.loads(run(LOADED).stdout)}
    assert "margincast" in loaded
    assert loaded & HEAVY == set()


def test_a_worker_of_the_service_loads_nothing_that_makes_forecasts():
    worker = LOADED.replace("margincast.cli", "margincast.serving.api.app")
    loaded = {name.partition(".")[0] for name in json.loads(run(worker).stdout)}
    assert "fastapi" in loaded
    assert loaded & HEAVY == {"fastapi", "pandas", "pyarrow"}


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "features",
        "train",
        "backtest",
        "promote",
        "rollback",
        "ledger",
        "score",
        "ui",
        "init",
    ],
)
def test_every_command_is_on_the_first_page_and_has_its_own(command):
    first, own = (
        CliRunner().invoke(app, arguments) for arguments in (["--help"], [command, "--help"])
    )
    assert first.exit_code == own.exit_code == 0
    assert command in first.stdout
    assert f"{command} [" in own.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["train"], "Missing argument"),
        (["features", "build", "absent.toml", "--data", ".", "--out", "."], "absent.toml"),
    ],
)
def test_bad_usage_and_bad_input_exit_with_2_and_one_message(arguments, message):
    refused = run(CALL.format(arguments))
    assert refused.returncode == 2, refused.stderr
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_says_in_its_first_line_what_it_is_responsible_for(path):
    document = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False)
    assert document is not None
    first = document.splitlines()[0]
    assert len(first.strip()) > 10
    assert first == first.strip()


def test_no_module_outgrows_a_reader():
    # style: above about 300 lines, ask whether two ideas share the room
    long = {
        path.relative_to(SOURCE).as_posix(): lines
        for path in MODULES
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 450
    }
    assert long == {}


def test_core_rests_on_numpy_at_most():
    allowed = set(sys.stdlib_module_names) | {"numpy", "margincast"}
    for path in (SOURCE / "core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.partition(".")[0] in allowed, f"{path.name} imports {name}"
                assert not name.startswith("margincast") or name.startswith("margincast.core")
