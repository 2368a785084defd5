"""What MLflow's pages are told of an experiment: views renewed, a person's words left alone."""

import json

import pytest

from margincast.training.tracking import Tracker
from margincast.training.tracking.pages import (
    NOTE_TAG,
    PRIMARY_METRIC_TAG,
    VIEW_TAG,
    Chart,
    Column,
    View,
    show_experiment,
    view_page,
)

COLUMNS = [Column("tags", "margincast.model", 100), Column("metrics", "loss/0.99", 120)]
CHARTS = [Chart("Loss", "loss/0.99"), Chart("Both", "loss/0.99", "rise"), Chart("Loss", "loss/0.9")]


def view_of(search):
    return View("latest", "Latest", search, "metrics.`loss`", "smallest", COLUMNS, CHARTS)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory, migrated_store):
    workspace = tmp_path_factory.mktemp("pages")
    migrated_store(workspace)
    return Tracker("sqlite:///mlruns/mlflow.db", "demo", workspace)


def tags(tracker):
    return tracker.client.get_experiment(tracker.experiment_id).tags


def test_a_view_is_renewed_and_a_description_that_somebody_wrote_is_kept(tracker):
    show_experiment(tracker, "ours", [view_of("first")], "loss")
    assert tags(tracker)[NOTE_TAG] == "ours"
    assert tags(tracker)[PRIMARY_METRIC_TAG] == "loss"
    tracker.client.set_experiment_tag(tracker.experiment_id, NOTE_TAG, "theirs")
    show_experiment(tracker, "ours", [view_of("second")], "loss")
    assert tags(tracker)[NOTE_TAG] == "theirs"
    kept = json.loads(tags(tracker)[f"{VIEW_TAG}latest"])
    assert json.loads(kept["state"])["searchFilter"] == "second"


def test_a_view_states_columns_in_order_and_charts_in_their_sections():
    key, text = view_of("").as_tag(1)
    envelope = json.loads(text)
    state = json.loads(envelope["state"])
    assert key == f"{VIEW_TAG}latest"
    assert (envelope["name"], envelope["createdAt"]) == ("Latest", 1)
    assert state["orderByAsc"] is True
    assert state["selectedColumns"] == ["tags.`margincast.model`", "metrics.`loss/0.99`"]
    assert state["columnOrder"][-2:] == state["selectedColumns"]
    assert state["columnWidths"]["metrics.`loss/0.99`"] == 120
    assert [section["name"] for section in state["compareRunSections"]] == ["Loss", "Both"]
    bar, points, _ = state["compareRunCharts"]
    assert (bar["type"], bar["metricKey"]) == ("BAR", "loss/0.99")
    assert (points["type"], points["yaxis"]["key"]) == ("SCATTER", "rise")
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == 3


def test_the_address_of_a_view_leaves_language_models_out():
    assert view_page("7", "latest") == (
        "#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=latest"
    )
