"""Tells MLflow what a job logs; from the moment that fails, keeps it in the spool instead.

A job of hours is not lost because its tracking server restarts. Once one operation could not be
told, all later ones of the session are kept too, so that their order stands.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient

from margincast.training.tracking.address import StoreUnreachableError
from margincast.training.tracking.operations import (
    CreateRun,
    Deferred,
    EndRun,
    LogArtifact,
    LogBatch,
    LogInputs,
    Operation,
    is_local,
)
from margincast.training.tracking.spool import Session, Target
from margincast.training.tracking.store import store_errors


class Outbox:
    """What leaves a job for MLflow; safe to use from several threads.

    Args:
        client: of the open store.
        uri: the store's.
        experiment_id: the experiment's id.
        target: store and experiment, as the spool names them.
        workspace: folder below which the spool lies.
        on_outage: told once a session when operations begin to be kept.
    """

    def __init__(
        self,
        client: MlflowClient,
        uri: str,
        experiment_id: str,
        *,
        target: Target,
        workspace: Path,
        on_outage: Callable[[str], None],
    ) -> None:
        self._client = client
        self._uri = uri
        self._target = target
        self._experiment_id = experiment_id
        self._workspace = workspace
        self._on_outage = on_outage
        self._lock = threading.RLock()
        self._users = 0
        self._session: Session | None = None
        self._outage = ""

    @property
    def outage(self) -> str:
        """Why operations are kept in the spool; empty while MLflow is told."""
        return self._outage

    @contextmanager
    def session(self) -> Iterator[None]:
        """Hold a session of the spool; within one, the same."""
        with self._lock:
            if self._session is None:
                try:
                    self._session = Session.begin(self._workspace, self._target)
                except OSError as error:
                    raise self._no_spool(error) from error
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._held.release()
                    self._session, self._outage = None, ""

    def create(self, operation: CreateRun) -> str:
        """Open a run; returns its id, or its key where MLflow could not be told."""
        told: list[str] = []

        def tell() -> None:
            told.append(operation.perform(self._client, self._experiment_id, str))

        run = told[0] if self._told(operation, tell) else self._keep(operation, None, operation.key)
        with self._writing():
            self._held.opened(run)
        return run

    def send(self, operation: LogBatch | LogInputs | EndRun) -> None:
        """Tell MLflow, or keep it.

        Raises:
            InputError: MLflow refused it.
            StoreUnreachableError: neither MLflow nor the spool took it.
        """
        if not self._told(operation, lambda: operation.perform(self._client, str)):
            self._keep(operation, None)
        if isinstance(operation, EndRun):
            with self._writing():
                self._held.closed(operation.run)

    def send_artifact(self, operation: LogArtifact, path: Path) -> None:
        """Copy a file or folder to MLflow, or to the spool; see :meth:`send`."""
        if not self._told(operation, lambda: operation.perform(self._client, str, path)):
            self._keep(operation, path)

    def defer(self, operation: Deferred, path: Path) -> None:
        """Keep a piece of work for ``margincast sync``; everything after it is kept too.

        Raises:
            StoreUnreachableError: the spool could not take it.
        """
        with self._lock:
            self._begin_outage(f"{operation.work} could not be done")
            self._keep(operation, path)

    @property
    def _held(self) -> Session:
        assert self._session is not None, "operations belong to a run, and a run to a session"
        return self._session

    def _told(self, operation: Operation, tell: Callable[[], None]) -> bool:
        """Tell MLflow, unless operations before this one are being kept."""
        with self._lock, self._writing():
            self._held.alive()
            if self._outage:
                return False
            if any(is_local(run) for run in operation.runs):
                # a run that an earlier session kept
                self._begin_outage("the run itself is kept in the spool")
                return False
        try:
            with store_errors(self._uri):
                tell()
        except StoreUnreachableError as error:
            with self._lock:
                self._begin_outage(str(error))
            return False
        return True

    def _begin_outage(self, reason: str) -> None:
        if not self._outage:
            self._outage = reason
            self._on_outage(
                f"{reason}. From here on the job's runs are kept in {self._held.folder}; "
                "`margincast sync` brings them to MLflow"
            )

    def _keep(self, operation: Operation, path: Path | None, run: str = "") -> str:
        with self._lock, self._writing():
            self._held.keep(operation, path)
        return run

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._no_spool(error) from error

    def _no_spool(self, error: OSError) -> StoreUnreachableError:
        reason = f"{self._outage}. Also, the" if self._outage else "the"
        return StoreUnreachableError(
            f"{reason} spool below {self._workspace / 'mlruns'} cannot be written ({error}); free "
            "space or mend its permissions and run the same command again: what was finished is "
            "kept"
        )
