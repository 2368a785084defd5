"""The champion through MLflow's own commands: predict and serve forecast what margincast does."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from mlflow.exceptions import MlflowException
from mlflow.models.cli import commands

from margincast.core.errors import BundleError
from margincast.models.catalogue import LOADERS
from margincast.models.protocol import Panel
from margincast.serving.bundle import Bundle, read_bundle
from margincast.serving.champion import resolve_champion
from margincast.serving.mlflow_model import save_pyfunc
from margincast.serving.registry import Registry

URI = "sqlite:///mlruns/mlflow.db"


@pytest.fixture(scope="module")
def champion(workspace, trained) -> Path:
    return resolve_champion(Registry(URI, workspace), "demo").bundle_directory


@pytest.fixture(scope="module")
def bundle(champion) -> Bundle:
    return read_bundle(champion, LOADERS)


@pytest.fixture(scope="module")
def model(champion, tmp_path_factory) -> Path:
    return save_pyfunc(champion, tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(scope="module")
def rows(bundle) -> pd.DataFrame:
    """Three decisions with made-up features of the right size; a feature is not known."""
    columns = bundle.manifest.metadata.feature_columns
    features = np.random.default_rng(3).uniform(0.001, 0.02, (3, len(columns)))
    features[1, -1] = np.nan
    frame = pd.DataFrame(features, columns=list(columns))
    frame.insert(0, "symbol", ["SIM-ETH", "SIM-BTC", "SIM-BTC"])
    frame.insert(1, "ts", ["2026-01-11T00:00:00Z", "2026-01-11T00:00:00Z", "2026-01-11T00:01:00Z"])
    return frame


@pytest.fixture(scope="module")
def direct(bundle, rows) -> list[float]:
    """What the bundle itself says, in the order of the answer: row, horizon, side, level."""
    frame = rows.assign(ts=pd.to_datetime(rows["ts"]).astype("datetime64[us, UTC]"))
    metadata = bundle.manifest.metadata
    units = dict.fromkeys(metadata.feature_columns, "number")
    panel = Panel.of_decisions(frame, units, metadata.sides)
    found = bundle.forecaster.predict(dict.fromkeys(metadata.horizons_minutes, panel))
    stacked = np.stack([found[each].quantiles for each in metadata.horizons_minutes], axis=1)
    place = {(row.symbol, row.ts): i for i, row in enumerate(panel.frame.itertuples())}
    order = [place[row.symbol, row.ts] for row in frame.itertuples()]
    assert np.isfinite(stacked).any()
    return stacked[order].ravel().tolist()


def request(rows: pd.DataFrame, **params: str) -> str:
    # not to_json, which rounds
    values = rows.astype(object).where(rows.notna(), None)
    split = {"columns": list(rows), "data": values.to_numpy().tolist()}
    return json.dumps({"dataframe_split": split} | ({"params": params} if params else {}))


def forecasts_in(answer: str) -> list[float]:
    frame = pd.DataFrame(json.loads(answer)["predictions"])
    assert np.isfinite(frame["expected_shortfall"].to_numpy(float)).any()
    return frame["forecast"].to_numpy(float).tolist()


def test_mlflow_models_predict_forecasts_what_the_bundle_does(model, rows, direct, tmp_path):
    asked, answered = tmp_path / "rows.json", tmp_path / "forecasts.json"
    asked.write_text(request(rows))
    arguments = ["-m", model, "-i", asked, "-o", answered, "-t", "json", "--env-manager", "local"]
    ending = CliRunner().invoke(commands, ["predict", *map(str, arguments)])
    assert ending.exit_code == 0, ending.output
    np.testing.assert_array_equal(forecasts_in(answered.read_text()), direct)


@pytest.mark.slow
def test_mlflow_models_serve_forecasts_what_the_bundle_does(model, rows, direct, bundle):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = bundle.manifest.metadata.feature_set_hash
    server = subprocess.Popen(  # noqa: S603  # MLflow's own command, on our model
        [
            sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model),
            "-p", str(port), "--env-manager", "local",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        start_new_session=True,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/ping", server)
        status, answer = post(f"{address}/invocations", request(rows, feature_set_hash=own))
        assert status == 200, answer
        np.testing.assert_array_equal(forecasts_in(answer), direct)
        status, answer = post(f"{address}/invocations", request(rows, feature_set_hash="0" * 64))
        assert status == 400
        assert f"this model (job demo) was trained on feature set {own}" in answer
        status, answer = post(f"{address}/invocations", request(rows.drop(columns="symbol")))
        assert status == 400
        assert "symbol" in answer
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)


def wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 90
    while True:
        assert server.poll() is None, "the server ended by itself"
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310  # our own server
                return
        except OSError:
            assert time.monotonic() < until, f"nobody answers at {address}"
            time.sleep(0.1)


def post(address: str, body: str) -> tuple[int, str]:
    asked = urllib.request.Request(  # noqa: S310  # our own server
        address, body.encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310  # our own server
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


# PySpark 4.3 says that it does not fully support pandas 3; what is asked of it here, it does
@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
def test_a_spark_udf_forecasts_what_the_bundle_does(model, rows, direct, bundle):
    sql = pytest.importorskip("pyspark.sql", reason="PySpark is not installed")
    if shutil.which("java") is None:
        pytest.skip("PySpark needs Java, which is not installed")
    metadata = bundle.manifest.metadata
    columns = [
        f"forecast_{minutes}m_{side}_{level:g}"
        for minutes in metadata.horizons_minutes
        for side in metadata.sides
        for level in metadata.levels
    ]
    settings = {"spark.master": "local[1]", "spark.ui.enabled": "false"}
    spark = sql.SparkSession.builder.config(map=settings).getOrCreate()
    try:
        forecast = mlflow.pyfunc.spark_udf(
            spark,
            str(model),
            result_type=", ".join(f"`{column}` double" for column in columns),
            env_manager="local",
            params={"feature_set_hash": metadata.feature_set_hash, "layout": "wide"},
        )
        table = spark.createDataFrame(rows.to_dict("records"))
        asked = table.select(
            forecast(sql.functions.struct(*(f"`{name}`" for name in rows))).alias("answer")
        )
        found = [[row.answer[column] for column in columns] for row in asked.collect()]
    finally:
        spark.stop()
    np.testing.assert_array_equal(np.ravel(found), direct)


def test_the_wide_layout_holds_the_same_forecasts_a_row_a_decision(model, rows, direct, bundle):
    loaded = mlflow.pyfunc.load_model(str(model))
    wide = loaded.predict(rows, params={"layout": "wide"})
    assert wide["symbol"].tolist() == rows["symbol"].tolist()
    assert "expected_shortfall_30m_short_0.99" in wide
    names = [name for name in wide if name.startswith("forecast_")]
    assert names[:3] == [
        "forecast_10m_long_0.9",
        "forecast_10m_long_0.95",
        "forecast_10m_long_0.99",
    ]
    np.testing.assert_array_equal(wide[names].to_numpy().ravel(), direct)
    with pytest.raises(MlflowException, match="layouts are 'long' and 'wide'"):
        loaded.predict(rows, params={"layout": "tall"})


def test_features_of_another_set_are_refused_by_name_and_by_hash(model, rows, bundle):
    loaded = mlflow.pyfunc.load_model(str(model))
    own = bundle.manifest.metadata.feature_set_hash
    assert str(loaded.metadata.signature.params).count(own) == 1
    with pytest.raises(MlflowException, match="built with feature set aaa, this model"):
        loaded.predict(rows, params={"feature_set_hash": "aaa"})
    column = bundle.manifest.metadata.feature_columns[0]
    with pytest.raises(MlflowException, match=column):
        loaded.predict(rows.rename(columns={column: "other"}))
    with pytest.raises(MlflowException, match=column):
        loaded.predict(rows.assign(**{column: "text"}))
    with pytest.raises(MlflowException, match="ISO 8601"):
        loaded.predict(rows.assign(ts="yesterday"))


def test_every_feature_is_a_required_float64(model, bundle):
    inputs = mlflow.pyfunc.load_model(str(model)).metadata.signature.inputs
    assert [spec.name for spec in inputs] == [
        "symbol", "ts", *bundle.manifest.metadata.feature_columns,
    ]  # fmt: skip
    assert {spec.type.name for spec in inputs.inputs[2:]} == {"double"}
    assert all(spec.required for spec in inputs)


@pytest.mark.parametrize("change", ["float", "order", "hash", "no signature"])
def test_a_signature_that_is_not_the_bundles_own_is_refused_at_load(model, tmp_path, change):
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    path = copy / "MLmodel"
    written = yaml.safe_load(path.read_text())
    signature = written["signature"]
    if change == "float":
        signature["inputs"] = signature["inputs"].replace("double", "float")
    elif change == "order":
        columns = json.loads(signature["inputs"])
        columns[-1]["name"], columns[-2]["name"] = columns[-2]["name"], columns[-1]["name"]
        signature["inputs"] = json.dumps(columns)
    elif change == "hash":
        params = json.loads(signature["params"])
        params[0]["default"] = "0" * 64
        signature["params"] = json.dumps(params)
    else:
        del written["signature"]
    path.write_text(yaml.safe_dump(written))
    with pytest.raises(BundleError, match="does not carry the signature of its bundle"):
        mlflow.pyfunc.load_model(str(copy))
