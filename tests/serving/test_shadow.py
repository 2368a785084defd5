"""The shadow: whoever has the alias by both records, with or without a passed gate."""

import pytest

from margincast.core.errors import CheckFailedError
from margincast.serving.promotion import promote
from margincast.serving.shadow import KEPT, resolve_shadow


@pytest.fixture
def give(registry, name):
    def alias(version, alias="shadow"):
        promote(registry, name, alias, version, who="ann", why="to compare")

    return alias


def test_a_version_whose_gate_failed_may_be_shadow(registry, register, give, name, failed):
    assert resolve_shadow(registry, name) is None
    version = register(2.0, failed).version
    give(version)
    found = resolve_shadow(registry, name)
    assert found.version.version == version
    assert found.bundle_directory.parent == registry.workspace.resolve() / KEPT / name
    # kept on the disk, and changed when another takes its place
    (found.bundle_directory / "manifest.json").write_text("{}")
    assert resolve_shadow(registry, name) == found
    other = register(3.0).version
    give(other)
    assert resolve_shadow(registry, name).version.version == other
    assert not found.bundle_directory.exists()


def test_an_alias_that_nobody_gave_is_no_shadow(registry, register, name):
    version = register(2.0).version
    registry.point(name, "shadow", version)
    with pytest.raises(CheckFailedError, match="in doubt"):
        resolve_shadow(registry, name)
