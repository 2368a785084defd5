"""From a fitted bundle and its gate's verdict to a registered version, now or by ``sync`` later."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from margincast.core.errors import InputError
from margincast.jobs.person import acting_person
from margincast.jobs.run_pages import VERSION_TAG
from margincast.serving.promotion import promote_after_training
from margincast.serving.registry import RegisteredVersion, Registry
from margincast.serving.verdict import GateCheck, GateVerdict
from margincast.training.tracking import StoreUnreachableError, Tracker

REGISTER = "register"
"""The name by which a registration waits in the spool."""


@dataclass(frozen=True)
class Runs:
    """Ids of the runs that a bundle belongs to: the job's, and that of our model beside it."""

    job: str
    model: str


@dataclass(frozen=True)
class Registration:
    """A version in the registry.

    Attributes:
        version: which.
        alias: ``champion``, ``challenger``, or empty when the gate failed.
    """

    version: RegisteredVersion
    alias: str

    @property
    def tag(self) -> dict[str, str]:
        """What the runs are told."""
        return {VERSION_TAG: f"{self.version.name}/{self.version.version}"}

    def describe(self) -> str:
        """Say it in a sentence."""
        as_what = f" as {self.alias}" if self.alias else ", without alias: its gate failed"
        return f"registered {self.version.name} version {self.version.version}{as_what}"


@dataclass(frozen=True)
class ModelRegistry:
    """Where a job's models are registered.

    Attributes:
        uri: the MLflow store's.
        workspace: the operator's folder, with the ledger.
    """

    uri: str
    workspace: Path

    def register_or_keep(
        self, tracker: Tracker, runs: "Runs", name: str, bundle: Path, verdict: GateVerdict
    ) -> Registration | None:
        """Register a bundle; while MLflow cannot be reached keep it for ``margincast sync``.

        Args:
            tracker: the job's.
            runs: what the bundle belongs to.
            name: the registered model.
            bundle: its folder.
            verdict: the gate's.

        Returns:
            The registration; None if it was kept.
        """
        if not tracker.outage:
            try:
                return self.register(name, bundle, runs.model, verdict)
            except StoreUnreachableError:
                # told below, with where the bundle is kept
                pass
        body = {"name": name, "verdict": verdict.to_json(), "job_run": runs.job}
        tracker.defer(REGISTER, runs.model, body, bundle)
        return None

    def register_kept(self, body: Mapping[str, object], run_id: str, bundle: Path) -> Registration:
        """Register a bundle that waited in the spool.

        Raises:
            InputError: what was kept is damaged; see :meth:`register` too.
        """
        name, verdict = body.get("name"), _verdict(body.get("verdict"))
        if not isinstance(name, str):
            raise InputError(f"the registration kept for {bundle} names no model")
        return self.register(name, bundle, run_id, verdict)

    def register(self, name: str, bundle: Path, run_id: str, verdict: GateVerdict) -> Registration:
        """Register a bundle; if its gate passed it becomes champion where there is none.

        Else it becomes challenger. Done twice for one run it is done once.

        Raises:
            BundleError: the bundle does not verify.
            InputError: MLflow refused, or the ledger cannot be used.
        """
        registry, who = Registry(self.uri, self.workspace), acting_person()
        version = registry.register(name, bundle, run_id, verdict, who=who)
        return Registration(version, promote_after_training(registry, version, who=who))


def _verdict(record: object) -> GateVerdict:
    try:
        assert isinstance(record, Mapping)
        checks = tuple(GateCheck(**check) for check in record["checks"])
        return GateVerdict(bool(record["passed"]), checks)
    except (AssertionError, KeyError, TypeError) as error:
        raise InputError(f"the gate's verdict that was kept is damaged ({error})") from error
