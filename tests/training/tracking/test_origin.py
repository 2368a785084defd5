"""A run says which code, libraries and machine it was made with, and what it cost."""

import subprocess
import sys
import time
from importlib.metadata import version

import pytest

from margincast.training.tracking.origin import (
    NO_CHECKOUT,
    Environment,
    commit_of,
)
from margincast.training.tracking.usage import Usage, largest_child_bytes


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(  # noqa: S603 - no shell, the arguments are the test's
        ["git", "-C", str(folder), *identity, *arguments],  # noqa: S607 - as in the code
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_commit_is_named_and_so_are_changes_since(tmp_path):
    assert commit_of(tmp_path) == NO_CHECKOUT
    git(tmp_path, "init")
    (tmp_path / "job.toml").write_text("a = 1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(tmp_path) == commit
    (tmp_path / "job.toml").write_text("a = 2")
    assert commit_of(tmp_path) == f"{commit}, with changes that are not committed"


def test_without_git_it_is_said_so(tmp_path, monkeypatch):
    git(tmp_path, "init")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path) == NO_CHECKOUT


def test_the_environment_names_every_distribution():
    here = Environment.here()
    assert here.packages["lightgbm"] == version("lightgbm")
    assert f"numpy=={version('numpy')}\n" in here.requirements()
    assert here.lock_digest == Environment.here().lock_digest
    other = Environment(here.facts, {**here.packages, "numpy": "0"})
    assert other.lock_digest != here.lock_digest
    assert here.parameters()["python"].endswith(sys.version.split()[0])


def test_phases_add_up_and_are_counted_also_when_they_fail():
    usage = Usage()
    for _ in range(2):
        with usage.phase("fit"):
            time.sleep(0.02)
    with pytest.raises(ValueError, match="broken"), usage.phase("broken"):
        raise ValueError("broken")
    metrics = usage.metrics()
    assert metrics["seconds/fit"] >= 0.04
    assert metrics["seconds/broken"] >= 0.0
    assert metrics["seconds/total"] >= metrics["seconds/fit"]
    assert metrics["memory/peak_mib"] > 10


def test_the_memory_of_a_living_worker_is_seen():
    mebibytes = 300
    script = (
        f"x = bytearray({mebibytes} << 20); x[::4096] = b'1' * len(x[::4096]); "
        "print('filled', flush=True); del x; input()"
    )
    with subprocess.Popen(  # noqa: S603 - the test's own interpreter and script
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout.readline() == "filled\n"
        assert largest_child_bytes() >= mebibytes << 20
        worker.communicate("\n")
