"""What is said to MLflow, as values: performed now, or kept in the spool and performed later.

Every operation can be performed twice to the same effect, so that one whose answer was lost, or
whose synchronisation was interrupted, is simply performed again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

RUN_KEY_TAG = "margincast.run_key"
"""A run's name of its own, given before MLflow has seen it."""
LOCAL_PREFIX = "local-"
"""Starts a run's key, which stands for its id where MLflow has given none yet."""

Resolve = Callable[[str], str]
"""From a run's id, or the key of a run kept in the spool, to its id in MLflow."""


def _named(tags: dict[str, str]) -> tuple[str, ...]:
    return tuple(text for text in tags.values() if is_local(text))


def _with_ids(tags: dict[str, str], resolve: Resolve) -> dict[str, str]:
    """Put a run's id in place of its key, which is never a tag's text for another reason."""
    return {name: resolve(text) if is_local(text) else text for name, text in tags.items()}


def is_local(run: str) -> bool:
    """Return whether a run was named while MLflow could not be reached."""
    return run.startswith(LOCAL_PREFIX)


class _Operation(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CreateRun(_Operation):
    """Open a run; ``key`` names it until MLflow has given it an id."""

    kind: Literal["create_run"] = "create_run"
    key: str
    name: str
    started: int
    """Milliseconds."""
    tags: dict[str, str]
    parent: str | None

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs it refers to."""
        return (*_named(self.tags), *(() if self.parent is None else (self.parent,)))

    def perform(self, client: MlflowClient, experiment_id: str, resolve: Resolve) -> str:
        """Open the run; returns its id."""
        tags = _with_ids(self.tags, resolve)
        if self.parent is not None:
            tags[MLFLOW_PARENT_RUN_ID] = resolve(self.parent)
        created = client.create_run(
            experiment_id,
            start_time=self.started,
            tags=tags | {RUN_KEY_TAG: self.key},
            run_name=self.name,
        )
        return str(created.info.run_id)


class _OfRun(_Operation):
    run: str

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs it refers to."""
        return (self.run,)


class LogBatch(_OfRun):
    """Write metrics, parameters and tags of a run, at most a batch of MLflow."""

    kind: Literal["log_batch"] = "log_batch"
    metrics: dict[str, float] = {}
    timestamp: int = 0
    """Milliseconds, of all metrics."""
    step: int = 0
    parameters: dict[str, str] = {}
    tags: dict[str, str] = {}

    @property
    def runs(self) -> tuple[str, ...]:
        """The runs it refers to."""
        return (self.run, *_named(self.tags))

    def perform(self, client: MlflowClient, resolve: Resolve) -> None:
        """Write them; the same metric at the same time is kept once by MLflow."""
        client.log_batch(
            resolve(self.run),
            [
                Metric(name, value, self.timestamp, self.step)
                for name, value in self.metrics.items()
            ],
            [Param(name, text) for name, text in self.parameters.items()],
            [RunTag(name, text) for name, text in _with_ids(self.tags, resolve).items()],
        )


class LogArtifact(_OfRun):
    """Copy a file, or a folder's content, into a run's artifacts."""

    kind: Literal["log_artifact"] = "log_artifact"
    folder: str | None

    def perform(self, client: MlflowClient, resolve: Resolve, path: Path) -> None:
        """Copy ``path``; what is there by the same name is replaced."""
        if path.is_dir():
            client.log_artifacts(resolve(self.run), str(path), self.folder)
        else:
            client.log_artifact(resolve(self.run), str(path), self.folder)


class DatasetRecord(_Operation):
    """A data set a run was made from, as MLflow names it."""

    name: str
    digest: str
    """At most 36 characters, MLflow's limit."""
    source: str
    """JSON."""
    schema_text: str
    """JSON."""
    profile: str
    """JSON."""
    context: str
    """What it was used for, for example ``training``."""


class LogInputs(_OfRun):
    """Name the data sets of a run."""

    kind: Literal["log_inputs"] = "log_inputs"
    datasets: tuple[DatasetRecord, ...]

    def perform(self, client: MlflowClient, resolve: Resolve) -> None:
        """Name them; a data set MLflow knows by name and digest is named once."""
        client.log_inputs(
            resolve(self.run),
            [
                DatasetInput(
                    Dataset(
                        name=dataset.name,
                        digest=dataset.digest,
                        source_type="local",
                        source=dataset.source,
                        schema=dataset.schema_text,
                        profile=dataset.profile,
                    ),
                    [InputTag(MLFLOW_DATASET_CONTEXT, dataset.context)],
                )
                for dataset in self.datasets
            ],
        )


class EndRun(_OfRun):
    """Close a run."""

    kind: Literal["end_run"] = "end_run"
    status: Literal["FINISHED", "FAILED", "KILLED"]
    ended: int
    """Milliseconds."""

    def perform(self, client: MlflowClient, resolve: Resolve) -> None:
        """Close it."""
        client.set_terminated(resolve(self.run), self.status, self.ended)


class Deferred(_OfRun):
    """A piece of work on a run that its job could not do without MLflow; the job knows how."""

    kind: Literal["deferred"] = "deferred"
    work: str
    """Which, for example ``register``."""
    body: dict[str, object]

    def resolved(self, resolve: Resolve) -> dict[str, object]:
        """Return the body with a run's id in place of its key."""
        return {
            name: resolve(value) if isinstance(value, str) and is_local(value) else value
            for name, value in self.body.items()
        }


Operation = Annotated[
    CreateRun | LogBatch | LogArtifact | LogInputs | EndRun | Deferred, Field(discriminator="kind")
]
OPERATION: TypeAdapter[Operation] = TypeAdapter(Operation)
"""Reads an operation back from its JSON."""
