"""An experiment of the MLflow store, in which a job opens its runs: one for itself, some below."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mlflow.utils.mlflow_tags import MLFLOW_SOURCE_NAME

from margincast.core.errors import InputError
from margincast.training.tracking.address import StoreUnreachableError, without_password
from margincast.training.tracking.clock import RunClock
from margincast.training.tracking.operations import (
    LOCAL_PREFIX,
    CreateRun,
    Deferred,
    EndRun,
    LogBatch,
    is_local,
)
from margincast.training.tracking.outbox import Outbox
from margincast.training.tracking.run import Run, flatten_parameters
from margincast.training.tracking.spool import Target
from margincast.training.tracking.store import connect, open_experiment, store_errors
from margincast.training.tracking.synchronise import ERROR_TAG, close_runs_of_killed

Status = Literal["FINISHED", "FAILED", "KILLED"]

_ERROR_LENGTH = 500


@dataclass(frozen=True)
class PastRun:
    """A run that ended before it is logged, such as a trial of a study.

    Attributes:
        name: the run's.
        started: milliseconds; None: now.
        ended: the same; taken as ``started`` where the clock was set back in between.
        status: how it ended.
        parameters: nested sections allowed.
        metrics: finite values by name.
        tags: by name.
    """

    name: str
    started: int | None = None
    ended: int | None = None
    status: Status = "FINISHED"
    parameters: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class Tracker:
    """An experiment of an MLflow store, made when it does not exist.

    Runs that killed processes of this workspace left open are closed on the way. Every process
    makes a tracker of its own; threads may share one.

    Args:
        uri: tracking URI; a relative SQLite path starts at ``workspace``.
        experiment: the experiment's name.
        workspace: the operator's folder. Without a server artifacts go to ``mlruns/artifacts`` in
            it; a server decides for itself.
        on_outage: told, once a job, when MLflow cannot be told any more and the spool takes over.

    Raises:
        StoreUnreachableError: the store cannot be opened.
        InputError: the URI cannot be used, or the experiment was deleted.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        workspace: Path,
        on_outage: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.workspace = workspace
        self.client, self.uri = connect(uri, workspace, create=True)
        self.experiment_id = open_experiment(self.client, self.uri, experiment, workspace)
        target = Target(without_password(self.uri), experiment)
        close_runs_of_killed(workspace, target, self.client, self.uri)
        self._outbox = Outbox(
            self.client,
            self.uri,
            self.experiment_id,
            target=target,
            workspace=workspace,
            on_outage=on_outage,
        )
        self._clock = RunClock()

    @property
    def outage(self) -> str:
        """Why the open runs are kept in the spool; empty while MLflow is told."""
        return self._outbox.outage

    @contextmanager
    def run(
        self, name: str, tags: Mapping[str, str] | None = None, parent: Run | None = None
    ) -> Iterator[Run]:
        """Open a run for the length of a ``with`` block.

        It ends FINISHED, FAILED after an exception (kept in the tag ``margincast.error``), or
        KILLED after an interrupt from the keyboard; the exception itself is passed on.
        """
        with self._outbox.session():
            run = self._start(name, tags or {}, parent, self._clock.now())
            try:
                yield run
            except KeyboardInterrupt:
                with suppress(InputError):
                    self._end(run, "KILLED", self._clock.now())
                raise
            except BaseException as error:
                # a store that fails now must not hide why the run failed
                with suppress(InputError):
                    run.set_tags({ERROR_TAG: f"{type(error).__name__}: {error}"[:_ERROR_LENGTH]})
                    self._end(run, "FAILED", self._clock.now())
                raise
            else:
                self._end(run, "FINISHED", self._clock.now())

    @contextmanager
    def attached(self, run_id: str) -> Iterator[Run]:
        """Log into a run that another process opened, and closes."""
        with self._outbox.session():
            names: tuple[str, ...] = ()
            started = 0
            if not is_local(run_id) and not self.outage:
                # what it holds is asked for its limit of metrics only
                with suppress(StoreUnreachableError), store_errors(self.uri):
                    found = self.client.get_run(run_id)
                    names, started = tuple(found.data.metrics), found.info.start_time
            yield Run(self._outbox, run_id, RunClock(started), names)

    def log_past_run(self, past: PastRun, parent: Run) -> str:
        """Write a run that ended already, below another; returns its id."""
        now = self._clock.now()
        started = now if past.started is None else past.started
        ended = max(started, now if past.ended is None else past.ended)
        with self._outbox.session():
            run = self._start(past.name, past.tags, parent, started)
            self._outbox.send(
                LogBatch(
                    run=run.run_id,
                    metrics=dict(past.metrics),
                    timestamp=ended,
                    parameters=flatten_parameters(past.parameters),
                )
            )
            self._end(run, past.status, ended)
        return run.run_id

    def defer(self, work: str, run_id: str, body: Mapping[str, object], path: Path) -> None:
        """Keep a piece of work that needs MLflow for ``margincast sync`` to do.

        Args:
            work: which; the job that synchronises knows how.
            run_id: the run it belongs to; another is open.
            body: JSON-like.
            path: its folder; copied.

        Raises:
            StoreUnreachableError: the spool cannot be written.
        """
        self._outbox.defer(Deferred(run=run_id, work=work, body=dict(body)), path)

    def _start(self, name: str, tags: Mapping[str, str], parent: Run | None, started: int) -> Run:
        opened = CreateRun(
            key=f"{LOCAL_PREFIX}{secrets.token_hex(16)}",
            name=name,
            started=started,
            tags={MLFLOW_SOURCE_NAME: "margincast", **tags},
            parent=None if parent is None else parent.run_id,
        )
        return Run(self._outbox, self._outbox.create(opened), self._clock)

    def _end(self, run: Run, status: Status, ended: int) -> None:
        self._outbox.send(EndRun(run=run.run_id, status=status, ended=ended))
