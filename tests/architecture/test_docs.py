"""The documentation says what the code does: links, files, commands, keys and functions."""

import re
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from margincast import __version__
from margincast.cli import app
from margincast.features.library import LIBRARY
from margincast.features.plan import FAMILIES
from margincast.models.catalogue import LOADERS, OURS
from margincast.specs.collateral import CollateralPolicy
from margincast.specs.features import Grid
from margincast.specs.monitor import Monitor
from margincast.specs.schedule import Tier
from margincast.specs.service import Service
from margincast.specs.serving import MarginPolicy
from margincast.specs.training import TrainingJob

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for folder in (
        ".",
        "docs",
        "features",
        "training",
        "serving",
        "mlruns",
        "examples",
        "benchmarks",
    )
    for path in (CHECKOUT / folder).glob("**/*.md" if folder == "docs" else "*.md")
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def page(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def models_within(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in models_within(part)]


def keys_of(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all values a spec may hold."""
    keys = []
    for name, field in model.model_fields.items():
        inner = models_within(field.annotation)
        open_table = "dict" in str(field.annotation)
        keys += (
            [f"{prefix}{name}"]
            if open_table or not inner
            else [key for section in inner for key in keys_of(section, f"{prefix}{name}.")]
        )
    return keys


def commands() -> list[str]:
    group = typer.main.get_command(app)
    names = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        names += [name] if inner is None else [f"{name} {sub}" for sub in inner]
    return names


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(path.read_text(encoding="utf-8"))]
    relative = [link for link in links if link and not re.match(r"[a-z]+:", link)]
    assert [link for link in relative if not (path.parent / link).exists()] == []


def test_every_page_of_the_documentation_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [CHECKOUT / "README.md"]
    while waiting:
        path = waiting.pop().resolve()
        if path in reached or path.suffix != ".md":
            continue
        reached.add(path)
        waiting += [
            path.parent / link
            for link in LINK.findall(path.read_text(encoding="utf-8"))
            if (path.parent / link).exists()
        ]
    expected = {path for path in PAGES if path.name != "CHANGELOG.md"}
    assert {path.relative_to(CHECKOUT) for path in expected - reached} == set()


@pytest.mark.parametrize("folder", ["features", "training", "serving"])
def test_every_shipped_spec_is_named_in_its_folders_readme(folder: str) -> None:
    text = page(f"{folder}/README.md")
    shipped = [
        path.relative_to(CHECKOUT / folder).as_posix()
        for path in (CHECKOUT / folder).rglob("*.toml")
    ]
    assert shipped
    assert [name for name in shipped if f"`{name}`" not in text] == []


def test_every_command_is_named_in_the_readme() -> None:
    names = commands()
    assert {"demo", "features build", "train", "score"} <= set(names)
    assert [name for name in names if f"`margincast {name}" not in page("README.md")] == []


def test_the_changelog_has_this_version() -> None:
    assert f"## [{__version__}]" in page("CHANGELOG.md")


def test_every_key_of_a_training_job_is_explained() -> None:
    text = page("training/README.md")
    expected = [key for key in keys_of(TrainingJob) if not key.startswith("data.simulated.")]
    assert "model.head.min_data_factor" in expected
    assert [key for key in expected if f"`{key}`" not in text] == []


def test_every_key_of_a_margin_policy_is_explained() -> None:
    text = page("serving/README.md")
    expected = [key for key in keys_of(MarginPolicy) if not key.startswith("data.")]
    expected += list(Tier.model_fields)
    assert "limits.multiplier_cap" in expected
    assert [key for key in expected if f"`{key}`" not in text] == []


def test_every_key_of_a_collateral_policy_is_explained() -> None:
    text = page("serving/README.md")
    expected = keys_of(CollateralPolicy)
    assert "assets.market.joint_tail" in expected
    assert [key for key in expected if f"`{key}`" not in text] == []


def test_every_key_of_a_monitor_is_explained() -> None:
    text = page("serving/README.md")
    expected = keys_of(Monitor)
    assert "acting.jobs.alarms" in expected
    assert [key for key in expected if f"`{key}`" not in text] == []


def test_every_key_of_a_service_is_explained() -> None:
    text = page("serving/README.md")
    expected = keys_of(Service)
    assert "limits.requests_per_second" in expected
    assert [key for key in expected if f"`{key}`" not in text] == []


def test_every_key_of_the_grid_and_every_feature_function_with_its_unit_is_listed() -> None:
    text = page("features/README.md")
    assert FAMILIES
    assert [key for key in Grid.model_fields if f"`grid.{key}`" not in text] == []
    missing = [
        (family, name)
        for (family, name), function in LIBRARY.items()
        if f"| {family} | `{name}` | {function.unit} |" not in text
    ]
    assert missing == []
    listed = re.findall(r"^\| (\w+) \| `(\w+)` \| (?:fraction|number) \|", text, re.MULTILINE)
    assert set(listed) == set(LIBRARY)


def test_every_peer_is_described() -> None:
    text = page("docs/method/forecast.md")
    assert [name for name in LOADERS if name != OURS and f"| `{name}` |" not in text] == []
