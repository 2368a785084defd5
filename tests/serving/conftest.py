"""A tiny model, an MLflow store made once, and a registry of each test's own on it."""

import importlib
import inspect
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from tests.serving.gate_cases import GATE, GOOD

import margincast.models
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Panel, TailForecast
from margincast.serving.bundle import write_bundle
from margincast.serving.gate import evaluate_gate
from margincast.serving.manifest import BundleMetadata, bundle_digest
from margincast.serving.mlflow_model import save_pyfunc
from margincast.serving.registry import Registry
from margincast.training.tracking import Tracker

URI = "sqlite:///mlruns/mlflow.db"
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
import re
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from margincast.models.protocol import Panel, TailForecast


"""


@pytest.fixture(scope="session")
def model_class(tmp_path_factory):
    """Install the forecaster above as a module of ``margincast.models``, as a release would."""
    folder = tmp_path_factory.mktemp("models")
    source = MODULE_HEAD + inspect.getsource(VolatilityMultiple)
    (folder / "volatility_multiple_of_a_test.py").write_text(source)
    margincast.models.__path__.append(str(folder))
    module = importlib.import_module("margincast.models.volatility_multiple_of_a_test")
    yield module.VolatilityMultiple
    margincast.models.__path__.remove(str(folder))


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """The workspace whose MLflow store all tests share: making one takes seconds."""
    return tmp_path_factory.mktemp("a workspace")


@pytest.fixture(scope="session")
def tracker(store):
    return Tracker(URI, "tests", store)


@pytest.fixture(scope="session", autouse=True)
def saved_once(tmp_path_factory):
    """The same bundle is turned into an MLflow model once, not in every test."""
    folder, models = tmp_path_factory.mktemp("models of MLflow"), {}

    def save(bundle, _folder):
        digest = bundle_digest(bundle)
        if digest not in models:
            (folder / digest).mkdir()
            models[digest] = save_pyfunc(bundle, folder / digest)
        return models[digest]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("margincast.serving.registry.save_pyfunc", save)
        yield


@pytest.fixture
def registry(tracker, tmp_path):
    """The shared store, with a ledger and a last good champion of the test's own."""
    return Registry(tracker.uri, tmp_path / "workspace")


@pytest.fixture
def ledger(registry):
    return registry.ledger


@pytest.fixture
def name(request):
    """A registered model of each test's own."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", request.node.name)


@pytest.fixture
def make_bundle(tmp_path, model_class):
    def make(factor, verdict=PASSED):
        directory = tmp_path / f"bundle-{factor}-{verdict.passed}"
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
            specs={
                "training": {"name": "tiny", "gate": GATE.model_dump(mode="json")},
                "gate": verdict.to_json(),
            },
        )
        return directory

    return make


@pytest.fixture
def register(registry, tracker, make_bundle, name):
    def register_factor(factor, verdict=PASSED):
        with tracker.run(f"train-{factor}") as run:
            bundle = make_bundle(factor, verdict)
            return registry.register(name, bundle, run.run_id, verdict, who="job")

    return register_factor


@pytest.fixture
def passed():
    return PASSED


@pytest.fixture
def failed():
    return FAILED


@pytest.fixture
def outage(store):
    """The store's file is gone while the test runs its ``with`` block."""

    class Outage:
        path = store / "mlruns" / "mlflow.db"
        away = store / "mlflow.db.away"

        def __enter__(self):
            self.path.rename(self.away)

        def __exit__(self, *_):
            self.away.rename(self.path)

    return Outage()
