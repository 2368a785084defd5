"""``margincast sync``: tell MLflow what jobs kept in the spool while it could not be reached."""

from dataclasses import dataclass
from pathlib import Path

from margincast.core.errors import InputError
from margincast.jobs.console import output, progress
from margincast.jobs.registration import REGISTER, ModelRegistry
from margincast.training.tracking import connect
from margincast.training.tracking.spool import Session, waiting_sessions
from margincast.training.tracking.store import open_experiment
from margincast.training.tracking.synchronise import Replay

HIDDEN_PASSWORD = "***"  # noqa: S105  # stands for one that was not kept


@dataclass(frozen=True)
class Synchronised:
    """What a synchronisation did.

    Attributes:
        sessions: jobs whose runs are in MLflow now.
        operations: what was told of them.
        registered: sentences on the models that were registered.
        running: jobs that still run and were left alone.
    """

    sessions: int
    operations: int
    registered: tuple[str, ...]
    running: int


def run(workspace: Path, uri: str | None) -> Synchronised:
    """Synchronise every session of a workspace whose job has ended, oldest first.

    Args:
        workspace: the operator's folder.
        uri: the store to tell, if it is not the one the jobs used.

    Raises:
        StoreUnreachableError: MLflow still cannot be reached; the same command goes on later.
        InputError: MLflow refused something, or the spool is damaged; names the line.
    """
    sessions, operations, running, registered = 0, 0, 0, []
    for session in waiting_sessions(workspace):
        if not session.hold():
            running += 1
            continue
        try:
            count, sentences = _synchronise(session, workspace, uri)
        finally:
            session.release()
        sessions, operations = sessions + 1, operations + count
        registered += sentences
    output.print(
        f"{operations:,} operations of {sessions:,} job(s) brought to MLflow"
        + (f"; {running:,} job(s) still running were left alone" if running else "")
    )
    for sentence in registered:
        output.print(sentence)
    return Synchronised(sessions, operations, tuple(registered), running)


def _synchronise(session: Session, workspace: Path, uri: str | None) -> tuple[int, list[str]]:
    target = session.target
    if uri is None and HIDDEN_PASSWORD in target.uri:
        raise InputError(
            f"{session.folder} was meant for {target.uri}, whose password was not kept; give the "
            "whole address with --uri"
        )
    client, resolved = connect(uri or target.uri, workspace, create=False)
    experiment_id = open_experiment(client, resolved, target.experiment, workspace)
    registry = ModelRegistry(resolved, workspace)
    registered: list[str] = []

    def register(body: dict[str, object], run_id: str, bundle: Path) -> None:
        made = registry.register_kept(body, run_id, bundle)
        for run in (str(body["job_run"]), run_id):
            for tag, text in made.tag.items():
                client.set_tag(run, tag, text)
        registered.append(made.describe())

    replay = Replay(client, resolved, experiment_id, {REGISTER: register})
    with progress("sync", sum(1 for _ in session.entries())) as counter:
        count = replay.synchronise(session, lambda: counter.advance("", quiet=True))
    return count, registered
