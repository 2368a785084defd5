"""Kill -9 while margins are published: nothing torn or lost, and the next one starts clean."""

import os
import signal
import time

import numpy as np
from tests.serving.publications.publication_case import publish, scored

from margincast.core.digest import digest_of_file
from margincast.serving.publications.store import PublicationStore

KILLS = 6


def publish_for_ever(folder):
    store = PublicationStore(folder)
    (folder.parent / "ready").touch()
    for hour in range(store.last_number, 10_000):
        publish(store, scored(hour))


def files_of(folder):
    return {path: digest_of_file(path) for path in folder.glob("0*/**/*") if path.is_file()}


def test_a_publisher_killed_at_any_moment_leaves_whole_publications_only(tmp_path):
    """benchmarks/publication_kills.py does it two hundred times, and to the command as well."""
    folder, rng = tmp_path / "p", np.random.default_rng(4)
    known, interrupted = {}, 0
    for _ in range(KILLS):
        (tmp_path / "ready").unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            publish_for_ever(folder)
            os._exit(0)
        while not (tmp_path / "ready").exists():
            time.sleep(0.005)
        time.sleep(rng.uniform(0.02, 0.12))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        interrupted += bool(list(folder.glob(".new-*")))
        store = PublicationStore(folder)
        assert len(store.records()) == store.last_number
        if store.last_number:
            assert len(store.latest().levels) == store.latest().record.levels
        found = files_of(folder)
        assert known.items() <= found.items()
        known = found
    assert interrupted, "no kill hit the writing: the moments above are no good"
    store = PublicationStore(folder)
    number = store.last_number
    assert publish(store, scored(10_000)).number == number + 1
    assert not list(folder.glob(".new-*"))
