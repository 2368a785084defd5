"""The compose file for a team: its parts fit together, and its programs know their commands."""

import re
from pathlib import Path

import pytest
import typer
import yaml
from click import Command, Group

CHECKOUT = Path(__file__).resolve().parents[2]
FILE = CHECKOUT / "docs" / "team" / "compose.yaml"
COMPOSE = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([-?])([^}]*))?\}")


def programs() -> dict[str, Command]:
    from dask.cli import cli as dask  # noqa: PLC0415  # skipped where Dask is not installed
    from distributed.cli.dask_scheduler import main as scheduler  # noqa: PLC0415  # likewise
    from distributed.cli.dask_worker import main as worker  # noqa: PLC0415  # likewise
    from mlflow.cli import cli as mlflow  # noqa: PLC0415  # slow to import

    from margincast.cli import app  # noqa: PLC0415  # beside its like

    assert isinstance(dask, Group)
    return {
        "dask scheduler": scheduler,
        "dask worker": worker,
        "mlflow server": mlflow.commands["server"],
        "margincast train": typer.main.get_command(app).commands["train"],  # type: ignore[attr-defined]
    }


def filled(text: str) -> str:
    """Put a value for every variable: its default, or a one."""
    return VARIABLE.sub(lambda found: found[3] if found[2] == "-" else "1", text)


@pytest.mark.parametrize("name", [name for name, one in SERVICES.items() if "command" in one])
def test_every_command_is_understood_by_its_program(name):
    pytest.importorskip("distributed", reason="Dask is not installed")
    program, sub, *arguments = (filled(str(part)) for part in SERVICES[name]["command"])
    command = programs()[f"{program} {sub}"]
    # raises for an option that the program does not have
    context = command.make_context(sub, list(arguments))
    if name == "job":
        assert context.params["cluster"] == "tcp://scheduler:8786"


def test_services_volumes_and_configs_that_are_named_are_there():
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= set(SERVICES)
        assert {one["source"] for one in service.get("configs", ())} <= set(COMPOSE["configs"])
        sources = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert {name for name in sources if name.isidentifier()} <= set(COMPOSE["volumes"])
    addresses = set(re.findall(r"(?:@|//)([a-z]+)(?=[:/])", FILE.read_text(encoding="utf-8")))
    assert {"postgres", "mlflow", "scheduler"} <= addresses
    assert addresses <= set(SERVICES) | {"margincast"}


def test_no_password_stands_in_it_and_nothing_listens_beyond_the_machine():
    text = FILE.read_text(encoding="utf-8")
    required = {found[1] for found in VARIABLE.finditer(text) if found[2] == "?"}
    assert required == {"POSTGRES_PASSWORD", "DATA", "WORKSPACE"}
    assert not re.search(r"PASSWORD: (?!\$\{)", text)
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_the_image_is_made_of_what_is_there():
    build = COMPOSE["x-margincast"]["build"]
    root = (FILE.parent / build["context"]).resolve()
    assert root == CHECKOUT
    lines = (root / build["dockerfile"]).read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    names = [name for line in copied for name in line]
    assert "requirements.lock" in names
    assert [name for name in names if not (root / name).exists()] == []


def test_jobs_override_what_the_spec_has():
    from margincast.specs.loading import load_spec  # noqa: PLC0415  # slow to import
    from margincast.specs.training import TrainingJob  # noqa: PLC0415  # slow to import

    command = [filled(part) for part in SERVICES["job"]["command"]]
    overrides = [part.removeprefix("--set=") for part in command if part.startswith("--set=")]
    job = load_spec(CHECKOUT / command[2], TrainingJob, overrides)
    assert job.tracking.uri == "http://mlflow:5000"
    assert job.tuning.workers == 4
    assert job.tuning.storage.endswith("@postgres/studies")
