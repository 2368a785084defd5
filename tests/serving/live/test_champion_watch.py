"""Which fault each trouble of the model is, and how the next champion is made ready."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from margincast.core.errors import BundleError, CheckFailedError, InputError, LedgerError
from margincast.serving.champion import Champion, FailedGateError
from margincast.serving.live import champion_watch
from margincast.serving.live.champion_watch import ChampionWatch
from margincast.serving.live.faults import Fault
from margincast.training.tracking import StoreUnreachableError

SECOND = 1_000_000


@dataclass(frozen=True)
class Version:
    version: int
    bundle_digest: str = "d"


def champion(number, reason=""):
    return Champion(Version(number), "folder", None, bool(reason), reason)


class Registry:
    """Answers, or fails, as it is told."""

    def __init__(self):
        self.answer, self.asked = champion(1), 0

    def __call__(self):
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def whole(monkeypatch):
    """Bundles on the disk that are whole, until a test changes one."""
    state = {"whole": True}

    def verify(directory, digest):
        if not state["whole"]:
            raise BundleError("model.json was changed")

    monkeypatch.setattr(champion_watch, "verify_bundle", verify)
    return state


def watch_of(registry, load=lambda found: f"model {found.version.version}", outage=0, said=None):
    said = [] if said is None else said
    watch = ChampionWatch(registry, load, timedelta(seconds=outage), said.append)
    watch.serving = champion(1)
    return watch


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (FailedGateError("its override ended"), Fault.FAILED_GATE),
        (BundleError("model.json was changed"), Fault.TAMPERED_BUNDLE),
        (StoreUnreachableError("nobody answers"), Fault.STORE_DOWN),
        (LedgerError("line 3"), Fault.NO_CHAMPION),
        (CheckFailedError("who is champion is in doubt"), Fault.NO_CHAMPION),
        (InputError("no version is champion"), Fault.NO_CHAMPION),
    ],
)
def test_each_trouble_is_its_fault_until_it_is_over(whole, error, fault):
    registry, said = Registry(), []
    watch = watch_of(registry, said=said)
    registry.answer = error
    watch.look(0)
    watch.look(1)
    assert list(watch.faults) == [fault]
    assert said == [str(error)]  # in full, once
    registry.answer = champion(1)
    watch.look(SECOND)
    assert watch.faults == {}
    assert watch.next is None


def test_an_outage_is_a_fault_once_it_is_longer_than_allowed(whole):
    registry = Registry()
    watch = watch_of(registry, outage=10)
    registry.answer = champion(1, "MLflow cannot be reached")
    for seconds, down in ((0, False), (9, False), (10, True)):
        watch.look(seconds * SECOND)
        assert (Fault.STORE_DOWN in watch.faults) == down
    registry.answer = champion(1)
    watch.look(11 * SECOND)
    registry.answer = champion(1, "MLflow cannot be reached")
    watch.look(12 * SECOND)
    assert watch.faults == {}


def test_a_changed_bundle_is_said_before_it_is_fetched_anew(whole):
    registry = Registry()
    watch = watch_of(registry)
    whole["whole"] = False
    watch.look(0)
    assert list(watch.faults) == [Fault.TAMPERED_BUNDLE]
    assert registry.asked == 1  # it fetches what is missing
    whole["whole"] = True
    watch.look(SECOND)
    assert watch.faults == {}


def test_another_champion_is_loaded_beside_the_present_one(whole):
    registry = Registry()
    watch = watch_of(registry)
    registry.answer = champion(2)
    watch.look(0)
    assert (watch.next, watch.serving.version.version) == ("model 2", 2)
    watch.next = None  # taken by the engine
    watch.look(SECOND)
    assert watch.next is None


def test_one_that_cannot_be_followed_is_no_champion_and_is_tried_again_after_a_minute(whole):
    registry, tried = Registry(), []

    def load(found):
        tried.append(found.version.version)
        raise InputError("another feature set; start live mode again")

    watch = watch_of(registry, load)
    registry.answer = champion(2)
    for seconds, loads in ((0, 1), (1, 1), (59, 1), (60, 2)):
        watch.look(seconds * SECOND)
        assert "another feature set" in watch.faults[Fault.NO_CHAMPION]
        assert len(tried) == loads
    registry.answer = champion(3)  # another one at once
    watch.look(61 * SECOND)
    assert tried == [2, 2, 3]
    assert watch.serving.version.version == 1


def test_a_registry_that_lets_a_look_wait_is_down(whole):
    watch = watch_of(None, outage=2)
    found = {}

    def hangs():
        found.update({after: watch.faults_at(after) for after in (0, 2 * SECOND, 3 * SECOND)})
        return champion(1)

    watch.resolve = hangs
    watch.look(0)
    assert [Fault.STORE_DOWN in one for one in found.values()] == [False, False, True]
    assert watch.faults_at(9 * SECOND) == {}


def test_a_file_that_cannot_be_read_is_a_fault_and_not_the_end(whole):
    registry = Registry()
    watch = watch_of(registry)
    registry.answer = OSError(28, "No space left on device")
    watch.look(0)
    assert watch.faults == {Fault.NO_CHAMPION: "its files cannot be read: No space left on device"}
