"""A training job whose tracking fails half-way ends as if it had not, and is made good."""

import shutil

import pytest
from mlflow import MlflowClient

from margincast.jobs import train
from margincast.jobs.run_pages import TRAINED_TAG, VERSION_TAG
from margincast.serving.ledger import LEDGER, Ledger
from margincast.serving.registry import Registry

pytestmark = pytest.mark.slow

URI = "sqlite:///mlruns/mlflow.db"


@pytest.fixture
def fresh(command, migrated_store, tmp_path):
    folder = tmp_path / "workspace"
    assert command("init", folder).code == 0
    migrated_store(folder)
    return folder


@pytest.fixture
def broken(fresh, command, small, trained, monkeypatch):
    """A workspace where artifacts cannot be written from the middle of its first training on."""
    workspace, tmp_path = fresh, fresh.parent
    out = tmp_path / "out"
    shutil.copytree(trained.out / ".folds", out / ".folds")
    artifacts = workspace / "mlruns" / "artifacts"
    whole = train.run_backtest

    def and_then_break(*arguments, **named):
        result = whole(*arguments, **named)
        artifacts.rename(tmp_path / "away")
        artifacts.write_text("a file where the folder should be")
        return result

    monkeypatch.setattr(train, "run_backtest", and_then_break)
    ending = command("train", workspace / "training" / "demo.toml", "--out", out, *small)

    def mend():
        artifacts.unlink()
        (tmp_path / "away").rename(artifacts)

    return workspace, ending, mend


def test_a_model_trained_during_an_outage_is_registered_by_sync(
    broken, command, trained, workspace, tmp_path
):
    of_outage, ending, mend = broken
    registry = Registry(URI, of_outage)
    assert ending.code == trained.ending.code == 0, ending.errors
    assert "not registered yet" in ending.output
    assert "margincast sync" in ending.errors
    assert registry.at_alias("demo", "champion") is None

    still = command("sync", "--workspace", of_outage)
    assert still.code == 2
    assert "cannot be used" in still.errors
    mend()
    done = command("sync", "--workspace", of_outage)
    assert done.code == 0, done.errors
    assert "registered demo version 1 as champion" in done.output

    whole = Registry(URI, workspace)
    version, twin = registry.version("demo", 1), whole.version("demo", 1)
    assert version.bundle_digest == twin.bundle_digest
    assert version.gate_digest == twin.gate_digest
    assert registry.at_alias("demo", "champion") == version
    entries, expected = Ledger(of_outage / LEDGER).read(), Ledger(workspace / LEDGER).read()
    assert [entry.what for entry in entries] == [entry.what for entry in expected[: len(entries)]]
    assert len(entries) >= 1
    model = f"model-{version.bundle_digest[:12]}"
    assert shown(of_outage, model) == shown(workspace, model)
    again = command("sync", "--workspace", of_outage)
    assert (again.code, "0 operations" in again.output) == (0, True)


def shown(workspace, model):
    """What MLflow shows of the first job and its models: states, metrics' names, files, links.

    Of model folders ``model`` counts alone: other tests register more in the shared workspace.
    """
    address = f"sqlite:///{workspace / 'mlruns' / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=address, registry_uri=address)
    experiment = client.get_experiment_by_name("demo").experiment_id
    jobs = "tags.`margincast.kind` = 'training job'"
    job = client.search_runs([experiment], jobs, order_by=["start_time"])[0]
    models = client.search_runs([experiment], f"tags.`margincast.job_run` = '{job.info.run_id}'")
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{job.info.run_id}'")
    assert models
    assert children
    # names of jobs and models end in the time of their training
    trained = job.data.tags[TRAINED_TAG]
    return {
        run.info.run_name.replace(trained, ""): {
            "status": run.info.status,
            "metrics": sorted(run.data.metrics),
            "parameters": sorted(run.data.params),
            "files": sorted(
                item.path
                for item in client.list_artifacts(run.info.run_id)
                if item.path == model or not item.path.startswith("model-")
            ),
            "gate": run.data.tags.get("margincast.gate"),
            "version": run.data.tags.get(VERSION_TAG),
        }
        for run in (job, *models, *children)
    }
