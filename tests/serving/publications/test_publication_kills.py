"""Kill -9 while margins are published: nothing torn or lost, and the next one starts clean."""

import time

import numpy as np
import pytest
from tests.serving.publications.publication_case import (
    processes,
    publish,
    publish_for_ever,
    scored,
)

from margincast.core.digest import digest_of_file
from margincast.serving.publications.store import PublicationStore


@pytest.fixture
def killed_publisher(tmp_path):
    """Publish in a process of its own and kill it: at one of its syncs, or after some seconds."""
    folder, here = tmp_path / "p", tmp_path / "here"

    def run(*, sync=None, seconds=0.0):
        here.unlink(missing_ok=True)
        child = processes().Process(target=publish_for_ever, args=(folder, here, sync))
        child.start()
        while not here.exists():
            assert child.is_alive(), "the publisher ended by itself"
            time.sleep(0.002)
        time.sleep(seconds)
        child.kill()
        child.join()
        return folder

    return run


def found_whole(folder, known):
    """Read everything; what was there is there still, byte by byte."""
    store = PublicationStore(folder)
    assert len(store.records()) == store.last_number
    if store.last_number:
        assert len(store.latest().levels) == store.latest().record.levels
    found = {path: digest_of_file(path) for path in folder.glob("0*/**/*") if path.is_file()}
    assert known.items() <= found.items()
    return found


def test_a_publisher_killed_at_every_step_leaves_whole_publications_only(killed_publisher):
    """A step ends where something is brought to the disk: files, folders, the number, the head."""
    known, seen = {}, set()
    for sync in range(1, 18):
        folder = killed_publisher(sync=sync)
        left, before = bool(list(folder.glob(".new-*"))), len(known)
        known = found_whole(folder, known)
        seen.add((left, len(known) > before))
    # killed with half a folder, and with a whole one whose head was not written yet
    assert {(True, False), (False, True)} <= seen
    store = PublicationStore(folder)
    number = store.last_number
    assert publish(store, scored(100)).number == number + 1
    assert not list(folder.glob(".new-*"))


def test_a_publisher_killed_at_any_moment_leaves_whole_publications_only(killed_publisher):
    """benchmarks/publication_kills.py does it two hundred times, and to the command as well."""
    known, rng = {}, np.random.default_rng(4)
    for _ in range(4):
        folder = killed_publisher(seconds=rng.uniform(0.02, 0.12))
        known = found_whole(folder, known)
