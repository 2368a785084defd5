"""Runs in MLflow: where a margin's evidence (parameters, metrics, tables, trials) is kept.

Everything goes through ``MlflowClient``, which is thread-safe; MLflow's global "active run" is
never touched, so several runs can be open at once. A store that cannot be reached is an error that
says what to do, at once and not after minutes of retries.
"""

import json
import logging
import math
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import optuna
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_SOURCE_NAME
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH
from sqlalchemy.exc import SQLAlchemyError

from margincast.core.errors import InputError

MAXIMUM_METRICS = 40
"""Headline metrics a run may hold; beyond that the MLflow pages crawl (a table holds the rest)."""
TOP_TRIALS = 20
"""Child runs written for a study; the table of trials holds all of them."""
TRUNCATED_TAG = "margincast.truncated_parameters"
ERROR_TAG = "margincast.error"
EXPERIMENT_KIND_TAG = "mlflow.experimentKind"
"""Tells the MLflow UI to show the pages for model training, not those for language models."""

_LOCAL_STORE = "sqlite:///"
_SQLITE_MAGIC = b"SQLite format 3\x00"
_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PROBE_SECONDS = 3.0
_OUTAGE_CODES = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "BAD_REQUEST")
_ADVICE = (
    "start the MLflow server or check the path and its permissions, or set "
    "tracking.uri = 'sqlite:///mlruns/mlflow.db' to keep runs in the workspace"
)


class StoreUnreachableError(InputError):
    """The MLflow store is down, missing or not writable; the message says what to do."""


def resolve_uri(uri: str, workspace: Path) -> str:
    """Return a tracking URI whose SQLite path, if it was relative, starts at the workspace.

    Raises:
        InputError: a store MLflow does not accept any more (a plain folder) or does not know.
    """
    scheme = urlsplit(uri).scheme.partition("+")[0] or ("databricks" if uri == "databricks" else "")
    if scheme not in _SCHEMES:
        raise InputError(
            f"tracking.uri is {uri!r}; MLflow keeps no runs in plain folders any more: write "
            "'sqlite:///mlruns/mlflow.db', or the address of a server such as 'http://host:5000'"
        )
    if scheme != "sqlite":
        return uri
    path = uri.removeprefix(_LOCAL_STORE)
    if not uri.startswith(_LOCAL_STORE) or path in {"", ":memory:"}:
        raise InputError(
            f"tracking.uri is {uri!r}; write sqlite:/// and a file's path, for example "
            "'sqlite:///mlruns/mlflow.db'"
        )
    resolved = (workspace.resolve() / path).as_posix()
    if set("?%#") & set(resolved):
        raise InputError(
            f"the MLflow store would be {resolved}; a store's path cannot hold '?', '%' or '#', "
            "which mean something else in a URI: rename the folder"
        )
    return f"{_LOCAL_STORE}{resolved}"


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow, its database or the disk raise into errors that say what to do.

    Raises:
        StoreUnreachableError: the store or the artifact folder is down, damaged or not writable.
        InputError: the store refused the request.
    """
    try:
        yield
    except MlflowException as error:
        if error.error_code in _OUTAGE_CODES:
            raise _unreachable(uri, error) from error
        raise InputError(f"MLflow at {uri} refused: {_first_line(error)}") from error
    except (SQLAlchemyError, OSError) as error:
        raise _unreachable(uri, error) from error


def connect(uri: str, workspace: Path, *, create: bool) -> tuple[MlflowClient, str]:
    """Open a store, having first looked whether it can be opened at all.

    MLflow itself retries an unreachable database or server for minutes.

    Args:
        uri: tracking URI; a relative SQLite path starts at ``workspace``.
        workspace: the operator's folder.
        create: make a SQLite store that does not exist yet; otherwise its absence is an error.

    Returns:
        The client and the resolved URI.

    Raises:
        StoreUnreachableError: missing, damaged, not writable, or nobody listens there.
        InputError: the URI is none MLflow accepts.
    """
    resolved = resolve_uri(uri, workspace)
    # this logger prints a traceback for what becomes a StoreUnreachableError here
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with store_errors(resolved):
        if resolved.startswith(_LOCAL_STORE):
            _probe_file(Path(resolved.removeprefix(_LOCAL_STORE)), create=create)
        else:
            _probe_host(resolved)
        client = MlflowClient(tracking_uri=resolved, registry_uri=resolved)
        # the first request opens the store (and creates its tables)
        client.search_experiments(max_results=1)
    return client, resolved


class Run:
    """An open MLflow run; safe to use from several threads."""

    def __init__(self, client: MlflowClient, run_id: str, uri: str) -> None:
        self._client = client
        self._uri = uri
        self._lock = threading.Lock()
        self._metric_names: set[str] = set()
        self._truncated = 0
        self.run_id = run_id

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags; an existing one is replaced."""
        self._log(tags=[RunTag(key, value) for key, value in tags.items()])

    def log_parameters(self, parameters: Mapping[str, object]) -> int:
        """Write parameters, sections flattened to ``section.key``.

        Values beyond MLflow's limit are cut; how many is returned and kept in the run's tag
        ``margincast.truncated_parameters`` (log the spec as an artifact to keep it whole).

        Raises:
            InputError: a name MLflow does not accept, or one already logged with another value.
        """
        flat = flatten_parameters(parameters)
        logged = [Param(name, _cut(text)) for name, text in flat.items()]
        for start in range(0, len(logged), MAX_PARAMS_TAGS_PER_BATCH):
            self._log(params=logged[start : start + MAX_PARAMS_TAGS_PER_BATCH])
        truncated = sum(len(text) > MAX_PARAM_VAL_LENGTH for text in flat.values())
        if truncated:
            with self._lock:
                self._truncated += truncated
                total = self._truncated
            self.set_tags({TRUNCATED_TAG: str(total)})
        return truncated

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write headline metrics.

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
        now = _now()
        self._log(metrics=[Metric(name, float(value), now, 0) for name, value in metrics.items()])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a folder's content, into the run's artifacts.

        Raises:
            InputError: there is nothing at ``path``.
        """
        if not path.exists():
            raise InputError(f"cannot log {path}: there is no such file or folder")
        with store_errors(self._uri):
            if path.is_dir():
                self._client.log_artifacts(self.run_id, str(path), folder)
            else:
                self._client.log_artifact(self.run_id, str(path), folder)

    def log_table(self, frame: pd.DataFrame, name: str) -> None:
        """Write a table as ``<name>.csv``, which the MLflow pages show as a table."""
        with store_errors(self._uri):
            self._client.log_text(self.run_id, frame.to_csv(index=False), f"{name}.csv")

    def _log(
        self,
        metrics: list[Metric] | None = None,
        params: list[Param] | None = None,
        tags: list[RunTag] | None = None,
    ) -> None:
        with store_errors(self._uri):
            self._client.log_batch(self.run_id, metrics or [], params or [], tags or [])


class Tracker:
    """An experiment of an MLflow store, made when it does not exist.

    Args:
        uri: tracking URI; a relative SQLite path starts at ``workspace``.
        experiment: the experiment's name.
        workspace: the operator's folder. With a SQLite store artifacts go to ``mlruns/artifacts``
            in it; a server decides for itself.

    Raises:
        StoreUnreachableError: the store cannot be opened.
        InputError: the URI cannot be used, or the experiment was deleted.
    """

    def __init__(self, uri: str, experiment: str, workspace: Path) -> None:
        self.client, self.uri = connect(uri, workspace, create=True)
        artifacts: str | None = None
        with store_errors(self.uri):
            if self.uri.startswith(_LOCAL_STORE):
                folder = workspace.resolve() / "mlruns" / "artifacts"
                folder.mkdir(parents=True, exist_ok=True)
                artifacts = folder.as_uri()
            self.experiment_id = _experiment(self.client, experiment, artifacts)

    @contextmanager
    def run(
        self, name: str, tags: Mapping[str, str] | None = None, parent: Run | None = None
    ) -> Iterator[Run]:
        """Open a run for the length of a ``with`` block.

        It ends FINISHED, FAILED after an exception (kept in the tag ``margincast.error``), or
        KILLED after an interrupt from the keyboard; the exception itself is passed on.
        """
        run = self._start(name, tags or {}, parent, _now())
        try:
            yield run
        except KeyboardInterrupt:
            with suppress(InputError):
                self._end(run, RunStatus.KILLED)
            raise
        except BaseException as error:
            # a store that fails now must not hide why the run failed
            with suppress(InputError):
                run.set_tags({ERROR_TAG: f"{type(error).__name__}: {error}"[:500]})
                self._end(run, RunStatus.FAILED)
            raise
        else:
            self._end(run, RunStatus.FINISHED)

    def log_trials(self, study: optuna.Study, parent: Run, top: int = TOP_TRIALS) -> int:
        """Write a study below a run: its best trials as child runs, all trials as a table.

        Args:
            study: a study of one objective.
            parent: the run whose children the trials become; gets the table ``trials.csv``, which
                keeps pruned, failed and unfinished trials too.
            top: at most this many finished trials become child runs, best first.

        Returns:
            How many child runs were written.

        Raises:
            InputError: the study has more than one objective.
        """
        if len(study.directions) != 1:
            raise InputError(
                f"study {study.study_name!r} has {len(study.directions)} objectives; trials are "
                "ranked by one"
            )
        sign = -1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1.0
        finished = [
            (sign * trial.value, trial.number, trial)
            for trial in study.get_trials(
                deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)
            )
            if trial.value is not None and math.isfinite(trial.value)
        ]
        best = [trial for _, _, trial in sorted(finished, key=lambda item: item[:2])[:top]]
        for trial in best:
            self._log_trial(trial, parent)
        parent.log_table(
            study.trials_dataframe(
                attrs=("number", "state", "value", "params", "user_attrs", "duration")
            ),
            "trials",
        )
        return len(best)

    def _log_trial(self, trial: optuna.trial.FrozenTrial, parent: Run) -> None:
        started = _milliseconds(trial.datetime_start)
        tags = {"trial_number": str(trial.number), "trial_state": trial.state.name}
        child = self._start(f"trial-{trial.number}", tags, parent, started)
        child.log_parameters(trial.params)
        if trial.value is not None:
            child.log_metrics({"objective": trial.value})
        self._end(child, RunStatus.FINISHED, _milliseconds(trial.datetime_complete))

    def _start(
        self, name: str, tags: Mapping[str, str], parent: Run | None, started: int | None
    ) -> Run:
        all_tags = {MLFLOW_SOURCE_NAME: "margincast", **tags}
        if parent is not None:
            all_tags[MLFLOW_PARENT_RUN_ID] = parent.run_id
        with store_errors(self.uri):
            created = self.client.create_run(
                self.experiment_id, start_time=started, tags=all_tags, run_name=name
            )
        return Run(self.client, created.info.run_id, self.uri)

    def _end(self, run: Run, status: int, ended: int | None = None) -> None:
        with store_errors(self.uri):
            self.client.set_terminated(run.run_id, RunStatus.to_string(status), ended)


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


def _now() -> int:
    return time.time_ns() // 1_000_000


def _milliseconds(instant: datetime | None) -> int | None:
    """Optuna's times have no timezone and are local, as ``timestamp`` takes them."""
    return None if instant is None else int(instant.timestamp() * 1000)


def _experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            tags = {EXPERIMENT_KIND_TAG: "custom_model_development"}
            return str(client.create_experiment(name, artifacts, tags))
        except MlflowException as error:
            # another process made it since we looked
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != LifecycleStage.ACTIVE:
        raise InputError(
            f"experiment {name!r} was deleted in this MLflow store; restore it ('mlflow "
            "experiments restore') or choose another tracking.experiment"
        )
    return str(found.experiment_id)


def _probe_file(path: Path, *, create: bool) -> None:
    if not create and not path.exists():
        raise StoreUnreachableError(
            f"there is no MLflow store at {path}; train a model first, or check tracking.uri"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # opened to append: fails now if the store cannot be written, and changes nothing
    with path.open("ab"):
        pass
    with path.open("rb") as stream:
        start = stream.read(len(_SQLITE_MAGIC))
    if start not in (b"", _SQLITE_MAGIC):
        raise StoreUnreachableError(
            f"{path} is not an MLflow store (not an SQLite file); move it away or check "
            "tracking.uri"
        )


def _probe_host(uri: str) -> None:
    parts = urlsplit(uri)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), timeout=_PROBE_SECONDS).close()


def _unreachable(uri: str, error: Exception) -> StoreUnreachableError:
    return StoreUnreachableError(
        f"MLflow at {_without_password(uri)} cannot be used ({_first_line(error)}); {_ADVICE}"
    )


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return uri.replace(f":{parts.password}@", ":***@") if parts.password else uri


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
