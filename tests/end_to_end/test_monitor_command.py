"""``margincast monitor``: run after run over a market that goes on after training."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.serving.champion import resolve_champion
from margincast.serving.ledger import LEDGER, Ledger
from margincast.serving.promotion import promote
from margincast.serving.publications.store import store_of
from margincast.serving.registry import Registry
from margincast.serving.verdict import GateCheck, GateVerdict
from margincast.training.tracking import Tracker

FIRST, LAST = "2026-01-11T06:00", "2026-01-11T18:00"
STATE = Path(".margincast") / "monitor" / "demo.json"


@pytest.fixture(scope="module")
def later_market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same contracts, and most of a day after the training of the shared model."""
    folder = tmp_path_factory.mktemp("later")
    parameters = MarketParameters(contracts=select_contracts(["SIM-BTC", "SIM-ETH"]))
    start = datetime(2026, 1, 9, tzinfo=UTC)
    write_market(simulate_market(parameters, days=3, seed=1, start=start), folder)
    return folder


@pytest.fixture
def own(workspace, trained, tmp_path):
    """A copy of the trained workspace: what a monitor remembers is each test's own."""
    assert trained.ending.code == 0, trained.ending.errors
    folder = tmp_path / "workspace"
    shutil.copytree(workspace, folder, ignore=shutil.ignore_patterns(".margincast", "out"))
    return folder


@pytest.fixture
def monitor(command, own, later_market, tmp_path):
    def run(at, *options):
        # three days are not what ten days of training looked like
        ending = command(
            "monitor", own / "serving" / "monitors" / "demo.toml", "--data", later_market,
            "--out", tmp_path / "out", "--at", at, "--set", "drift.drifted_max=1.0", *options,
        )  # fmt: skip
        path = tmp_path / "out" / "monitor.json"
        return ending, json.loads(path.read_text()) if path.exists() else None

    return run


def status(report):
    return {check["alarm"]: check["status"] for check in report["checks"]}


def test_runs_go_on_where_the_last_one_stopped_and_can_be_made_again(monitor, own, tmp_path):
    ending, first = monitor(FIRST)
    assert ending.code == 0, ending.errors + ending.output
    assert first["watched"]["forecasts"]["evidence"][0]["bets"] > 5
    _, again = monitor(FIRST)
    assert again == first
    _, last = monitor(LAST)
    kept = (own / STATE).read_bytes()
    # a damaged memory is refused, put aside, and made again to the last bit
    (own / STATE).write_bytes(kept[:-20] + b"0" + kept[-19:])
    ending, rebuilt = monitor(LAST)
    assert ending.code == 0
    assert "put aside as demo.refused.json" in ending.errors
    assert (own / STATE).read_bytes() == kept
    assert rebuilt["watched"] == last["watched"]
    # looking back is not remembered
    ending, back = monitor(FIRST)
    assert back["watched"] == first["watched"]
    assert (own / STATE).read_bytes() == kept
    metrics = (tmp_path / "out" / "monitor.prom").read_text()
    assert 'margincast_monitor_alarm{alarm="champion",monitor="demo"} 0.0' in metrics


def test_an_alarm_says_why_and_starts_nothing_unless_told(monitor, own, small):
    acting = ["acting.cool_down=1d", "acting.starts_max=1", "acting.period=2d"]
    job = '[{name="again", alarms=["data too old", "features drifted"], after="0s", '
    options = [part for text in acting for part in ("--set", text)]
    options += ["--set", f'acting.jobs={job} job="training/none.toml", set=[]}}]']
    ending, report = monitor("2026-01-13T00:00", *options, "--act")
    assert ending.code == 1
    assert status(report)["data too old"] == "alarm"
    assert "the data is too old to train on" in report["decision"]["reason"]
    drifting = ["--set", "drift.drifted_max=0.0", "--set", "drift.stability_index_max=0.01"]
    lines = len(Ledger(own / LEDGER).read())
    monitor_anew(own)
    ending, report = monitor(LAST, *options, *drifting)
    assert ending.code == 1
    assert report["decision"]["job"] == "again"
    assert "--act would start it" in report["decision"]["reason"]
    assert len(Ledger(own / LEDGER).read()) == lines
    # a job that fails is on the ledger too, and the cool-down begins with its start
    ending, report = monitor(LAST, *options, *drifting, "--act")
    started, ended = Ledger(own / LEDGER).verify()[lines:]
    assert (started.kind, ended.kind) == ("job start", "job end")
    assert "features drifted" in started.why
    assert "failed: " in ended.why
    ending, report = monitor(LAST, *options, *drifting, "--act")
    assert "cool-down of 1d" in report["decision"]["reason"]
    assert len(Ledger(own / LEDGER).read()) == lines + 2


@pytest.mark.slow
def test_a_job_that_an_alarm_started_registers_a_challenger_and_says_how_its_gate_went(
    monitor, own, small, market
):
    short = ["target.horizons=[30m]", "tuning.trials=0", "backtest.start=2026-01-08",
             "backtest.end=2026-01-08", 'backtest.peers=["ewma_fhs"]']  # fmt: skip
    # ten days to train on; the monitor has three
    longer = [f'data.{table}=["{market / table}"]' for table in ("bars", "book", "trades")]
    job = {"name": "retrain", "after": "0s", "job": "training/demo.toml",
           "alarms": ["features drifted"], "set": [*small[3::2], *short, *longer]}  # fmt: skip
    of_job = ", ".join(f"{name}={json.dumps(value)}" for name, value in job.items())
    options = [
        "acting.cool_down=1d", "acting.starts_max=9", "acting.period=2d",
        f"acting.jobs=[{{{of_job}}}]", "drift.drifted_max=0.0", "drift.stability_index_max=0.01",
    ]  # fmt: skip
    registry = Registry("sqlite:///mlruns/mlflow.db", own)
    champion = resolve_champion(registry, "demo").version.version
    before = len(Ledger(own / LEDGER).read())
    ending, report = monitor(LAST, *(part for text in options for part in ("--set", text)), "--act")
    assert ending.code == 1
    started, registered, *_, ended = Ledger(own / LEDGER).verify()[before:]
    assert [one.kind for one in (started, registered, ended)] == [
        "job start", "registration", "job end",
    ]  # fmt: skip
    assert registered.details["version"] == champion + 1
    assert "registered demo version" in report["decision"]["reason"]
    # making it champion is left to a person
    assert resolve_champion(registry, "demo").version.version == champion


def monitor_anew(workspace):
    shutil.rmtree(workspace / ".margincast" / "monitor")


def test_without_a_champion_that_is_what_it_says(command, tmp_path, later_market):
    assert command("init", tmp_path / "empty").code == 0
    spec = tmp_path / "empty" / "serving" / "monitors" / "demo.toml"
    ending = command("monitor", spec, "--data", later_market, "--at", LAST, "--json")
    assert ending.code == 1
    assert command("monitor", spec, "--json", "--act").code == 2
    report = json.loads(ending.output)
    assert status(report)["champion"] == "alarm"
    assert report["model"] == ""


@pytest.fixture
def shadow(own):
    """Version 2: the champion's own bundle, given the alias shadow."""
    registry = Registry("sqlite:///mlruns/mlflow.db", own)
    champion = resolve_champion(registry, "demo")
    with Tracker("sqlite:///mlruns/mlflow.db", "shadows", own).run("shadow") as run:
        gate = json.loads((champion.bundle_directory / "specs" / "gate.json").read_text())
        checks = tuple(GateCheck(**check) for check in gate["checks"])
        verdict = GateVerdict(gate["passed"], checks)
        made = registry.register("demo", champion.bundle_directory, run.run_id, verdict, who="test")
    promote(registry, "demo", "shadow", made.version, who="test", why="to compare")
    return made


def test_a_shadow_is_scored_and_never_published_and_hindsight_is_not_judged(
    command, monitor, own, *, shadow, later_market, tmp_path
):
    scored = command(
        "score", own / "serving" / "demo.toml", "--data", later_market,
        "--out", tmp_path / "margins", "--at", FIRST, "--publish", "--reason", "first",
    )  # fmt: skip
    assert scored.code == 0, scored.errors
    levels, beside = (
        pd.read_parquet(tmp_path / "margins" / name)
        for name in ("margin_levels.parquet", "shadow_levels.parquet")
    )
    assert set(levels["model_version"]) == {"demo/1"}
    assert set(beside["model_version"]) == {f"demo/{shadow.version}"}
    pd.testing.assert_frame_equal(
        levels.drop(columns="model_version"), beside.drop(columns="model_version")
    )
    store = store_of(own, "demo")
    assert set(store.latest().levels["model_version"]) == {"demo/1"}
    # published today, of a market of long ago: its horizon had passed by then
    _, report = monitor("now")
    assert status(report)["publication too old"] == "ok"
    assert status(report)["data too old"] == "alarm"
    margins = report["watched"]["margins"]
    assert margins["left_out"]["published after its horizon had passed"] == 4
    assert margins["evidence"][0]["bets"] == 0
    # two versions of one model have no difference
    assert report["shadow"]["moments"] == 0
    assert report["shadow"]["decisions"] > 100
    # a record that was changed is an alarm of its own
    record = store.latest().folder / "manifest.json"
    record.write_text(record.read_text().replace('"first"', '"other"'))
    _, report = monitor("now")
    assert status(report)["publications unreadable"] == "alarm"
