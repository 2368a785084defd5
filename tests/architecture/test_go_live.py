"""The operator's road (docs/guide/go-live.md): every command on it is understood as written."""

import re
import shlex
from pathlib import Path

import pytest
import typer

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs" / "guide" / "go-live.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line for block in BLOCKS for line in block.splitlines() if line.startswith("margincast ")
]
PLACEHOLDERS = {"N": "1", "LINE": "3", "HASH": "0", "TEXT": "why"}
INLINE = re.findall(r"`(margincast [a-z][^`]*)`", " ".join(PAGE.split()))


def understood(line: str) -> tuple[str, dict[str, object]]:
    """Parse a command as the shell hands it over; returns its path and parameters."""
    from margincast.cli import app  # noqa: PLC0415  # slow to import

    _, *rest = shlex.split(line)
    command, path = typer.main.get_command(app), []
    while rest and hasattr(command, "commands"):
        path.append(rest.pop(0))
        command = command.commands[path[-1]]  # raises for a command there is not
    # raises for an option that the command does not have, and for an argument that is missing
    return " ".join(path), dict(command.make_context(command.name, rest).params)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line):
    path, parameters = understood(line)
    for name in ("spec", "policy"):
        if isinstance(spec := parameters.get(name), Path):
            assert (CHECKOUT / spec).is_file(), path


@pytest.mark.parametrize("line", INLINE)
def test_commands_within_the_text_exist(line):
    words = [PLACEHOLDERS.get(word, word) for word in line.split()]
    if "--" in line:
        understood(" ".join(words))
    else:
        understood_name(words[1:])


def understood_name(names: list[str]) -> None:
    """Check that a command of this name is there; its arguments are left out in the text."""
    from margincast.cli import app  # noqa: PLC0415  # slow to import

    command = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]


def test_the_road_leads_from_installation_to_rollback():
    paths = [understood(line)[0] for line in COMMANDS]
    wanted = [
        "init", "train", "ledger verify", "score", "publications list", "publications verify",
        "publications replay", "keys create", "serve", "monitor", "override set",
        "publications revert", "rollback",
    ]  # fmt: skip
    places = [paths.index(path) for path in wanted]
    assert places == sorted(places)
    published = [understood(line)[1] for line in COMMANDS if "--publish" in line]
    assert published
    assert all(one["at"] == "now" and one["reason"] for one in published)
