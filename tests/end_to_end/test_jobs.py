"""Train, backtest and score on a small simulated market, and what happens when things break."""

import importlib.metadata
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from mlflow import MlflowClient

from margincast.backtest.replay import replay
from margincast.core.time import parse_instant
from margincast.models.catalogue import LOADERS
from margincast.models.horizons import HorizonForecaster
from margincast.serving.bundle import read_bundle, write_bundle
from margincast.serving.champion import resolve_champion
from margincast.serving.ledger import LEDGER, Ledger
from margincast.serving.manifest import BundleMetadata, verify_bundle
from margincast.serving.promotion import promote
from margincast.serving.registry import Registry
from margincast.serving.verdict import GateVerdict
from margincast.training.execution.local import LocalExecution
from margincast.training.tracking import MAXIMUM_METRICS
from margincast.training.workload import build_workload, forecaster_for

MODELS = ("margincast", "static", "ewma_fhs")
SYMBOLS = ("SIM-BTC", "SIM-ETH")
SIDES = ("long", "short")
HORIZONS = (10, 30)
LEVELS = (0.9, 0.95, 0.99)
TEST_START, TEST_END = datetime(2026, 1, 6, tzinfo=UTC), datetime(2026, 1, 10, tzinfo=UTC)
DATA_END = datetime(2026, 1, 11, tzinfo=UTC)
URI = "sqlite:///mlruns/mlflow.db"


@pytest.fixture(scope="session")
def registry(workspace) -> Registry:
    return Registry(URI, workspace)


@pytest.fixture(scope="session")
def client(workspace, trained) -> MlflowClient:
    address = f"sqlite:///{workspace / 'mlruns' / 'mlflow.db'}"
    return MlflowClient(tracking_uri=address, registry_uri=address)


@pytest.fixture(scope="session")
def retrained(command, workspace, small, trained):
    """The same training once more, into the same folder."""
    before = fold_files(trained.out)
    spec = workspace / "training" / "demo.toml"
    return before, command("train", spec, "--out", trained.out, *small)


@pytest.fixture(scope="session")
def failed(command, workspace, small, trained, tmp_path_factory):
    """A training whose gate cannot pass, for a model name of its own."""
    out = tmp_path_factory.mktemp("failed") / "out"
    shutil.copytree(trained.out / ".folds", out / ".folds")
    return command(
        "train", workspace / "training" / "demo.toml", "--out", out, *small,
        "--set",
        "gate.coverage=[{level=0.9, exceedance_ratio_min=0.0, exceedance_ratio_max=0.0001, "
        "expected_exceedances_min=0.0}]",
        "--set", "tracking.registered_model=hopeless", "--set", "tracking.explained_decisions=0",
    )  # fmt: skip


@pytest.fixture
def score(command, workspace, market, trained, tmp_path):
    """Score with the demo policy; its schedule names a third contract that has no data."""

    def run(*options: object, data: Path = market, policy: str = "demo.toml", absent: bool = False):
        out = tmp_path / "out"
        ending = command(
            "score", workspace / "serving" / policy, "--data", data, "--out", out, *options
        )
        path = out / "margin_levels.parquet"
        if not path.exists():
            return ending, None
        levels = pd.read_parquet(path)
        of_data = levels["symbol"] != "SIM-ALT"
        return ending, levels.loc[of_data | absent].reset_index(drop=True)

    return run


def fold_files(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every stored fold: a fold fitted again is a new file."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in (out / ".folds").glob("*.npz")
    }


def cut_market(market: Path, folder: Path, ends: dict[str, datetime]) -> Path:
    """Copy a market without what was known only after a contract's end."""
    for table in ("bars", "book", "trades"):
        for symbol, end in ends.items():
            after = pl.col("ts") < end if table == "bars" else pl.col("ts") <= end
            target = folder / table / f"{symbol}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            whole = pl.read_parquet(market / table / f"{symbol}.parquet")
            whole.filter(after).write_parquet(target)
    return folder


# Training


def test_training_ends_well_and_says_what_it_registered(trained):
    assert trained.ending.code == 0, trained.ending.errors
    assert "gate passed" in trained.ending.output
    assert "registered demo version 1 as champion" in trained.ending.output


def test_every_model_is_a_run_with_the_same_metric_names(client, trained):
    experiment = client.get_experiment_by_name("demo").experiment_id
    job = client.search_runs(
        [experiment], "tags.`margincast.kind` = 'training job'", order_by=["start_time"]
    )[0]
    assert job.info.status == "FINISHED"
    assert job.data.tags["margincast.model_version"] == "demo/1"
    assert len(job.data.params["digest.data"]) == 64
    runs = {
        run.data.tags["margincast.model"]: run
        for run in client.search_runs(
            [experiment], f"tags.`margincast.job_run` = '{job.info.run_id}'"
        )
    }
    assert set(runs) == set(MODELS)
    names = {model: set(run.data.metrics) for model, run in runs.items()}
    assert names["margincast"] == names["static"] == names["ewma_fhs"]
    assert {"pinball_ratio", "pinball_ratio/10m", "exceedance_ratio/30m/0.99"} <= names[
        "margincast"
    ]
    assert all(run.data.metrics["crossings_between_horizons"] == 0 for run in runs.values())
    assert len(names["margincast"]) <= MAXIMUM_METRICS
    assert all(run.info.status == "FINISHED" for run in runs.values())
    files = {item.path for item in client.list_artifacts(job.info.run_id)}
    assert files == {
        "summary.json", "gate.json", "report.html", "report-10m.html", "report-30m.html",
        "report-10m", "report-30m", "specs", "tuning", "data", "environment", "importance",
        "folds.csv",
    }  # fmt: skip
    trials = client.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{job.info.run_id}' and metrics.loss > 0"
    )
    assert len(trials) == 1


def test_the_job_says_what_it_was_made_from_and_what_it_cost(client, trained, workspace):
    experiment = client.get_experiment_by_name("demo").experiment_id
    job = client.search_runs(
        [experiment], "tags.`margincast.kind` = 'training job'", order_by=["start_time"]
    )[0]
    params, metrics = job.data.params, job.data.metrics
    assert params["commit.workspace"] == "not a git checkout"
    assert params["environment.lightgbm"] == importlib.metadata.version("lightgbm")
    assert len(params["environment.lock_digest"]) == 64
    sets = {one.dataset.name: one.dataset for one in job.inputs.dataset_inputs}
    assert set(sets) == {"bars", "book", "trades", "decisions of demo"}
    assert json.loads(sets["bars"].profile)["contracts"] == len(SYMBOLS)
    manifest = read_artifact(client, job, "data/manifest.json")
    assert set(json.loads(manifest)["bars"]) == set(SYMBOLS)
    phases = {"data", "tuning", "backtest", "tracking", "final fit", "importance", "total"}
    assert {name for name in metrics if name.startswith("seconds/")} == {
        f"seconds/{phase}" for phase in phases
    }
    assert (
        sum(metrics[f"seconds/{phase}"] for phase in phases - {"total"})
        <= (metrics["seconds/total"])
    )
    assert metrics["memory/peak_mib"] > 100


def test_our_model_is_shown_refit_by_refit(client, trained):
    experiment = client.get_experiment_by_name("demo").experiment_id
    job = client.search_runs(
        [experiment], "tags.`margincast.kind` = 'training job'", order_by=["start_time"]
    )[0]
    refits = client.search_runs(
        [experiment],
        f"tags.`mlflow.parentRunId` = '{job.info.run_id}' and tags.`margincast.kind` = 'refit'",
    )
    assert {run.info.run_name for run in refits} == {
        "refit 2026-01-06 00:00",
        "refit 2026-01-08 00:00",
    }
    folds = pd.read_csv(io.StringIO(read_artifact(client, job, "folds.csv")))
    ours = client.search_runs(
        [experiment],
        f"tags.`margincast.job_run` = '{job.info.run_id}' and "
        "tags.`margincast.model` = 'margincast'",
    )[0]
    for minutes in HORIZONS:
        own = folds.loc[folds["horizon_minutes"] == minutes]
        # exceedances over all refits are those of the whole test period
        mean = np.average(own["exceedance_ratio_0.9"], weights=own["decisions"])
        name = f"exceedance_ratio/{minutes}m/0.9"
        assert mean == pytest.approx(ours.data.metrics[name], rel=1e-4)
        stated = sorted(run.data.metrics[name] for run in refits)
        assert stated == pytest.approx(sorted(own["exceedance_ratio_0.9"]), rel=1e-4)


def read_artifact(client, run, name):
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run.info.run_id, name, folder)).read_text()


def test_the_metrics_in_the_store_are_those_of_the_summary(client, trained):
    summary = json.loads((trained.out / "summary.json").read_text())
    stated = {
        (model["model"], record["horizon_minutes"]): model["pinball_ratio"]
        for record in summary["horizons"]
        for model in record["models"]
    }
    experiment = client.get_experiment_by_name("demo").experiment_id
    for model in MODELS:
        runs = client.search_runs([experiment], f"tags.`margincast.model` = '{model}'")
        for minutes in HORIZONS:
            logged = runs[-1].data.metrics[f"pinball_ratio/{minutes}m"]
            assert logged == float(f"{stated[model, minutes]:.5g}")


def test_the_champion_is_a_bundle_that_verifies_and_forecasts(registry, trained):
    champion = resolve_champion(registry, "demo")
    assert champion.version.version == 1
    assert champion.version.gate_passed
    bundle = read_bundle(champion.bundle_directory, LOADERS, champion.version.bundle_digest)
    assert bundle.manifest.metadata.levels == LEVELS
    assert bundle.manifest.metadata.horizons_minutes == HORIZONS
    assert bundle.forecaster.horizons_minutes == HORIZONS
    assert set(bundle.specs) == {"training", "features", "gate", "contracts", "distribution"}
    assert bundle.specs["contracts"] == list(SYMBOLS)
    assert bundle.specs["gate"]["passed"] is True


def test_a_second_training_is_a_challenger_of_the_same_bytes_and_fits_no_fold_again(
    registry, trained, retrained, tmp_path
):
    before, ending = retrained
    assert ending.code == 0, ending.errors
    assert "registered demo version 2 as challenger" in ending.output
    first, second = registry.version("demo", 1), registry.version("demo", 2)
    assert registry.at_alias("demo", "champion") == first
    assert registry.at_alias("demo", "challenger") == second
    files = []
    for number, version in enumerate((first, second)):
        folder = tmp_path / str(number)
        folder.mkdir()
        fetched = registry.fetch(version, folder)
        files.append(dict(verify_bundle(fetched).files))
    # the verdict differs: the second met a champion, the first met none
    assert files[0].pop("specs/gate.json") != files[1].pop("specs/gate.json")
    assert files[0] == files[1]
    assert fold_files(trained.out) == before


def test_a_failed_gate_ends_in_1_and_leaves_a_version_without_alias(registry, failed):
    assert failed.code == 1, failed.errors
    assert "gate FAILED: 10m: exceedance" in failed.output
    assert "registered hopeless version 1, without alias" in failed.output
    version = registry.version("hopeless", 1)
    assert not version.gate_passed
    assert registry.at_alias("hopeless", "champion") is None
    assert registry.at_alias("hopeless", "challenger") is None


def test_the_ledger_holds_registrations_and_promotions_in_order(
    workspace, registry, retrained, failed
):
    entries = Ledger(workspace / LEDGER).read()
    assert [entry.what for entry in entries if entry.details["model"] == "demo"] == [
        "registered demo version 1: gate passed",
        "champion of demo: version none -> 1",
        "registered demo version 2: gate passed",
        "challenger of demo: version none -> 2",
    ]
    hopeless = [entry for entry in entries if entry.details["model"] == "hopeless"]
    assert [entry.what for entry in hopeless] == ["registered hopeless version 1: gate failed"]
    assert "exceedance ratio" in hopeless[0].why
    assert entries[1].evidence_digest == registry.version("demo", 1).gate_digest
    assert "there was no champion" in entries[1].why


@pytest.fixture
def governed(registry, failed, tmp_path):
    """A model with a version that failed its gate, then two that passed."""
    hopeless = registry.version("hopeless", 1)
    good = resolve_champion(registry, "demo")
    verdict = GateVerdict(passed=False, checks=())
    bundle = registry.fetch(hopeless, tmp_path)
    registry.register("governed", bundle, hopeless.run_id, verdict, who="job")
    for run_id in (good.version.run_id, hopeless.run_id):
        registry.register(
            "governed",
            good.bundle_directory,
            run_id,
            GateVerdict(passed=True, checks=()),
            who="job",
        )
    return "governed"


def test_a_person_promotes_overrides_and_rolls_back_on_the_record(
    command, registry, workspace, governed
):
    at = ("--workspace", workspace)
    refused = command("promote", f"{governed}/1", "--reason", "in a hurry", *at)
    assert refused.code == 1
    assert "did not pass its gate" in refused.errors
    assert "exceedance ratio at 0.9" in refused.errors
    leave = ("--override", "--approver", "head of risk", "--expires", "7d", "--who", "desk")
    overridden = command("promote", f"{governed}/1", "--reason", "venue moves", *leave, *at)
    assert overridden.code == 0, overridden.errors
    assert re.search(r"ledger: line \d+, head [0-9a-f]{64}", overridden.output)
    assert command("promote", f"{governed}/3", "--as", "shadow", "--reason", "x", *at).code == 0
    assert command("promote", f"{governed}/2", "--reason", "passed", *at).code == 0
    assert command("rollback", governed, "--reason", "jumps", *at).code == 0
    assert registry.aliases(governed) == {"champion": 1, "shadow": 3}
    shown = command("ledger", "show", "--model", governed, *at)
    assert "head of risk" in shown.output
    assert "champion is version 1 (gate overridden by head of risk until" in shown.output
    record = json.loads(command("ledger", "show", "--model", governed, "--json", *at).output)
    assert [entry["kind"] for entry in record["entries"]] == [
        "registration", "registration", "registration", "refusal", "override", "promotion",
        "promotion", "rollback",
    ]  # fmt: skip
    assert record["standing"][governed]["champion"]["version"] == 1
    assert record["standing"][governed]["champion"]["override_ended"] is False
    verified = command("ledger", "verify", "--head", record["entries"][0]["hash"], *at)
    assert verified.code == 0, verified.errors
    assert "MLflow's aliases are what the ledger says" in verified.output
    registry.clear(governed, "shadow")
    differing = command("ledger", "verify", *at)
    assert differing.code == 1
    assert f"shadow of {governed}: line" in differing.errors
    assert command("promote", f"{governed}/3", "--as", "shadow", "--reason", "x", *at).code == 0
    assert command("ledger", "verify", *at).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("promote", "demo", "--reason", "x"), 2, "write MODEL/VERSION"),
        (("promote", "demo/0", "--reason", "x"), 2, "write MODEL/VERSION"),
        (("promote", "demo/99", "--reason", "x"), 2, "not found"),
        (("promote", "demo/1", "--reason", "x"), 2, "is champion already"),
        (("promote", "demo/1", "--reason", "x", "--approver", "me"), 2, "belong to --override"),
        (("promote", "demo/1", "--reason", "x", "--override"), 2, "--approver and --expires"),
        (
            (
                "promote", "demo/1", "--reason", "x", "--override", "--approver", "me",
                "--expires", "soon",
            ),
            2,
            "neither a time nor a duration",
        ),
        (("rollback", "demo", "--reason", "x"), 1, "no champion of 'demo' to go back to"),
        (("rollback", "nobody", "--reason", "x"), 1, "the present one is none"),
        (("ledger", "show", "--model", "dem"), 2, "did you mean 'demo'?"),
        (("ledger", "verify", "--head", "0" * 64), 1, "history before it was rewritten"),
    ],
)  # fmt: skip
def test_what_governance_refuses_it_explains(
    command, workspace, trained, *, arguments, code, message
):
    ending = command(*arguments, "--workspace", workspace)
    assert ending.code == code
    assert message in ending.errors


def test_a_workspace_without_ledger_says_so(command, tmp_path):
    ending = command("ledger", "show", "--workspace", tmp_path)
    assert ending.code == 2
    assert "there is no ledger" in ending.errors
    assert list(tmp_path.iterdir()) == []


def test_an_edited_ledger_is_named_by_its_line_and_nobody_is_served(
    command, workspace, score, trained
):
    path = workspace / LEDGER
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"there was no champion", b"there was no chairman"))
    try:
        verified = command("ledger", "verify", "--workspace", workspace)
        promoted = command("promote", "demo/1", "--reason", "x", "--workspace", workspace)
        ending, levels = score()
    finally:
        path.write_bytes(whole)
    assert verified.code == 1
    assert "line 2: it was changed after it was written" in verified.errors
    assert promoted.code == 2
    assert ending.code == 1
    assert (levels["status"] == "fallback").all()
    assert levels["reason"].str.contains("line 2: it was changed").all()


# Backtest


def test_every_decision_horizon_model_side_and_level_is_forecast_exactly_once(trained):
    forecasts = pl.read_parquet(trained.out / "forecasts.parquet")
    assert dict(forecasts.schema) == {
        "symbol": pl.Categorical(),
        "ts": pl.Datetime("us", "UTC"),
        "horizon_minutes": pl.Int32,
        "side": pl.Categorical(),
        "level": pl.Float64,
        "forecast": pl.Float64,
        "expected_shortfall": pl.Float64,
        "model": pl.Categorical(),
        "model_version": pl.Categorical(),
    }
    key = ["symbol", "ts", "horizon_minutes", "side", "level", "model"]
    moments = pl.datetime_range(TEST_START, TEST_END, "5m", closed="left", eager=True)
    expected = {
        (symbol, ts, minutes, side, level, model)
        for symbol in SYMBOLS
        for ts in moments
        for minutes in HORIZONS
        for side in SIDES
        for level in LEVELS
        for model in MODELS
    }
    rows = forecasts.select(key).rows()
    assert len(rows) == len(expected)
    assert set(rows) == expected
    assert forecasts["forecast"].is_finite().all()
    assert (forecasts["forecast"] >= 0).all()


@pytest.mark.parametrize(
    ("along", "others"), [("level", "horizon_minutes"), ("horizon_minutes", "level")]
)
@pytest.mark.parametrize("what", ["forecast", "expected_shortfall"])
def test_no_forecast_crosses_the_next_level_or_horizon(trained, along, others, what):
    forecasts = pl.read_parquet(trained.out / "forecasts.parquet")
    steps = (
        forecasts.sort(along)
        .group_by("symbol", "ts", "side", "model", others)
        .agg(pl.col(what).diff().drop_nulls().min().alias("smallest"))
    )
    assert len(steps) == len(forecasts) / forecasts[along].n_unique()
    assert steps["smallest"].min() >= 0


def test_the_version_of_a_forecast_names_its_refit(trained):
    forecasts = pl.read_parquet(trained.out / "forecasts.parquet").with_columns(
        pl.col("model_version").cast(pl.String).str.split("@").list.last().alias("refit")
    )
    spans = forecasts.group_by("refit").agg(
        pl.col("ts").min().alias("first"), pl.col("ts").max().alias("last")
    )
    assert sorted(spans["refit"]) == ["2026-01-06T00:00", "2026-01-08T00:00"]
    for refit, first, last in spans.iter_rows():
        start = parse_instant(refit)
        assert start <= first <= last < start + timedelta(days=2)


def test_the_summary_is_strict_json_and_agrees_with_forecasts_and_bars(trained, market):
    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    text = (trained.out / "summary.json").read_text()
    summary = json.loads(text, parse_constant=refuse)
    assert summary["gate"]["passed"] is True
    assert summary["digests"]["data"]
    assert summary["horizon_crossings"] == dict.fromkeys(MODELS, 0)
    assert [record["horizon_minutes"] for record in summary["horizons"]] == list(HORIZONS)
    cell = next(
        cell
        for cell in summary["horizons"][1]["cells"]
        if (cell["model"], cell["side"], cell["level"]) == ("ewma_fhs", "long", 0.9)
    )
    # the same exceedances, counted from the bars by the definition
    forecasts = pl.read_parquet(trained.out / "forecasts.parquet").filter(
        pl.col("model") == "ewma_fhs",
        pl.col("side") == "long",
        pl.col("level") == 0.9,
        pl.col("horizon_minutes") == 30,
    )
    exceeded = 0
    for symbol in SYMBOLS:
        bars = pl.read_parquet(market / "bars" / f"{symbol}.parquet")
        low, close = bars["low"].to_numpy(), bars["close"].to_numpy()
        own = forecasts.filter(pl.col("symbol") == symbol).sort("ts")
        first = (own["ts"] - datetime(2026, 1, 1, tzinfo=UTC)).dt.total_minutes().to_numpy()
        for minute, forecast in zip(first, own["forecast"], strict=True):
            fall = max(0.0, 1 - low[minute : minute + 30].min() / close[minute - 1])
            exceeded += fall > forecast
    assert cell["decisions"] == len(forecasts)
    assert cell["exceedances"] == exceeded


def test_the_reports_are_pages_without_anything_from_outside_that_lead_to_each_other(trained):
    for name in ("report.html", "report-10m.html", "report-30m.html"):
        page = (trained.out / name).read_text()
        assert page.lstrip().lower().startswith("<!doctype html>")
        assert "margincast" in page
        assert 'src="http' not in page
        links = set(re.findall(r'href="([^"]+)"', page))
        assert links == (
            {"report-10m.html", "report-30m.html"} if name == "report.html" else {"report.html"}
        )


def test_a_table_a_horizon_is_printed_and_the_gate_asks_each(trained):
    for horizon in ("10m", "30m"):
        assert f"Backtest, {horizon} horizon, " in trained.ending.output
    assert "crossings between horizons: none" in trained.ending.output
    # at both horizons, and between them: two of accuracy, two of coverage, three tests, no champion
    # yet, two of procyclicality, no window of stress, five of the data
    assert "gate passed (33 checks)" in trained.ending.output


def test_the_gates_verdict_stands_in_a_file_of_its_own_and_names_the_champion(trained, retrained):
    verdict = json.loads((trained.out / "gate.json").read_text())
    assert verdict["passed"] is True
    assert verdict["asked"]["battery"]["levels"] == [0.9]
    by_name = {check["name"]: check for check in verdict["checks"]}
    assert len(by_name) == len(verdict["checks"]) == 35
    # the second training met the first as champion, on the very same decisions and forecasts
    beside = by_name["30m: no worse than the champion"]
    assert beside["reason"].startswith("30m: loss +0.00% over 4 days in common with demo/1")
    assert by_name["30m: largest extra loss that cannot be excluded"]["observed"] == 0.0
    assert by_name["10m: known windows of stress in the test period"]["observed"] == 0
    assert "2025-10-10" in by_name["10m: known windows of stress in the test period"]["reason"]


@pytest.mark.slow
def test_an_interrupted_backtest_continues_to_the_same_forecasts(
    command, workspace, small, tmp_path
):
    options = (
        "--set", "backtest.refit_every=1d", "--set", 'backtest.peers=["ewma_fhs"]',
        "--set", "target.horizons=30m",
    )  # fmt: skip
    spec = workspace / "training" / "demo.toml"
    out = tmp_path / "interrupted"
    arguments = ("backtest", spec, "--out", out, *small, *options)
    program = "from margincast.cli import main; main()"
    with subprocess.Popen(  # noqa: S603  # this interpreter, and arguments made here
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        errors = ""
        for line in process.stderr:
            errors += line
            # Python drops an interrupt that comes while an object is being freed: ask again
            if re.search(r"backtest \d/8: margincast", line):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130, errors
    assert "interrupted; what was finished is kept" in errors
    assert "Traceback" not in errors
    assert {path.name for path in out.iterdir()} == {".folds"}
    kept = fold_files(out)
    assert 1 <= len(kept) < 8
    assert command(*arguments).code == 0
    assert kept.items() <= fold_files(out).items()
    fresh = tmp_path / "fresh"
    assert command("backtest", spec, "--out", fresh, *small, *options).code == 0
    for name in ("forecasts.parquet", "summary.json"):
        assert (out / name).read_bytes() == (fresh / name).read_bytes()
    # one horizon has one page and one record
    assert {path.name for path in fresh.iterdir()} == {
        ".folds", "forecasts.parquet", "gate.json", "report", "report.html", "summary.json",
    }  # fmt: skip
    summary = json.loads((fresh / "summary.json").read_text())
    assert summary["horizon_minutes"] == 30
    assert {"models", "cells", "gate", "folds"} <= set(summary)
    assert "horizons" not in summary


@pytest.mark.parametrize("table", ["bars", "book", "trades"])
def test_damaged_pages_of_any_table_are_an_input_error(command, workspace, small, tmp_path, table):
    data = tmp_path / "data"
    shutil.copytree(small[small.index("--data") + 1], data)
    path = data / table / "SIM-ETH.parquet"
    content = bytearray(path.read_bytes())
    for page in range(1000, len(content) - 20_000, 5_000):
        content[page : page + 100] = bytes(100)
    path.write_bytes(content)
    ending = command(
        "backtest", workspace / "training" / "demo.toml", "--out", tmp_path / "out", *small,
        "--data", data,
    )  # fmt: skip
    assert ending.code == 2
    assert f"error: {path} cannot be read as Parquet" in ending.errors
    assert not (tmp_path / "out").exists()


# What a forecast may hang on


def shaken_market(market: Path, folder: Path, after: datetime) -> Path:
    """Copy a market, and multiply everything known only after a moment by random factors."""
    generator = np.random.default_rng(5)
    for path in sorted(market.rglob("*.parquet")):
        frame = pl.read_parquet(path)
        factor = pl.Series("factor", generator.uniform(0.2, 5.0, len(frame)))
        table = path.parent.name
        later = pl.col("ts") >= after if table == "bars" else pl.col("ts") > after
        values = [
            name for name, kind in frame.schema.items() if name != "ts" and kind == pl.Float64
        ]
        target = folder / table / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        frame.with_columns(
            pl.when(later).then(pl.col(values) * factor).otherwise(pl.col(values))
        ).write_parquet(target)
    return folder


def test_nothing_known_later_changes_a_feature_or_forecast(
    workspace, small_workload, trained, market, tmp_path
):
    moment = datetime(2026, 1, 7, 12, tzinfo=UTC)
    shaken = shaken_market(market, tmp_path / "shaken", moment)
    frames, forecasts = [], []
    for workload, store in (
        (small_workload, trained.out / ".folds"),
        (build_workload(small_workload.job, workspace, shaken), tmp_path / "store"),
    ):
        made = replay(workload, MODELS, execution=LocalExecution(1), store=store)
        frames.append(workload.frame.query("ts <= @moment"))
        until = (made[30].panel.frame["ts"] <= moment).to_numpy()
        forecasts.append(
            {(minutes, name): (made_by.quantiles[until], made_by.quantiles[~until])
             for minutes, of_horizon in made.items()
             for name, made_by in of_horizon.forecasts.items()}
        )  # fmt: skip
        assert until.sum() == 2 * (36 * 12 + 1)
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    assert set(forecasts[0]) == {(minutes, name) for minutes in HORIZONS for name in MODELS}
    for key in forecasts[0]:
        (known, later), (shaken_known, shaken_later) = (each[key] for each in forecasts)
        assert np.isfinite(known).all()
        np.testing.assert_array_equal(known, shaken_known)
        assert not np.array_equal(later, shaken_later)


def test_a_bundle_is_the_same_bytes_for_one_thread_and_two(small_workload, small_job, tmp_path):
    job = small_job
    workload = small_workload
    panels = {minutes: panel.rows(panel.labelled) for minutes, panel in workload.panels.items()}
    metadata = BundleMetadata(
        job=job.name,
        horizons_minutes=HORIZONS,
        sides=job.target.sides,
        levels=job.target.levels,
        feature_columns=tuple(workload.table.units),
        spec_digest=job.digest(),
        feature_set_hash=workload.feature_set.digest(),
        training_data_digest=workload.market.digest,
        trained_until="2024-06-01T00:00:00",
    )
    contents = []
    for threads in (1, 2):
        forecasters = {
            minutes: forecaster_for(workload, "margincast", minutes, threads) for minutes in panels
        }
        model = HorizonForecaster("margincast", forecasters, monotone=True).fit(panels)
        folder = tmp_path / f"threads{threads}"
        write_bundle(
            model, folder, loaders=LOADERS, metadata=metadata, specs={"training": job.digest()}
        )
        contents.append(
            {str(path.relative_to(folder)): path.read_bytes()
             for path in folder.rglob("*") if path.is_file()}
        )  # fmt: skip
    assert len(contents[0]) > 4
    assert contents[0] == contents[1]


# Scoring

CONTRACT = {
    "symbol", "side", "tier_floor_usd", "tier_cap_usd", "effective_from", "mmr", "imr",
    "max_leverage", "maintenance_amount", "multiplier", "forecast", "liquidation_cost",
    "binding_rule", "status", "reason", "model_version", "feature_set_hash", "policy_hash",
    "data_as_of",
}  # fmt: skip
"""Columns of ``margin_levels`` in section 4 of the design."""


def test_the_champion_sets_margins_for_every_contract_side_and_tier(score):
    ending, levels = score()
    assert ending.code == 0, ending.errors
    assert set(levels.columns) >= CONTRACT
    assert set(zip(levels["symbol"], levels["side"], strict=True)) == {
        (symbol, side) for symbol in SYMBOLS for side in SIDES
    }
    assert (levels["status"] == "ok").all()
    assert (levels["model_version"] == "demo/1").all()
    assert (levels["effective_from"] == DATA_END).all()
    assert (levels["data_as_of"] == DATA_END).all()
    assert (levels["mmr"] < levels["imr"]).all()
    assert (levels["mmr"] >= levels["forecast"]).all()
    assert np.allclose(levels["max_leverage"], 1 / levels["imr"])
    assert "margin levels:" in ending.output


def test_a_contract_that_only_the_schedule_names_keeps_its_base_margin(score):
    ending, levels = score(absent=True)
    assert ending.code == 0, ending.errors
    absent = levels.loc[levels["symbol"] == "SIM-ALT"]
    assert set(absent["side"]) == set(SIDES)
    assert (absent["status"] == "fallback").all()
    assert absent["reason"].str.contains("which the base schedule names").all()


def test_scoring_at_a_time_equals_scoring_data_that_ends_there(score, market, tmp_path):
    at = datetime(2026, 1, 8, 9, 30, tzinfo=UTC)
    _, then = score("--at", at.isoformat())
    data = cut_market(market, tmp_path / "data", dict.fromkeys(SYMBOLS, at))
    _, cut = score(data=data)
    assert (then["effective_from"] == at).all()
    assert (then["data_as_of"] == at).all()
    pd.testing.assert_frame_equal(then, cut, check_exact=True)


def test_a_time_before_the_data_is_refused_and_one_long_after_falls_back(score):
    ending, levels = score("--at", "2025-12-31")
    assert ending.code == 2
    assert "error: no data at or before 2025-12-31 00:00 UTC" in ending.errors
    assert levels is None
    ending, levels = score("--at", "2026-02-01")
    assert (levels["status"] == "fallback").all()
    assert levels["reason"].str.contains("stale data: 21 days").all()


def test_a_stale_contract_falls_back_alone(score, market, tmp_path):
    ends = {"SIM-BTC": DATA_END, "SIM-ETH": DATA_END - timedelta(hours=1)}
    _, everything = score()
    ending, levels = score(data=cut_market(market, tmp_path / "data", ends))
    assert ending.code == 0, ending.errors
    status = levels.groupby("symbol")["status"].unique()
    assert list(status["SIM-BTC"]) == ["ok"]
    assert list(status["SIM-ETH"]) == ["fallback"]
    stale = levels[levels["symbol"] == "SIM-ETH"]
    assert stale["reason"].str.contains("stale data: 1:00:00 old, allowed 5m").all()
    assert (stale["multiplier"] >= 1.0).all()  # the schedule, or the last margin
    assert (stale["data_as_of"] == ends["SIM-ETH"]).all()
    assert len(levels) == len(everything)
    assert "levels fall back: " in ending.errors


def test_a_contract_too_young_to_forecast_has_the_base_schedule(score, market, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(market, data)
    for path in data.rglob("SIM-ETH.parquet"):
        frame = pl.read_parquet(path)
        frame.filter(pl.col("ts") >= DATA_END - timedelta(hours=12)).write_parquet(path)
    ending, levels = score(data=data)
    assert ending.code == 0, ending.errors
    young = levels[levels["symbol"] == "SIM-ETH"]
    assert set(zip(young["side"], young["tier"], strict=True)) == {
        (side, tier) for side in SIDES for tier in (1, 2, 3, 4)
    }
    assert (young["status"] == "fallback").all()
    assert young["reason"].str.contains("less history than the features' warm-up of 1d").all()
    assert (levels.loc[levels["symbol"] == "SIM-BTC", "status"] == "ok").all()


def test_a_contract_without_data_has_the_base_schedule_unless_it_is_left_out(
    score, market, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(market, data)
    for path in data.rglob("SIM-ETH.parquet"):
        path.unlink()
    ending, levels = score(data=data)
    assert ending.code == 0, ending.errors
    absent = levels[levels["symbol"] == "SIM-ETH"]
    assert len(absent) == 2 * 4
    assert (absent["status"] == "fallback").all()
    assert absent["reason"].str.contains("no data for this contract").all()
    _, chosen = score("--set", "data.symbols=SIM-BTC", data=data)
    expected = levels[levels["symbol"] == "SIM-BTC"].reset_index(drop=True)
    pd.testing.assert_frame_equal(chosen, expected, check_exact=True)


def test_a_book_that_stopped_is_not_walked(score, market, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(market, data)
    path = data / "book" / "SIM-ETH.parquet"
    frame = pl.read_parquet(path)
    frame.filter(pl.col("ts") <= DATA_END - timedelta(hours=1)).write_parquet(path)
    ending, levels = score(data=data)
    assert ending.code == 0, ending.errors
    assert (levels["status"] == "ok").all()
    cost = levels.groupby("symbol")["liquidation_cost"]
    # depth nobody has seen costs 200 bps, and fees are 15 bps
    assert cost.min()["SIM-ETH"] == cost.max()["SIM-ETH"] == pytest.approx(0.0215)
    assert cost.min()["SIM-BTC"] < 0.005


def test_a_tier_pays_for_the_books_of_the_window(score):
    _, plain = score()
    window = 'liquidation.book.horizon={level=0.95, window="6h", every="1m", minimum_history="1h"}'
    ending, levels = score("--set", window)
    assert ending.code == 0, ending.errors
    assert (levels["status"] == "ok").all()
    # the window holds today's book too
    assert (levels["liquidation_cost"] >= plain["liquidation_cost"] - 1e-12).all()
    assert (levels["liquidation_cost"] > plain["liquidation_cost"] + 1e-6).any()
    assert "the 0.95 quantile of 360 books of 6h" in levels["liquidation_cost_reason"].iloc[0]


def test_without_a_champion_the_base_schedule_stands_with_the_reason(score, failed):
    ending, levels = score("--set", "model.registered_model=hopeless", absent=True)
    assert ending.code == 1
    assert "no champion: no version of 'hopeless' is champion" in ending.errors
    assert (levels["status"] == "fallback").all()
    assert levels["reason"].str.contains("no version of 'hopeless' is champion").all()
    assert set(levels["symbol"]) == {"SIM-BTC", "SIM-ETH", "SIM-ALT"}
    assert (levels["multiplier"] == 1.0).all()


def test_without_any_store_the_base_schedule_stands(score, tmp_path):
    ending, levels = score(
        "--set", "model.registered_model=new", "--set", f"tracking.uri=sqlite:///{tmp_path}/no.db"
    )
    assert ending.code == 1
    assert (levels["status"] == "fallback").all()
    assert not (tmp_path / "no.db").exists()


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model.horizon=1h", "horizon 60 min (the model has 10, 30 min)"),
        ("model.level=0.999", "level 0.999 (the model has [0.9, 0.95, 0.99])"),
    ],
)
def test_a_champion_that_does_not_answer_the_policy_is_not_used(score, override, reason):
    ending, levels = score("--set", override)
    assert ending.code == 1
    assert (levels["status"] == "fallback").all()
    assert levels["reason"].str.contains(reason, regex=False).all()


def test_a_champion_with_the_features_of_another_set_is_not_used(score, registry, tmp_path):
    champion = resolve_champion(registry, "demo")
    made = read_bundle(champion.bundle_directory, LOADERS)
    write_bundle(
        made.forecaster,
        tmp_path / "mixed",
        loaders=LOADERS,
        metadata=replace(made.manifest.metadata, feature_set_hash="0" * 64),
        specs=made.specs,
    )
    version = registry.register(
        "mixed",
        tmp_path / "mixed",
        champion.version.run_id,
        GateVerdict(passed=True, checks=()),
        who="me",
    )
    promote(registry, "mixed", "champion", version.version, who="me", why="to see")
    ending, levels = score("--set", "model.registered_model=mixed")
    assert ending.code == 1
    assert (levels["status"] == "fallback").all()
    assert levels["reason"].str.contains("trained on set 000000000000").all()


def test_a_store_that_is_down_does_not_stop_the_last_good_champion(score, workspace):
    _, before = score()
    store = workspace / "mlruns" / "mlflow.db"
    away = store.with_suffix(".away")
    store.rename(away)
    try:
        ending, levels = score()
    finally:
        away.rename(store)
    assert ending.code == 0
    assert "using the last good champion" in ending.errors
    pd.testing.assert_frame_equal(levels, before, check_exact=True)


def test_a_tampered_champion_is_refused_and_a_tampered_copy_fetched_again(
    score, registry, workspace
):
    _, before = score()
    kept = resolve_champion(registry, "demo").bundle_directory
    model = next((kept / "model" / "30m").glob("long-*.txt"))
    original = model.read_bytes()
    tampered = original.replace(b"leaf_value=", b"leaf_value=9", 1)
    assert tampered != original
    model.write_bytes(tampered)
    ending, levels = score()
    assert ending.code == 0
    pd.testing.assert_frame_equal(levels, before, check_exact=True)
    verify_bundle(kept)
    sources = [
        path
        for path in (workspace / "mlruns" / "artifacts").rglob(f"bundle/model/30m/{model.name}")
        if path.read_bytes() == original
    ]
    assert sources
    shutil.rmtree(kept)
    for path in sources:
        path.write_bytes(tampered)
    try:
        ending, levels = score()
    finally:
        for path in sources:
            path.write_bytes(original)
    assert ending.code == 1
    assert f"model/30m/{model.name} was changed after it was written" in ending.errors
    assert (levels["status"] == "fallback").all()
    assert levels["reason"].str.contains("was changed after it was written").all()
    assert not levels["reason"].str.contains(str(workspace)).any()
    ending, levels = score()
    pd.testing.assert_frame_equal(levels, before, check_exact=True)
