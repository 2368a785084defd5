"""An open MLflow run: the parameters, metrics, tables and files that are a margin's evidence."""

import json
import math
import tempfile
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

from margincast.core.errors import InputError
from margincast.training.tracking.clock import RunClock
from margincast.training.tracking.operations import (
    DatasetRecord,
    LogArtifact,
    LogBatch,
    LogInputs,
)
from margincast.training.tracking.outbox import Outbox

MAXIMUM_METRICS = 40
"""Headline metrics a run may hold; beyond that the MLflow pages crawl (a table holds the rest)."""
TRUNCATED_TAG = "margincast.truncated_parameters"


class Run:
    """An open run; safe to use from several threads. Other processes attach to it by its id.

    Attributes:
        run_id: its id in MLflow; a key of its own while MLflow does not know it
            (:mod:`margincast.training.tracking.spool`).
    """

    def __init__(
        self, outbox: Outbox, run_id: str, clock: RunClock, metric_names: Collection[str] = ()
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._lock = threading.Lock()
        self._metric_names = set(metric_names)
        self._truncated = 0
        self.run_id = run_id

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags; an existing one is replaced."""
        self._outbox.send(LogBatch(run=self.run_id, tags=dict(tags)))

    def log_parameters(self, parameters: Mapping[str, object]) -> int:
        """Write parameters, sections flattened to ``section.key``.

        Values beyond MLflow's limit are cut; how many is returned and kept in the run's tag
        ``margincast.truncated_parameters`` (log the spec as an artifact to keep it whole).

        Raises:
            InputError: a name MLflow does not accept, or one already logged with another value.
        """
        flat = flatten_parameters(parameters)
        logged = [(name, _cut(text)) for name, text in flat.items()]
        for start in range(0, len(logged), MAX_PARAMS_TAGS_PER_BATCH):
            batch = dict(logged[start : start + MAX_PARAMS_TAGS_PER_BATCH])
            self._outbox.send(LogBatch(run=self.run_id, parameters=batch))
        truncated = sum(len(text) > MAX_PARAM_VAL_LENGTH for text in flat.values())
        if truncated:
            with self._lock:
                self._truncated += truncated
                total = self._truncated
            self.set_tags({TRUNCATED_TAG: str(total)})
        return truncated

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Write headline metrics.

        Args:
            metrics: finite values by name.
            step: place on the horizontal axis, where a metric is logged more than once.

        Raises:
            InputError: a value is not finite (a metric that is not known is left out, not logged
                as NaN), or the run would hold more than 40 metrics. Nothing is written then.
        """
        unknown = sorted(name for name, value in metrics.items() if not math.isfinite(value))
        if unknown:
            raise InputError(
                f"metric(s) {', '.join(unknown)} are not finite numbers; leave out a metric that "
                "is not known, and say why in a tag or table"
            )
        with self._lock:
            names = self._metric_names | set(metrics)
            if len(names) > MAXIMUM_METRICS:
                raise InputError(
                    f"a run holds at most {MAXIMUM_METRICS} headline metrics, found {len(names)}; "
                    "log the rest as a table (log_table)"
                )
            self._metric_names = names
        values = {name: float(value) for name, value in metrics.items()}
        now = self._clock.now()
        self._outbox.send(LogBatch(run=self.run_id, metrics=values, timestamp=now, step=step))

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a folder's content, into the run's artifacts.

        Raises:
            InputError: there is nothing at ``path``.
        """
        if not path.exists():
            raise InputError(f"cannot log {path}: there is no such file or folder")
        self._outbox.send_artifact(LogArtifact(run=self.run_id, folder=folder), path)

    def log_table(self, frame: pd.DataFrame, name: str) -> None:
        """Write a table as ``<name>.csv``, which the MLflow pages show as a table."""
        self.log_text(frame.to_csv(index=False), f"{name}.csv")

    def log_record(self, record: object, name: str) -> None:
        """Write a JSON-like value as ``<name>.json``."""
        self.log_text(json.dumps(record, indent=1) + "\n", f"{name}.json")

    def log_figure(self, figure: Figure, name: str) -> None:
        """Write a figure as ``<name>.png``."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / Path(f"{name}.png").name
            figure.savefig(path, dpi=120, bbox_inches="tight")
            self.log_artifact(path, _folder_of(name))

    def log_text(self, text: str, name: str) -> None:
        """Write a text as the artifact ``name``, which may name folders."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / Path(name).name
            path.write_text(text, encoding="utf-8")
            self.log_artifact(path, _folder_of(name))

    def log_datasets(self, datasets: Sequence[DatasetRecord]) -> None:
        """Name the data the run was made from."""
        self._outbox.send(LogInputs(run=self.run_id, datasets=tuple(datasets)))


def flatten_parameters(parameters: Mapping[str, object]) -> dict[str, str]:
    """Return nested sections as one level of texts, ``{"section.key": value}``.

    >>> flatten_parameters({"target": {"levels": [0.99, 0.995]}, "seed": 7})
    {'target.levels': '[0.99, 0.995]', 'seed': '7'}
    """
    flat: dict[str, str] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            inner = flatten_parameters(value)
            flat |= {f"{name}.{key}": text for key, text in inner.items()}
        elif value is None or isinstance(value, bool | int | float | list | tuple):
            flat[name] = json.dumps(value, default=str)
        else:
            flat[name] = str(value)
    return flat


def _cut(text: str) -> str:
    mark = "..."
    if len(text) <= MAX_PARAM_VAL_LENGTH:
        return text
    return text[: MAX_PARAM_VAL_LENGTH - len(mark)] + mark


def _folder_of(name: str) -> str | None:
    return str(Path(name).parent) if "/" in name else None
