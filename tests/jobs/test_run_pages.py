"""What a run's description says: verdict first, best model first, and never cut off in silence."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from margincast.jobs import run_pages
from margincast.jobs.run_pages import colour_of, describe_job, describe_model

NAN = float("nan")


def evaluation_of(ratios):
    def cell(model, side, level):
        assert side == "both"
        return SimpleNamespace(level=level, exceedance_ratio=1.2, mean_forecast=0.05)

    models = [
        SimpleNamespace(
            model=name, pinball_ratio=ratio, pinball_ratio_error=0.01, largest_one_day_rise=NAN
        )
        for name, ratio in ratios.items()
    ]
    return SimpleNamespace(
        models=models, cells=[cell("", "both", 0.99)], cell=cell, reference="peer",
        subject="margincast", scored=1234,
    )  # fmt: skip


@pytest.fixture
def job():
    period = SimpleNamespace(start=datetime(2026, 1, 1, tzinfo=UTC), end=datetime(2026, 2, 1))  # noqa: DTZ001 - printed only
    return SimpleNamespace(description="A job", backtest=period)


@pytest.fixture
def result():
    verdict = SimpleNamespace(passed=False, checks=[1, 2], reasons=["too often exceeded"])
    evaluations = {
        60: evaluation_of({"peer": 1.0, "margincast": 0.9}),
        480: evaluation_of({"margincast": 1.1, "peer": 1.0}),
    }
    return SimpleNamespace(verdict=verdict, evaluations=evaluations)


def test_the_verdict_stands_first_and_the_best_model_of_every_horizon_on_top(result, job):
    lines = describe_job(result, job).splitlines()
    assert lines[0].startswith("**Gate FAILED** (2 checks)")
    assert lines[1] == "- too often exceeded"
    rows = [line for line in lines if line.startswith(("| peer", "| **margincast"))]
    assert [row.split(" | ")[0] for row in rows] == [
        "| **margincast**", "| peer (reference)", "| peer (reference)", "| **margincast**"
    ]  # fmt: skip
    assert "0.900 \N{PLUS-MINUS SIGN} 0.010" in rows[0]


def test_what_has_no_room_is_named(result, job, monkeypatch):
    whole = describe_job(result, job)
    monkeypatch.setattr(run_pages, "MAXIMUM_NOTE", len(whole) - 1)
    cut = describe_job(result, job)
    assert "The table of 8h has no room here" in cut
    assert "**1h horizon**" in cut
    assert cut.endswith("among the artifacts.")
    assert len(cut) < len(whole)


def test_a_peer_sees_its_place_and_the_reference_only(result, job):
    text = describe_model(result, "peer", job)
    assert "8h horizon: place 1 of 2" in text
    assert "1h horizon: place 2 of 2" in text
    assert "| **margincast**" not in text


def test_colours_tell_models_apart_and_do_not_change_with_the_reference():
    names = ("margincast", "static", "ewma_fhs", "har_qr", "garch_evt", "caviar_sav")
    colours = {name: colour_of(name, "ewma_fhs") for name in names}
    assert len(set(colours.values())) == len(names)
    assert all(len(colour) == 7 and colour.startswith("#") for colour in colours.values())
    assert colour_of("static", "har_qr") == colours["static"]
