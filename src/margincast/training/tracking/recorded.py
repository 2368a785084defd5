"""Runs read back from the MLflow store: found by id, name, or the model version made of them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from margincast.core.errors import InputError
from margincast.training.tracking.store import connect, store_errors

KIND_TAG = "margincast.kind"
_ID = re.compile(r"[0-9a-f]{6,32}")
_WHOLE_ID = 32
_VERSION = re.compile(r"(?P<model>[A-Za-z0-9][A-Za-z0-9._-]*)(/(?P<version>\d+)|@(?P<alias>\w+))")
_MOST_LISTED = 10


@dataclass(frozen=True)
class RecordedRun:
    """A run as MLflow holds it.

    Attributes:
        run_id: its id.
        name: its name.
        started: UTC.
        tags: by name, MLflow's own too.
        metrics: last value by name.
        parameters: texts by name, sections flattened.
    """

    run_id: str
    name: str
    started: datetime
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    parameters: Mapping[str, str]

    @property
    def kind(self) -> str:
        """What it records: ``model``, ``training job``, ``trial``; empty if it is none of ours."""
        return self.tags.get(KIND_TAG, "")

    @property
    def label(self) -> str:
        """Name and start of the id, as an error lists it."""
        return f"{self.name} ({self.run_id[:8]})"


class RecordedRuns:
    """The runs of a store, to be read.

    Args:
        uri: tracking URI; a relative SQLite path starts at ``workspace``.
        workspace: the operator's folder.

    Raises:
        StoreUnreachableError: there is no store, or it cannot be used.
    """

    def __init__(self, uri: str, workspace: Path) -> None:
        self._client, self._uri = connect(uri, workspace, create=False)

    def find(self, reference: str) -> RecordedRun:
        """Return the one run that a reference means.

        Args:
            reference: a run's id or its first six characters and more; its name or the start of it;
                a version (``perp-8h/3``) or alias (``perp-8h@champion``) of a registered model.

        Raises:
            InputError: no such run, or several: the message lists them.
        """
        with store_errors(self._uri):
            found = self._by_version(reference) or self._by_id(reference)
            found = found or self._by_name(reference)
        if not found:
            raise InputError(
                f"there is no run {reference!r}; give a run's id, its name (or the start of it), a "
                "model version such as 'perp-8h/3', or an alias such as 'perp-8h@champion'; "
                "`margincast ui` shows all"
            )
        if len(found) > 1:
            listed = "\n".join(
                f"  {run.run_id}  {run.started:%F %T}  {run.name}" for run in found[:_MOST_LISTED]
            )
            more = f"\n  and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
            raise InputError(
                f"{reference!r} means {len(found)} runs, newest first; give an id:\n{listed}{more}"
            )
        return found[0]

    def run(self, run_id: str) -> RecordedRun:
        """Return a run.

        Raises:
            InputError: there is none with that id.
        """
        with store_errors(self._uri):
            return _recorded(self._client.get_run(run_id))

    def with_tag(self, name: str, text: str) -> list[RecordedRun]:
        """Return runs that carry a tag, newest first."""
        with store_errors(self._uri):
            return self._search(f"tags.`{name}` = {_quoted(text)}")

    @contextmanager
    def artifact(self, run: RecordedRun, name: str) -> Iterator[Path]:
        """Have a copy of a run's file for the length of a ``with`` block.

        Raises:
            InputError: the run has no such file, or it cannot be fetched.
        """
        with TemporaryDirectory() as folder:
            try:
                with store_errors(self._uri):
                    path = Path(self._client.download_artifacts(run.run_id, name, folder))
            except InputError as error:
                raise InputError(f"{run.label} has no {name} to fetch: {error}") from error
            yield path

    def _by_version(self, reference: str) -> list[RecordedRun]:
        match = _VERSION.fullmatch(reference)
        if match is None:
            return []
        model, version, alias = match["model"], match["version"], match["alias"]
        try:
            found = (
                self._client.get_model_version(model, version)
                if version
                else self._client.get_model_version_by_alias(model, alias)
            )
        except MlflowException as error:
            # an unknown alias is reported as an invalid parameter, an unknown model as missing
            if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return []
            raise
        return [_recorded(self._client.get_run(str(found.run_id)))]

    def _by_id(self, reference: str) -> list[RecordedRun]:
        if _ID.fullmatch(reference) is None:
            return []
        if len(reference) == _WHOLE_ID:
            return self._search(f"attributes.run_id = '{reference}'")
        return self._search(f"attributes.run_id LIKE '{reference}%'")

    def _by_name(self, reference: str) -> list[RecordedRun]:
        named = self._search(f"attributes.run_name = {_quoted(reference)}")
        return named or self._search(f"attributes.run_name LIKE {_quoted(reference + '%')}")

    def _search(self, query: str) -> list[RecordedRun]:
        experiments = _experiment_ids(self._client)
        found: list[RecordedRun] = []
        token: str | None = None
        while token != "":
            page = self._client.search_runs(
                experiments,
                query,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            found += [_recorded(run) for run in page]
            token = page.token or ""
        return found


def _experiment_ids(client: MlflowClient) -> list[str]:
    found: list[str] = []
    token: str | None = None
    while token != "":
        page = client.search_experiments(page_token=token)
        found += [experiment.experiment_id for experiment in page]
        token = page.token or ""
    return found


def _recorded(run: MlflowRun) -> RecordedRun:
    return RecordedRun(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        started=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        tags=dict(run.data.tags),
        metrics=dict(run.data.metrics),
        parameters=dict(run.data.params),
    )


def _quoted(text: str) -> str:
    """Quote a text for MLflow's search language, which has no way to escape a quote."""
    if "'" not in text:
        return f"'{text}'"
    if '"' in text:
        raise InputError(f"{text!r} holds both kinds of quotes; give the run's id")
    return f'"{text}"'
