"""A version is registered with its bundle, its gate's verdict, and a line of the ledger."""

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from margincast.core.errors import BundleError, InputError, LedgerError
from margincast.serving.registry import BUNDLE_TAG, GATE_TAG


def test_a_registered_version_says_where_it_comes_from(register, registry, name, passed, failed):
    first = register(1.0)
    second = register(2.0, failed)
    assert (first.version, second.version) == (1, 2)
    assert (first.gate_passed, second.gate_passed) == (True, False)
    assert first.bundle_digest != second.bundle_digest
    assert first.gate_digest == passed.digest()
    assert registry.version(name, 2) == second


def test_a_changed_bundle_is_not_registered(registry, tracker, make_bundle, name, passed):
    directory = make_bundle(1.0)
    (directory / "specs" / "training.json").write_text("{}")
    with tracker.run("changed") as run, pytest.raises(BundleError):
        registry.register(name, directory, run.run_id, passed, who="job")
    with pytest.raises(InputError):
        registry.version(name, 1)
    assert registry.ledger.read() == ()


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


def test_mlflow_refuses_a_changed_bundle_too(register, tracker, name, store):
    version = register(1.0)
    (stored,) = (store / "mlruns" / "artifacts" / version.run_id).rglob("480m/factors.json")
    stored.write_text("[[9, 9], [9, 9]]")
    with pytest.raises(BundleError, match=r"model/480m/factors\.json was changed"):
        mlflow.pyfunc.load_model(tracker.client.get_model_version(name, "1").source)


def test_the_signature_is_float64_throughout(register, tracker, name):
    register(1.0)
    source = tracker.client.get_model_version(name, "1").source
    inputs = mlflow.pyfunc.load_model(source).metadata.signature.inputs
    assert {spec.name: spec.type.name for spec in inputs} == {
        "symbol": "string",
        "ts": "string",
        "volatility_1d": "double",
        "imbalance": "double",
    }
    assert all(spec.required for spec in inputs)


def test_every_registration_is_a_line_of_the_ledger(register, registry, name, passed, failed):
    first, second = register(1.0), register(2.0, failed)
    lines = registry.ledger.read()
    assert [line.kind for line in lines] == ["registration", "registration"]
    assert [line.what for line in lines] == [
        f"registered {name} version 1: gate passed",
        f"registered {name} version 2: gate failed",
    ]
    assert lines[1].why == "quantile crossings 1 is not at most 0"
    assert [line.evidence_digest for line in lines] == [passed.digest(), failed.digest()]
    assert lines[0].details == {
        "model": name,
        "version": 1,
        "gate_passed": True,
        "bundle_digest": first.bundle_digest,
        "run_id": first.run_id,
    }
    assert lines[1].details["bundle_digest"] == second.bundle_digest


def test_nothing_is_registered_on_a_broken_ledger(register, registry, name):
    registry.ledger.path.parent.mkdir(parents=True)
    registry.ledger.path.write_text("edited\n")
    with pytest.raises(LedgerError, match="line 1"):
        register(1.0)
    with pytest.raises(InputError):
        registry.version(name, 1)
