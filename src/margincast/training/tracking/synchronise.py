"""Brings what the spool kept to MLflow, in order and with its own times; begun again, it goes on.

Also closes the runs of processes that were killed, which would otherwise run for ever.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import RunStatus

from margincast.core.errors import InputError
from margincast.training.tracking.operations import (
    RUN_KEY_TAG,
    CreateRun,
    Deferred,
    LogArtifact,
    is_local,
)
from margincast.training.tracking.spool import Entry, Session, Target, waiting_sessions
from margincast.training.tracking.store import store_errors

ERROR_TAG = "margincast.error"
KILLED = "its process ended without closing the run"

Work = Callable[[dict[str, object], str, Path], None]
"""A deferred piece of work: from its body, its run's id and its folder."""


@dataclass
class Replay:
    """Operations of one experiment, performed after the event.

    Args:
        client: of the open store.
        uri: the store's.
        experiment_id: the experiment's id.
        works: how deferred work is done, by its name.
    """

    client: MlflowClient
    uri: str
    experiment_id: str
    works: Mapping[str, Work]
    _ids: dict[str, str] = field(default_factory=dict)

    def synchronise(self, session: Session, on_operation: Callable[[], None]) -> int:
        """Perform a held session's operations, close its runs and remove it.

        Returns:
            How many operations were performed.

        Raises:
            StoreUnreachableError: MLflow cannot be reached; what was done stays done.
            InputError: MLflow refused an operation, or the journal is damaged.
        """
        count = 0
        for entry in session.entries():
            try:
                self._perform(entry)
            except InputError as error:
                # the same kind of error, with the place: what is down is not what was refused
                raise type(error)(
                    f"{session.folder / 'journal.jsonl'}, operation {entry.number} "
                    f"({entry.operation.kind}): {error}"
                ) from error
            session.synchronised(entry.number)
            count += 1
            on_operation()
        close_open_runs(session, self.client, self.uri, self._id_of)
        session.remove()
        return count

    def _perform(self, entry: Entry) -> None:
        operation = entry.operation
        with store_errors(self.uri):
            if isinstance(operation, CreateRun):
                # there already where the answer, and nothing else, was lost
                run = self._find(operation.key) or operation.perform(
                    self.client, self.experiment_id, self._id_of
                )
                self._ids[operation.key] = run
            elif isinstance(operation, LogArtifact):
                operation.perform(self.client, self._id_of, _there(entry))
            elif isinstance(operation, Deferred):
                if operation.work not in self.works:
                    raise InputError(f"nobody here knows how to {operation.work}")
                work = self.works[operation.work]
                body = operation.resolved(self._id_of)
                work(body, self._id_of(operation.run), _there(entry))
            else:
                operation.perform(self.client, self._id_of)

    def _id_of(self, run: str) -> str:
        if not is_local(run):
            return run
        found = self._ids.get(run) or self._find(run)
        if found is None:
            raise InputError(
                f"run {run} is not in MLflow yet; its own job may still be running: synchronise "
                "again when it has ended"
            )
        self._ids[run] = found
        return found

    def _find(self, key: str) -> str | None:
        found = self.client.search_runs(
            [self.experiment_id], f"tags.`{RUN_KEY_TAG}` = '{key}'", max_results=1
        )
        return str(found[0].info.run_id) if found else None


def close_open_runs(
    session: Session, client: MlflowClient, uri: str, id_of: Callable[[str], str]
) -> int:
    """End the runs that a killed process left open, as KILLED at its last sign of life.

    Returns:
        How many.
    """
    count = 0
    for run in session.open_runs():
        with store_errors(uri):
            run_id = id_of(run)
            info = client.get_run(run_id).info
            if info.status == RunStatus.to_string(RunStatus.RUNNING):
                client.set_tag(run_id, ERROR_TAG, KILLED)
                ended = max(session.last_alive(), info.start_time)
                client.set_terminated(run_id, RunStatus.to_string(RunStatus.KILLED), ended)
                count += 1
        session.closed(run)
    return count


def close_runs_of_killed(workspace: Path, target: Target, client: MlflowClient, uri: str) -> int:
    """End the runs that killed processes left open in a store that could be told everything else.

    Returns:
        How many.
    """
    count = 0
    for session in waiting_sessions(workspace):
        # a session that cannot be read, or waits with operations, is for `margincast sync` to tell
        with suppress(InputError, FileNotFoundError):
            if session.target == target and not session.has_journal and session.hold():
                try:
                    count += close_open_runs(session, client, uri, str)
                finally:
                    session.release()
    return count


def _there(entry: Entry) -> Path:
    if entry.path is None or not entry.path.exists():
        raise InputError(f"{entry.path} is missing; restore it, or remove its line to give it up")
    return entry.path
