"""The open MLflow store: a client, the experiment, and errors that say what to do.

Everything goes through ``MlflowClient``, which is thread-safe; MLflow's global "active run" is
never touched, so several runs can be open at once. A store that cannot be reached is an error at
once, and not after minutes of retries.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from margincast.core.errors import InputError
from margincast.training.tracking.address import (
    StoreUnreachableError,
    is_server,
    require_reachable,
    resolve_uri,
    without_password,
)

EXPERIMENT_KIND_TAG = "mlflow.experimentKind"
"""Tells the MLflow UI to show the pages for model training, not those for language models."""

_OUTAGE_CODES = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "BAD_REQUEST")
_ADVICE = (
    "start the MLflow server or check the path and its permissions, or set "
    "tracking.uri = 'sqlite:///mlruns/mlflow.db' to keep runs in the workspace"
)


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow, its database or the disk raise into errors that say what to do.

    Raises:
        StoreUnreachableError: the store or the artifact folder is down, damaged or not writable.
        InputError: the store refused the request, or its driver is not installed.
    """
    try:
        yield
    except MlflowException as error:
        if error.error_code in _OUTAGE_CODES:
            raise _unreachable(uri, error) from error
        raise InputError(f"MLflow at {without_password(uri)} refused: {first_line(error)}") from (
            error
        )
    except (SQLAlchemyError, OSError) as error:
        raise _unreachable(uri, error) from error
    except ImportError as error:
        raise InputError(
            f"MLflow at {without_password(uri)} needs a driver that is not installed "
            f"({first_line(error)}); for PostgreSQL: pip install 'margincast[postgres]'"
        ) from error


def connect(uri: str, workspace: Path, *, create: bool) -> tuple[MlflowClient, str]:
    """Open a store, having first looked whether it can be opened at all.

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
        require_reachable(resolved, create=create)
        client = MlflowClient(tracking_uri=resolved, registry_uri=resolved)
        # the first request opens the store (and creates its tables)
        client.search_experiments(max_results=1)
    return client, resolved


def open_experiment(client: MlflowClient, uri: str, name: str, workspace: Path) -> str:
    """Return an experiment's id; it is made where there is none.

    Without a server artifacts go to ``mlruns/artifacts`` of the workspace, wherever one stands; a
    server decides for itself.

    Raises:
        StoreUnreachableError: the store, or the artifact folder, cannot be used.
        InputError: the experiment was deleted.
    """
    with store_errors(uri):
        artifacts: str | None = None
        if not is_server(uri):
            folder = workspace.resolve() / "mlruns" / "artifacts"
            folder.mkdir(parents=True, exist_ok=True)
            artifacts = folder.as_uri()
        return _experiment(client, name, artifacts)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its name where it has none.

    Of a database's error it is what the database itself said.
    """
    origin = error.__cause__ if isinstance(error.__cause__, DBAPIError) else error
    text = str(origin.orig if isinstance(origin, DBAPIError) else error)
    lines = text.strip().splitlines()
    return lines[0] if lines else type(error).__name__


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


def _unreachable(uri: str, error: Exception) -> StoreUnreachableError:
    return StoreUnreachableError(
        f"MLflow at {without_password(uri)} cannot be used ({first_line(error)}); {_ADVICE}"
    )
