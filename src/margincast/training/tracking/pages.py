"""What MLflow's pages show of an experiment: its description, and views that everybody finds.

A view is a choice of runs, columns and order. MLflow keeps those that people save as tags of the
experiment, and lists them under "Views"; so can we, and a run's evidence is one click away.
"""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from mlflow.utils.validation import MAX_TAG_VAL_LENGTH

from margincast.training.tracking.address import StoreUnreachableError
from margincast.training.tracking.store import store_errors
from margincast.training.tracking.tracker import Tracker

NOTE_TAG = MLFLOW_RUN_NOTE
"""Description of a run or an experiment, Markdown."""
MAXIMUM_NOTE = MAX_TAG_VAL_LENGTH
"""Characters of a run's description; MLflow cuts off what is longer."""
COLOUR_TAG = "mlflow.runColor"
"""A run's colour in tables and charts, as ``#rrggbb``."""
PRIMARY_METRIC_TAG = "mlflow.experiment.primaryMetric.name"
VIEW_TAG = "mlflow.sharedViewState."
_MODEL_PAGES = "workflowType=machine_learning"
"""Without it MLflow opens an experiment on its pages for language models."""


@dataclass(frozen=True)
class Column:
    """A column of the table of runs: ``metrics``, ``tags``, ``params`` or ``attributes``."""

    kind: str
    name: str
    width: int
    """Pixels."""

    @property
    def key(self) -> str:
        """The column as MLflow's pages call it."""
        return f"{self.kind}.`{self.name}`"


@dataclass(frozen=True)
class Chart:
    """A chart of a view: bars of a metric, or points of two.

    Attributes:
        section: heading it stands below.
        metric: the bars, or the horizontal axis.
        against: the vertical axis; empty for bars.
    """

    section: str
    metric: str
    against: str = ""

    def as_state(self, number: int) -> dict[str, object]:
        """Return the chart as MLflow's pages keep it."""
        state: dict[str, object] = {
            "uuid": f"chart-{number}",
            "metricSectionId": self.section,
            "deleted": False,
            "isGenerated": False,
            "runsCountToCompare": 20,
        }
        if not self.against:
            return state | {"type": "BAR", "metricKey": self.metric}
        axes = {"xaxis": self.metric, "yaxis": self.against}
        return state | {
            "type": "SCATTER",
            **{axis: {"key": metric, "type": "METRIC"} for axis, metric in axes.items()},
        }


@dataclass(frozen=True)
class View:
    """A view of an experiment's runs.

    Attributes:
        key: in its address.
        name: in the menu.
        search: which runs, in MLflow's search language.
        order_by: the column they are ordered by.
        first: which end of that order comes first.
        columns: shown, from left to right, after the run's name and its time.
        charts: of its chart view; MLflow makes one a metric where there is none.
    """

    key: str
    name: str
    search: str
    order_by: str
    first: Literal["smallest", "largest"]
    columns: Sequence[Column]
    charts: Sequence[Chart] = ()

    def as_tag(self, now: int) -> tuple[str, str]:
        """Return the experiment's tag; ``now`` in milliseconds."""
        keys = [column.key for column in self.columns]
        leading = {"attributes.`Run Name`": 280, "runDateAndNestInfo": 150}
        state: dict[str, object] = {
            "searchFilter": self.search,
            "orderByKey": self.order_by,
            "orderByAsc": self.first == "smallest",
            "selectedColumns": keys,
            "columnOrder": [*leading, *keys],
            "columnWidths": leading | {column.key: column.width for column in self.columns},
            "runsHiddenMode": "SHOW_ALL",
        }
        if self.charts:
            sections = dict.fromkeys(chart.section for chart in self.charts)
            shown = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
            state |= {
                "compareRunCharts": [c.as_state(number) for number, c in enumerate(self.charts)],
                "isAccordionReordered": True,  # or sections stand in the order of the alphabet
                "compareRunSections": [{"uuid": name, "name": name} | shown for name in sections],
            }
        view = {"name": self.name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
        return f"{VIEW_TAG}{self.key}", json.dumps(view)


def show_experiment(
    tracker: Tracker, description: str, views: Sequence[View], primary_metric: str
) -> None:
    """Keep an experiment's views up to date, and describe it unless somebody has.

    The primary metric is the one that MLflow's own charts begin with.

    Pages are no evidence: where MLflow cannot be told they are left as they were.
    """
    if tracker.outage:
        return
    now = time.time_ns() // 1_000_000
    tags = {PRIMARY_METRIC_TAG: primary_metric} | dict(view.as_tag(now) for view in views)
    with suppress(StoreUnreachableError), store_errors(tracker.uri):
        found = tracker.client.get_experiment(tracker.experiment_id)
        if NOTE_TAG not in found.tags:
            tags[NOTE_TAG] = description
        for name, text in tags.items():
            tracker.client.set_experiment_tag(tracker.experiment_id, name, text)


def view_page(experiment_id: str, key: str) -> str:
    """Return a view's page, as a link within MLflow's pages."""
    return f"{experiment_page(experiment_id)}&viewStateShareKey={quote(key)}"


def experiment_page(experiment_id: str) -> str:
    """Return the table of an experiment's runs, as a link within MLflow's pages."""
    return f"#/experiments/{experiment_id}/runs?{_MODEL_PAGES}"


def run_page(experiment_id: str, run_id: str) -> str:
    """Return a run's page, as a link within MLflow's pages."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def pages_of_models() -> str:
    """Return the list of experiments, as a link that leaves language models out."""
    return f"#/experiments?{_MODEL_PAGES}"
