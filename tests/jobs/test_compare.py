"""Runs of two jobs with known losses in one store: found, compared where both were asked, told."""

import json

import numpy as np
import pandas as pd
import pytest

from margincast.backtest.daily_losses import FILE, write_daily_losses
from margincast.core.errors import InputError
from margincast.jobs import compare
from margincast.jobs.headline import metric_name
from margincast.training.tracking import Tracker

URI = "sqlite:///mlruns/mlflow.db"
DAYS = 60
EARLY, LATE = "demo · 2026-01-01 00:00:00", "demo · 2026-01-02 00:00:00"


def losses(excess=0.0, *, first_day=0, seed=1):
    """Daily losses of one contract; ``excess`` is how much the model loses beyond the truth."""
    days = pd.date_range("2024-01-01", periods=DAYS, freq="D", tz="UTC").as_unit("us")
    market = np.random.default_rng(0).uniform(0.5, 2.0, DAYS)
    noise = np.random.default_rng(seed).normal(0.0, 0.02, DAYS)
    table = pd.DataFrame(
        {
            "day": days, "symbol": "A", "horizon_minutes": 60, "side": "long", "level": 0.99,
            "decisions": 24, "mean_outcome": 0.01 * market,
            "pinball": 1e-4 * market * (1.0 + excess + noise), "exceedances": 1,
            "mean_forecast": 0.02, "mean_shortfall": 0.001,
        }
    )  # fmt: skip
    return table.iloc[first_day:]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, migrated_store):
    """Two jobs; the later one changed a key, began ten days later, and got worse."""
    folder = tmp_path_factory.mktemp("compared")
    migrated_store(folder)
    tracker = Tracker(URI, "demo", folder)

    def log_job(name, rounds, models):
        with tracker.run(name, {"margincast.kind": "training job"}) as job:
            job.log_parameters({"job": {"rounds": rounds, "seed": 1}})
            for model, (ratio, table) in models.items():
                tags = {
                    "margincast.kind": "model",
                    "margincast.model": model,
                    "margincast.job_run": job.run_id,
                }
                with tracker.run(f"{model} · {name}", tags) as run:
                    run.log_metrics({"pinball_ratio": ratio})
                    if table is not None:
                        write_daily_losses(folder / FILE, table)
                        run.log_artifact(folder / FILE)

    log_job(EARLY, 8, {"peer": (1.0, losses(0.2)), "margincast": (0.9, losses())})
    late = {"margincast": (0.95, losses(0.05, first_day=10, seed=2)), "old": (1.0, None)}
    log_job(LATE, 12, late)
    with tracker.run("notes", {}) as other:
        other.log_metrics({"objective": 1.0})
    elsewhere = losses().assign(symbol="B")
    log_job("other job", 8, {"elsewhere": (1.0, elsewhere)})
    return folder


def compared(workspace, *references, against=None):
    return compare.run(references, workspace, URI, against=against, as_json=False)


def test_a_worse_model_of_another_job_is_found_on_the_days_both_have(workspace, capsys):
    found = compared(workspace, f"margincast · {EARLY}", f"margincast · {LATE}")
    [other] = found.others
    [together, at_level] = other.differences
    assert together.difference == pytest.approx(0.05, abs=0.01)
    assert at_level.level == 0.99
    assert together.days == DAYS - 10
    assert other.found.shared.left_out["only in the second"] == 10
    assert (other.verdict(0), other.worse) == ("worse", True)
    assert set(found.specs) == {"job.rounds"}
    assert set(found.specs["job.rounds"].values()) == {"8", "12"}
    printed = capsys.readouterr()
    assert "+5." in printed.out
    assert "0.95 (+0.05)" in printed.out
    assert "job.rounds" in printed.out
    assert "only in the second: 10" in printed.err


def test_a_job_stands_for_its_models_ours_first(workspace):
    found = compared(workspace, EARLY)
    assert found.against.tags["margincast.model"] == "margincast"
    assert [one.run.tags["margincast.model"] for one in found.others] == ["peer"]
    assert found.others[0].differences[0].difference == pytest.approx(0.2, abs=0.01)
    assert found.specs == {}


def test_against_turns_the_comparison_round(workspace):
    found = compared(workspace, EARLY, against=f"peer · {EARLY}")
    assert [one.run.tags["margincast.model"] for one in found.others] == ["margincast"]
    assert found.others[0].differences[0].difference < 0.0
    assert found.others[0].verdict(0) == "better"


def test_the_start_of_an_id_or_name_is_enough(workspace):
    whole = compared(workspace, EARLY)
    short = compared(workspace, whole.against.run_id[:12], f"peer · {EARLY[:12]}")
    assert short.against == whole.against
    assert short.others[0].run == whole.others[0].run


def test_runs_without_losses_or_decisions_in_common_are_told_and_do_not_stop_the_rest(
    workspace, capsys
):
    found = compared(
        workspace, f"margincast · {LATE}", f"old · {LATE}", "elsewhere", f"peer · {EARLY}"
    )
    old, elsewhere, peer = found.others
    assert "has no daily_losses.parquet" in old.reason
    assert "no decisions in common" in elsewhere.reason
    assert peer.differences
    assert "no decisions in common" in capsys.readouterr().err


def test_json_holds_what_the_tables_hold(workspace, capsys):
    compare.run([EARLY], workspace, URI, against=None, as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert record["against"]["metrics"] == {"pinball_ratio": 0.9}
    [peer] = record["runs"]
    assert peer["metric_differences"] == {"pinball_ratio": pytest.approx(0.1)}
    assert peer["losses"][0]["verdict"] == "worse"
    assert peer["losses"][0]["first_loss"] is None  # all levels together have no unit
    assert peer["shared"]["decisions"] == 24 * DAYS
    assert record["specs"] == {}


@pytest.mark.parametrize(
    ("references", "problem"),
    [
        (["nothing"], "no run 'nothing'"),
        (["demo/7"], "no run 'demo/7'"),
        (["margincast"], "means 2 runs, newest first"),
        (["notes", EARLY], "no run of margincast"),
        ([f"margincast · {EARLY}"], "only margincast"),
        (["both ' and \" quotes"], "both kinds of quotes"),
    ],
)
def test_what_cannot_be_compared_is_an_error_that_says_what_to_do(workspace, references, problem):
    with pytest.raises(InputError, match=problem):
        compared(workspace, *references)


def test_a_job_without_models_is_an_error(workspace):
    with (
        Tracker(URI, "demo", workspace).run("empty", {"margincast.kind": "training job"}),
        pytest.raises(InputError, match="has no models yet"),
    ):
        compared(workspace, "empty", EARLY)


def test_significance_is_adjusted_over_the_runs(workspace):
    found = compared(workspace, EARLY, f"margincast · {LATE}")
    raw = [one.differences[0].p_value for one in found.others]
    adjusted = [one.adjusted_p[0] for one in found.others]
    assert max(adjusted) == pytest.approx(max(raw))
    assert min(adjusted) == pytest.approx(2 * min(raw))


def test_a_metric_is_named_by_what_tells_it_apart():
    assert metric_name("exceedance_ratio", "8h", 0.995, "long") == "exceedance_ratio/8h/0.995/long"
    assert metric_name("pinball_ratio") == "pinball_ratio"
