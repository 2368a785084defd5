"""The deployment files: their parts fit together, and every command they give is understood."""

import configparser
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "serving" / "deploy"
TEXT = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
TEAM = yaml.safe_load((CHECKOUT / "docs" / "team" / "compose.yaml").read_text(encoding="utf-8"))
ALARMS = yaml.safe_load((FOLDER / "alarms.yml").read_text(encoding="utf-8"))
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([-?])([^}]*))?\}")


def understood(arguments: list[str]) -> dict[str, object]:
    """Parse a command of ours as the shell would hand it over; returns its parameters."""
    from margincast.cli import app  # noqa: PLC0415  # slow to import

    program, *rest = arguments
    assert Path(program).name == "margincast"
    command = typer.main.get_command(app)
    while rest and hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]  # raises for a command there is not
    # raises for an option that the command does not have
    return dict(command.make_context(command.name, rest).params)


def commands_in(line: str) -> list[list[str]]:
    """Return our commands in a line of a shell."""
    words = shlex.split(line)
    starts = [
        place
        for place, word in enumerate(words)
        if Path(word).name == "margincast" and place + 1 < len(words)
        and words[place + 1] in {"serve", "score", "monitor", "keys", "live"}
    ]  # fmt: skip
    ends = {"&&", ";", ">", "||"}
    found = []
    for start in starts:
        rest = words[start:]
        stop = next((place for place, word in enumerate(rest) if word in ends), len(rest))
        found.append(rest[:stop])
    return found


def test_the_service_is_started_by_a_command_it_understands():
    parameters = understood(SERVICES["service"]["command"])
    assert str(parameters["where"]) == "/workspace"
    assert parameters["overrides"] == ["address.host=0.0.0.0"]
    (recipe,) = commands_in(
        next(line.removeprefix("#") for line in TEXT.splitlines() if "keys create" in line)
    )
    assert understood(recipe)["scopes"] == "read"


def test_what_the_compose_file_names_is_there():
    shared = {
        name: TEAM["services"][service["extends"]["service"]] | service
        for name, service in SERVICES.items()
        if "extends" in service
    }
    assert set(shared) == {"postgres", "mlflow"}
    for service in {**SERVICES, **shared}.values():
        if "extends" in service:
            assert (
                FOLDER / service["extends"]["file"]
            ).resolve() == CHECKOUT / "docs/team/compose.yaml"
        assert set(service.get("depends_on", ())) <= set(SERVICES)
        assert {one["source"] for one in service.get("configs", ())} <= set(COMPOSE["configs"])
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (
                source in COMPOSE["volumes"]
                or source.startswith("${")
                or (FOLDER / source).is_file()
            )
    assert COMPOSE["configs"]["studies"] == TEAM["configs"]["studies"]


def test_nothing_listens_beyond_the_machine_and_nothing_runs_with_more_than_it_needs():
    required = {found[1] for found in VARIABLE.finditer(TEXT) if found[2] == "?"}
    assert required == {"WORKSPACE", "PROMETHEUS_KEY"}
    assert not re.search(r"PASSWORD: (?!\$\{)", TEXT)
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    for name in ("service", "prometheus"):
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


def test_the_image_is_slim_not_roots_and_made_of_what_is_there():
    build = SERVICES["service"]["build"]
    assert (FOLDER / build["context"]).resolve() == CHECKOUT
    assert build["dockerfile"] == TEAM["x-margincast"]["build"]["dockerfile"]
    lines = (CHECKOUT / build["dockerfile"]).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("FROM ")] == ["FROM python:3.11-slim"]
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001"]
    # nothing is installed or copied after the last right was given away
    after = lines[lines.index("USER 10001") :]
    assert not [line for line in after if line.startswith(("RUN", "COPY", "ADD"))]
    named = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert [name for name in named if not (CHECKOUT / name).exists()] == []


def test_prometheus_asks_the_service_with_its_key():
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert name in SERVICES
    assert SERVICES[name]["ports"][0].endswith(f":{port}")
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    mounted = [volume.split(":")[1] for volume in SERVICES["prometheus"]["volumes"]]
    assert [f"/etc/prometheus/{name}" for name in config["rule_files"]] == [
        path for path in mounted if path.endswith("alarms.yml")
    ]


def test_alarms_ask_for_metrics_that_the_service_has():
    from margincast.serving.api.metrics import STATUSES, Metrics  # noqa: PLC0415  # slow to import

    there = set(re.findall(r"^# TYPE (\S+)", Metrics().text().decode(), re.MULTILINE))
    rules = [rule for group in ALARMS["groups"] for rule in group["rules"]]
    assert len(rules) >= 5
    for rule in rules:
        asked = set(re.findall(r"margincast_\w+", rule["expr"]))
        assert asked
        assert {name.removesuffix("_bucket") for name in asked} <= there, rule["alert"]
        states = re.findall(r'status=~"([a-z|]+)"', rule["expr"])
        assert {one for text in states for one in text.split("|")} <= set(STATUSES)


def unit(name):
    """The ``[Service]`` of a systemd unit."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(FOLDER / f"{name}.service")
    return parser["Service"]


@pytest.mark.parametrize("name", ["margincast", "margincast-live"])
def test_units_run_what_is_understood_with_no_more_rights_than_they_need(name):
    service = unit(name)
    understood(shlex.split(service["ExecStart"]))
    assert service["User"] not in {"root", "0"}
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    (writable,) = service["ReadWritePaths"].split()
    assert Path(writable).is_relative_to(service["WorkingDirectory"])


def test_the_service_may_write_its_keys_and_audit_log():
    from margincast.specs.loading import load_spec  # noqa: PLC0415  # slow to import
    from margincast.specs.service import Service  # noqa: PLC0415  # likewise

    service = unit("margincast")
    parameters = understood(shlex.split(service["ExecStart"]))
    assert str(parameters["where"]) == service["WorkingDirectory"]
    spec = load_spec(CHECKOUT / "serving" / "service.toml", Service)
    folder = Path(service["WorkingDirectory"])
    for path in (spec.access.audit_file, spec.access.keys_file):
        assert (folder / path).is_relative_to(service["ReadWritePaths"])


def test_the_live_engine_takes_rows_from_the_service_and_puts_margins_on_the_record():
    parameters = understood(shlex.split(unit("margincast-live")["ExecStart"]))
    assert (CHECKOUT / str(parameters["spec"])).is_file()
    assert parameters["listen"] is True
    assert parameters["publish"] is True


LINES = [
    line
    for line in (FOLDER / "margincast.cron").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#") and not re.match(r"[A-Z_]+=", line)
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: commands_in(line)[0][1])
def test_the_jobs_of_a_night_are_understood(line):
    fields = line.split(maxsplit=6)
    assert all(re.fullmatch(r"[0-9*/,-]+", field) for field in fields[:5])
    assert fields[5] == "margincast"  # the user
    (command,) = commands_in(fields[6])
    parameters = understood(command)
    assert (CHECKOUT / str(parameters["spec"])).is_file()
    if command[1] == "score":
        assert parameters["publish"] is True
        assert parameters["at"] == "now"


def test_there_is_a_job_that_publishes_and_one_that_looks():
    assert [commands_in(line)[0][1] for line in LINES] == ["score", "monitor"]
