"""Only a version with a passed gate sets margins, and an MLflow outage does not stop it."""

import importlib
import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

import margincast.models
from margincast.core.errors import BundleError, CheckFailedError, InputError, LedgerError
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Panel, TailForecast
from margincast.serving.bundle import write_bundle
from margincast.serving.gate import Evidence, evaluate_gate
from margincast.serving.ledger import Ledger
from margincast.serving.manifest import BundleMetadata, bundle_digest
from margincast.serving.registry import BUNDLE_TAG, GATE_TAG, Registry
from margincast.specs.training import Gate
from margincast.training.tracking import StoreUnreachableError, Tracker

URI = "sqlite:///mlruns/mlflow.db"
GATE = Gate(
    reference="ewma_fhs",
    pinball_ratio_max=0.94,
    exceedance_ratio_min=0.8,
    exceedance_ratio_max=1.25,
    gated_levels=(0.99,),
    crossings_max=0,
    minimum_expected_exceedances=10.0,
)
GOOD = Evidence({"ewma_fhs": 0.9}, {0.99: 1.05}, {0.99: 60.0}, crossings=0)
PASSED = evaluate_gate(GATE, GOOD)
FAILED = evaluate_gate(GATE, replace(GOOD, crossings=1))
METADATA = BundleMetadata(
    job="tiny",
    horizons_minutes=(60, 480),
    sides=("long", "short"),
    levels=(0.99, 0.995),
    feature_columns=("volatility_1d", "imbalance"),
    spec_digest="1" * 64,
    feature_set_hash="2" * 64,
    training_data_digest="3" * 64,
    trained_until="2024-06-01T00:00:00",
)


class VolatilityMultiple:
    """Forecast = factor of side and level x volatility, half as much again on Sundays."""

    name = "volatility_multiple"

    def __init__(self, factors: list[list[float]]) -> None:
        self.factors = factors

    def fit(self, panel: Panel) -> Self:
        volatility = panel.frame["volatility_1d"].to_numpy()
        self.factors = [
            np.quantile(outcome / volatility, [0.99, 0.995]).tolist()
            for outcome in panel.outcomes.values()
        ]
        return self

    def predict(self, panel: Panel) -> TailForecast:
        frame = panel.frame
        sunday = 1.0 + 0.5 * (frame["ts"].dt.day_of_week.to_numpy() == 6)
        scale = frame["volatility_1d"].to_numpy() * sunday
        return TailForecast(
            sides=("long", "short"),
            levels=(0.99, 0.995),
            quantiles=scale[:, None, None] * np.array(self.factors)[None],
        )

    def parameters(self) -> dict[str, Any]:
        return {"factors": self.factors}

    def save(self, directory: Path) -> None:
        (directory / "factors.json").write_text(json.dumps(self.factors), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        return cls(json.loads((directory / "factors.json").read_text(encoding="utf-8")))


MODULE_HEAD = """import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from margincast.models.protocol import Panel, TailForecast


"""


@pytest.fixture(scope="module")
def model_class(tmp_path_factory):
    """Install the forecaster above as a module of ``margincast.models``, as a release would."""
    folder = tmp_path_factory.mktemp("models")
    source = MODULE_HEAD + inspect.getsource(VolatilityMultiple)
    (folder / "volatility_multiple_of_a_test.py").write_text(source)
    margincast.models.__path__.append(str(folder))
    module = importlib.import_module("margincast.models.volatility_multiple_of_a_test")
    yield module.VolatilityMultiple
    margincast.models.__path__.remove(str(folder))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("a workspace")


@pytest.fixture(scope="module")
def tracker(workspace):
    return Tracker(URI, "tests", workspace)


@pytest.fixture
def registry(tracker, workspace):
    return Registry(URI, workspace)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.jsonl")


@pytest.fixture
def name(request):
    """A registered model of each test's own."""
    return request.node.originalname


@pytest.fixture
def make_bundle(tmp_path, model_class):
    def make(factor):
        directory = tmp_path / f"bundle-{factor}"
        write_bundle(
            HorizonForecaster(
                "volatility_multiple",
                {
                    # above the longer horizon for a short at 0.99
                    60: model_class([[0.5 * factor, factor], [3.5 * factor, 3.75 * factor]]),
                    480: model_class([[factor, 2 * factor], [3 * factor, 4 * factor]]),
                },
                monotone=True,
            ),
            directory,
            loaders={"volatility_multiple": model_class},
            metadata=METADATA,
            specs={"training": {"name": "tiny"}},
        )
        return directory

    return make


@pytest.fixture
def register(registry, tracker, make_bundle, name):
    def register_factor(factor, verdict=PASSED):
        with tracker.run(f"train-{factor}") as run:
            return registry.register(name, make_bundle(factor), run.run_id, verdict)

    return register_factor


@pytest.fixture
def outage(workspace):
    """The store's file is gone while the test runs its ``with`` block."""

    class Outage:
        path = workspace / "mlruns" / "mlflow.db"
        away = workspace / "mlflow.db.away"

        def __enter__(self):
            self.path.rename(self.away)

        def __exit__(self, *_):
            self.away.rename(self.path)

    return Outage()


def test_a_registered_version_says_where_it_comes_from(register, registry, name):
    first = register(1.0)
    second = register(2.0, FAILED)
    assert (first.version, second.version) == (1, 2)
    assert (first.gate_passed, second.gate_passed) == (True, False)
    assert first.bundle_digest != second.bundle_digest
    assert first.gate_digest == PASSED.digest()
    assert registry.version(name, 2) == second


def test_a_version_that_did_not_pass_may_be_challenger_but_not_champion(
    register, registry, ledger, name
):
    register(1.0, FAILED)
    with pytest.raises(CheckFailedError, match="did not pass its gate"):
        registry.promote(name, "champion", 1, ledger=ledger, who="desk", why="hurry")
    with pytest.raises(CheckFailedError, match="did not pass its gate"):
        registry.set_alias(name, "champion", 1)
    assert registry.at_alias(name, "champion") is None
    assert ledger.read() == ()
    registry.promote(name, "challenger", 1, ledger=ledger, who="desk", why="watch it")
    assert registry.at_alias(name, "challenger").version == 1


def test_a_champion_made_behind_the_registry_is_not_served(register, registry, tracker, name):
    register(1.0, FAILED)
    tracker.client.set_registered_model_alias(name, "champion", "1")
    with pytest.raises(CheckFailedError, match="without a passed gate"):
        registry.champion(name)


def test_the_ledger_tells_the_history_of_an_alias(register, registry, ledger, name):
    register(1.0)
    register(2.0)
    registry.promote(name, "champion", 1, ledger=ledger, who="job", why="first to pass")
    registry.promote(name, "champion", 2, ledger=ledger, who="desk", why="lower pinball")
    assert [entry.what for entry in ledger.read()] == [
        f"champion of {name}: version none -> 1",
        f"champion of {name}: version 1 -> 2",
    ]
    assert {entry.evidence_digest for entry in ledger.read()} == {PASSED.digest()}


def test_nothing_is_promoted_on_a_broken_ledger(register, registry, ledger, name):
    register(1.0)
    ledger.path.write_text("edited\n")
    with pytest.raises(LedgerError):
        registry.promote(name, "champion", 1, ledger=ledger, who="desk", why="passed")
    assert registry.at_alias(name, "champion") is None


def test_the_champion_comes_with_its_own_verified_bundle(
    register, registry, name, ledger, tmp_path
):
    register(1.0)
    register(2.0)
    for version, factor in ((1, 1.0), (2, 2.0)):
        registry.promote(name, "champion", version, ledger=ledger, who="desk", why="passed")
        champion = registry.champion(name)
        assert champion.version.version == version
        assert not champion.from_last_good
        assert bundle_digest(champion.bundle_directory) == bundle_digest(
            tmp_path / f"bundle-{factor}"
        )


def test_during_an_outage_the_last_champion_keeps_serving(register, registry, ledger, name, outage):
    register(1.0)
    registry.promote(name, "champion", 1, ledger=ledger, who="desk", why="passed")
    before = registry.champion(name)
    with outage:
        kept = registry.champion(name)
        assert kept.from_last_good
        assert "no MLflow store" in kept.reason
        assert kept.version == before.version
        assert bundle_digest(kept.bundle_directory) == before.version.bundle_digest
        with pytest.raises(StoreUnreachableError, match="No earlier champion"):
            registry.champion("never-seen")
    assert not registry.champion(name).from_last_good


def test_a_changed_last_good_bundle_is_refused_in_an_outage_and_mended_after(
    register, registry, ledger, name, outage
):
    register(1.0)
    registry.promote(name, "champion", 1, ledger=ledger, who="desk", why="passed")
    directory = registry.champion(name).bundle_directory
    (directory / "model" / "480m" / "factors.json").write_text("[[9, 9], [9, 9]]")
    with outage, pytest.raises(BundleError, match=r"model/480m/factors\.json was changed"):
        registry.champion(name)
    assert bundle_digest(registry.champion(name).bundle_directory) == (
        registry.version(name, 1).bundle_digest
    )


def test_a_champion_whose_artifact_was_changed_is_refused(
    register, registry, ledger, name, workspace
):
    version = register(1.0)
    registry.promote(name, "champion", 1, ledger=ledger, who="desk", why="passed")
    (stored,) = (workspace / "mlruns" / "artifacts" / version.run_id).rglob("480m/factors.json")
    stored.write_text("[[9, 9], [9, 9]]")
    with pytest.raises(BundleError, match=r"model/480m/factors\.json was changed"):
        registry.champion(name)


def test_artifacts_that_are_gone_count_as_an_outage(register, registry, ledger, name, workspace):
    register(1.0)
    registry.promote(name, "champion", 1, ledger=ledger, who="desk", why="passed")
    registry.champion(name)
    second = register(2.0)
    registry.promote(name, "champion", 2, ledger=ledger, who="desk", why="passed")
    shutil.rmtree(workspace / "mlruns" / "artifacts" / second.run_id)
    kept = registry.champion(name)
    assert kept.from_last_good
    assert kept.version.version == 1


def test_only_the_champion_and_its_predecessor_stay_on_disk(
    register, registry, ledger, name, workspace
):
    digests = []
    for version in (1, 2, 3):
        digests.append(register(float(version)).bundle_digest[:16])
        registry.promote(name, "champion", version, ledger=ledger, who="desk", why="passed")
        registry.champion(name)
        registry.champion(name)
    folder = workspace / "mlruns" / "last_good" / name
    assert {path.name for path in folder.iterdir()} == {*digests[1:], "current.json"}


def test_no_champion_says_what_to_do(register, registry, name):
    register(1.0)
    for model in (name, "never-registered"):
        with pytest.raises(InputError, match=r"no version of .* is champion"):
            registry.champion(model)


def test_a_changed_bundle_is_not_registered(registry, tracker, make_bundle, name):
    directory = make_bundle(1.0)
    (directory / "specs" / "training.json").write_text("{}")
    with tracker.run("changed") as run, pytest.raises(BundleError):
        registry.register(name, directory, run.run_id, PASSED)
    with pytest.raises(InputError):
        registry.version(name, 1)


@pytest.mark.parametrize("bad", ["", "../up", "a/b", ".hidden", "a b"])
def test_a_name_that_is_no_folder_name_is_refused(registry, bad):
    with pytest.raises(InputError, match="use letters"):
        registry.champion(bad)


def test_an_unknown_alias_is_refused(register, registry, name):
    register(1.0)
    with pytest.raises(InputError, match="champion, challenger, shadow"):
        registry.set_alias(name, "production", 1)


def test_a_workspace_without_store_is_told_to_train(tmp_path):
    with pytest.raises(StoreUnreachableError, match="train a model first"):
        Registry(URI, tmp_path).champion("demo")
    assert list(tmp_path.iterdir()) == []


def test_the_version_carries_its_gate_and_bundle_as_tags(register, tracker, name):
    version = register(1.0)
    tags = tracker.client.get_model_version(name, "1").tags
    assert tags[GATE_TAG] == "yes"
    assert tags[BUNDLE_TAG] == version.bundle_digest


def test_mlflow_forecasts_what_the_model_forecasts(register, tracker, name, model_class, tmp_path):
    register(0.5)
    source = tracker.client.get_model_version(name, "1").source
    model = mlflow.pyfunc.load_model(source)
    frame = pd.DataFrame(
        {
            "symbol": ["SIM-BTC", "SIM-ALT"],
            # a Saturday in UTC, and a local Saturday that is a Sunday in UTC
            "ts": ["2025-10-11T22:00:00+00:00", "2025-10-11T23:00:00-05:00"],
            "volatility_1d": [0.01, 0.04],
            "imbalance": [np.nan, 0.2],
        }
    )
    answer = model.predict(frame)
    assert answer["symbol"].tolist() == ["SIM-BTC"] * 8 + ["SIM-ALT"] * 8
    assert answer["horizon_minutes"].tolist() == ([60.0] * 4 + [480.0] * 4) * 2
    assert answer["side"].tolist() == ["long", "long", "short", "short"] * 4
    assert answer["level"].tolist() == [0.99, 0.995] * 8
    # by hand: volatility x factor (0.5, 1, 1.5, 2), the second row on a Sunday; at the horizon of
    # an hour x (0.25, 0.5, 1.75, 1.875), whose 1.75 changes places with 1.5
    by_hand = [
        *(0.0025, 0.005, 0.015, 0.01875, 0.005, 0.01, 0.0175, 0.02),
        *(0.015, 0.03, 0.09, 0.1125, 0.03, 0.06, 0.105, 0.12),
    ]
    assert answer["forecast"].tolist() == pytest.approx(by_hand)
    assert "expected_shortfall" not in answer
    with pytest.raises(MlflowException, match="imbalance"):
        model.predict(frame.drop(columns="imbalance"))


def test_mlflow_refuses_a_changed_bundle_too(register, tracker, name, workspace):
    version = register(1.0)
    (stored,) = (workspace / "mlruns" / "artifacts" / version.run_id).rglob("480m/factors.json")
    stored.write_text("[[9, 9], [9, 9]]")
    with pytest.raises(BundleError, match=r"model/480m/factors\.json was changed"):
        mlflow.pyfunc.load_model(tracker.client.get_model_version(name, "1").source)
