"""Only a version on which ledger and MLflow agree sets margins, and an outage does not stop it."""

import shutil
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest

from margincast.core.errors import BundleError, CheckFailedError, InputError, LedgerError
from margincast.serving.champion import resolve_champion
from margincast.serving.manifest import bundle_digest, verify_bundle
from margincast.serving.promotion import promote, rollback
from margincast.serving.registry import BUNDLE_TAG, GATE_DIGEST_TAG, GATE_TAG, Registry
from margincast.serving.standing import Override
from margincast.training.tracking import StoreUnreachableError


def test_an_alias_moved_by_hand_is_not_served_until_somebody_promotes(register, registry, name):
    register(1.0)
    register(2.0)
    registry.point(name, "champion", 1)
    with pytest.raises(CheckFailedError, match="MLflow says version 1, no line of the ledger"):
        resolve_champion(registry, name)
    promote(registry, name, "champion", 1, who="desk", why="passed")
    assert resolve_champion(registry, name).version.version == 1
    registry.point(name, "champion", 2)
    with pytest.raises(CheckFailedError, match=r"line 3 .* says version 1, MLflow says version 2"):
        resolve_champion(registry, name)
    registry.clear(name, "champion")
    with pytest.raises(CheckFailedError, match="version 1, MLflow says nobody"):
        resolve_champion(registry, name)
    promote(registry, name, "champion", 1, who="desk", why="put in order")
    assert resolve_champion(registry, name).version.version == 1


@pytest.mark.parametrize(
    ("tag", "value"), [(GATE_TAG, "yes"), (GATE_DIGEST_TAG, "0" * 64), (BUNDLE_TAG, "0" * 64)]
)
def test_a_record_edited_in_mlflow_is_noticed_by_the_ledger(
    register, registry, tracker, name, *, failed, tag, value
):
    register(1.0, failed)
    tracker.client.set_model_version_tag(name, "1", tag, value)
    with pytest.raises(CheckFailedError, match=r"not what line 1 of the ledger says"):
        promote(registry, name, "champion", 1, who="desk", why="looks passed")


def test_a_record_edited_after_the_promotion_is_not_served(register, registry, tracker, name):
    register(1.0)
    promote(registry, name, "champion", 1, who="desk", why="passed")
    tracker.client.set_model_version_tag(name, "1", BUNDLE_TAG, "0" * 64)
    with pytest.raises(CheckFailedError, match="was changed since"):
        resolve_champion(registry, name)


def test_a_tampered_ledger_serves_nobody(register, registry, name):
    register(1.0)
    promote(registry, name, "champion", 1, who="desk", why="passed")
    path = registry.ledger.path
    path.write_bytes(path.read_bytes().replace(b'"who":"desk"', b'"who":"dusk"'))
    with pytest.raises(LedgerError, match="line 2: it was changed"):
        resolve_champion(registry, name)


def test_an_overridden_champion_is_served_until_its_override_ends(
    register, registry, name, failed, outage
):
    register(1.0, failed)
    now = datetime.now(UTC)
    leave = Override("head of risk", now + timedelta(days=7))
    promote(registry, name, "champion", 1, who="desk", why="venue moves", override=leave, now=now)
    champion = resolve_champion(registry, name, now=leave.expires - timedelta(seconds=1))
    assert champion.override == leave
    for circumstances in (nullcontext(), outage):
        with (
            circumstances,
            pytest.raises(CheckFailedError, match=r"head of risk allowed it until .* over"),
        ):
            resolve_champion(registry, name, now=leave.expires)


def test_a_clock_set_back_revives_no_override(register, registry, name, failed):
    register(1.0, failed)
    now = datetime.now(UTC)
    leave = Override("head of risk", now + timedelta(days=1))
    promote(registry, name, "champion", 1, who="desk", why="venue moves", override=leave, now=now)
    # somebody acts after it ended, then the clock jumps back
    registry.ledger.append(
        kind="refusal", who="desk", what="refused", why="later", evidence_digest="0" * 64,
        details={}, when=leave.expires,
    )  # fmt: skip
    with pytest.raises(CheckFailedError, match="is over"):
        resolve_champion(registry, name, now=now)


def test_in_an_outage_a_champion_that_was_rolled_back_is_not_served(
    register, registry, name, outage
):
    for version in (1, 2):
        register(float(version))
        promote(registry, name, "champion", version, who="desk", why="passed")
    assert resolve_champion(registry, name).version.version == 2
    rollback(registry, name, who="desk", why="jumps")
    # this disk has not seen the rollback: it still holds version 2
    with outage, pytest.raises(CheckFailedError, match=r"version 2 .* was rolled back"):
        resolve_champion(registry, name)
    assert resolve_champion(registry, name).version.version == 1


def test_the_champion_comes_with_its_own_verified_bundle(register, registry, name, tmp_path):
    register(1.0)
    register(2.0)
    for version, factor in ((1, 1.0), (2, 2.0)):
        promote(registry, name, "champion", version, who="desk", why="passed")
        champion = resolve_champion(registry, name)
        assert champion.version.version == version
        assert not champion.from_last_good
        assert bundle_digest(champion.bundle_directory) == bundle_digest(
            tmp_path / f"bundle-{factor}-True"
        )


def test_during_an_outage_the_last_champion_keeps_serving(register, registry, name, outage):
    register(1.0)
    promote(registry, name, "champion", 1, who="desk", why="passed")
    before = resolve_champion(registry, name)
    with outage:
        kept = resolve_champion(registry, name)
        assert kept.from_last_good
        assert "no MLflow store" in kept.reason
        assert kept.version == before.version
        assert bundle_digest(kept.bundle_directory) == before.version.bundle_digest
        with pytest.raises(StoreUnreachableError, match="No earlier champion"):
            resolve_champion(registry, "never-seen")
    assert not resolve_champion(registry, name).from_last_good


def test_a_changed_last_good_bundle_is_refused_in_an_outage_and_mended_after(
    register, registry, name, outage
):
    register(1.0)
    promote(registry, name, "champion", 1, who="desk", why="passed")
    directory = resolve_champion(registry, name).bundle_directory
    (directory / "model" / "480m" / "factors.json").write_text("[[9, 9], [9, 9]]")
    with outage, pytest.raises(BundleError, match=r"model/480m/factors\.json was changed"):
        resolve_champion(registry, name)
    assert bundle_digest(resolve_champion(registry, name).bundle_directory) == (
        registry.version(name, 1).bundle_digest
    )


def test_a_champion_whose_artifact_was_changed_is_refused(register, registry, name, store):
    version = register(1.0)
    promote(registry, name, "champion", 1, who="desk", why="passed")
    (stored,) = (store / "mlruns" / "artifacts" / version.run_id).rglob("480m/factors.json")
    stored.write_text("[[9, 9], [9, 9]]")
    with pytest.raises(BundleError, match=r"model/480m/factors\.json was changed"):
        resolve_champion(registry, name)


def test_artifacts_that_are_gone_count_as_an_outage(register, registry, name, store):
    register(1.0)
    promote(registry, name, "champion", 1, who="desk", why="passed")
    resolve_champion(registry, name)
    second = register(2.0)
    promote(registry, name, "champion", 2, who="desk", why="passed")
    shutil.rmtree(store / "mlruns" / "artifacts" / second.run_id)
    kept = resolve_champion(registry, name)
    assert kept.from_last_good
    assert kept.version.version == 1


def test_in_a_workspace_that_was_moved_its_own_artifacts_are_found(register, registry, name, store):
    """MLflow's store still names the folder of before."""
    version = register(1.0)
    promote(registry, name, "champion", 1, who="desk", why="passed")
    here = registry.workspace / "mlruns" / "artifacts"
    here.mkdir(parents=True, exist_ok=True)
    shutil.move(store / "mlruns" / "artifacts" / version.run_id, here)
    found = resolve_champion(registry, name)
    assert not found.from_last_good
    verify_bundle(found.bundle_directory, version.bundle_digest)
    # what was changed there is no more used than elsewhere
    shutil.rmtree(registry.workspace / "mlruns" / "last_good")
    (stored,) = (here / version.run_id).rglob("480m/factors.json")
    stored.write_text("[[9, 9], [9, 9]]")
    with pytest.raises(BundleError, match=r"model/480m/factors\.json was changed"):
        resolve_champion(registry, name)


def test_only_the_champion_and_its_predecessor_stay_on_disk(register, registry, name, store):
    digests = []
    for version in (1, 2, 3):
        digests.append(register(float(version)).bundle_digest[:16])
        promote(registry, name, "champion", version, who="desk", why="passed")
        resolve_champion(registry, name)
        resolve_champion(registry, name)
    folder = registry.workspace / "mlruns" / "last_good" / name
    assert {path.name for path in folder.iterdir()} == {*digests[1:], "current.json"}


def test_no_champion_says_what_to_do(register, registry, name):
    register(1.0)
    for model in (name, "never-registered"):
        with pytest.raises(InputError, match=r"no version of .* is champion"):
            resolve_champion(registry, model)


@pytest.mark.parametrize("bad", ["", "../up", "a/b", ".hidden", "a b"])
def test_a_name_that_is_no_folder_name_is_refused(registry, bad):
    with pytest.raises(InputError, match="use letters"):
        resolve_champion(registry, bad)


def test_a_workspace_without_store_is_told_to_train(tmp_path):
    with pytest.raises(StoreUnreachableError, match="train a model first"):
        resolve_champion(Registry("sqlite:///mlruns/mlflow.db", tmp_path), "demo")
    assert list(tmp_path.iterdir()) == []
