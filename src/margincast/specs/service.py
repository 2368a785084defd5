"""The service (``serving/service.toml``): where it listens, whom it answers, and how much it bears.

Responsible for what an operator decides about the road of a margin to the venue; the margin itself
is the policy's.
"""

from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from margincast.specs.base import Delay, Duration, PositiveFloat, PositiveInt, Spec, to_tuple

Scope = Literal["read", "score", "publish", "admin"]
"""``read``: margins and what made them; ``score``: what-if computations; ``publish``: events and
publications; ``admin``: who has a key, and the audit log."""
SCOPES: tuple[Scope, ...] = get_args(Scope)


def _each_once(values: tuple[Scope, ...]) -> tuple[Scope, ...]:
    if len(set(values)) != len(values):
        raise ValueError(f"each scope once, found {list(values)}")
    return values


Scopes = Annotated[tuple[Scope, ...], BeforeValidator(to_tuple), AfterValidator(_each_once)]


class Address(Spec):
    """Where the service listens. TLS is the proxy's; see ``docs/guide/service.md``."""

    host: str
    port: Annotated[int, Field(ge=0, le=65_535)]
    """0 takes a free one, which is printed."""
    workers: Annotated[int, Field(ge=1, le=64)]
    """Processes that share the port."""


class Published(Spec):
    """Which margins are served."""

    folder: str
    """Store of publications, a path from the workspace."""
    look_every: Duration
    """How often a worker looks whether there is a new one."""
    max_age: Duration
    """A publication older than this is said to be stale, and the service not to be ready."""


class Access(Spec):
    """Who may ask for what."""

    keys_file: str
    """API keys, hashed; written by ``margincast keys``. A path from the workspace."""
    audit_file: str
    """Administrative acts, each chained to the one before. A path from the workspace."""
    anonymous: Scopes
    """Scopes of who shows no key; empty on any network that others can reach."""


class Limits(Spec):
    """What one caller may ask of the service; connections, streams and memory are a worker's."""

    body_bytes: Annotated[int, Field(ge=1_024, le=64 << 20)]
    header_bytes: Annotated[int, Field(ge=1_024, le=1 << 20)]
    batch: Annotated[int, Field(ge=1, le=10_000)]
    """Most contracts, positions or book levels in one request."""
    requests_per_second: PositiveFloat
    """Of one key, or of one address without a key, over all workers."""
    burst: PositiveInt
    """Requests that may come at once after a quiet time."""
    connections: PositiveInt
    streams: PositiveInt
    header_time: Duration
    """From the first byte of a request (or the connection) to the last of its head."""
    request_time: Duration
    """From then on to the end of the answer; streams last longer."""
    idle_time: Duration
    """How long a connection stays open between requests."""
    drain_time: Delay
    """How long open requests may go on when the service is stopped."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.streams >= self.connections:
            raise ValueError(
                f"streams must lie below connections, or nobody else is answered; found "
                f"{self.streams} and {self.connections}"
            )
        return self


class MonitorReport(Spec):
    """What ``margincast monitor`` found, shown beside the margins."""

    report: str
    """Its ``monitor.json``, a path from the workspace."""


class LiveEngine(Spec):
    """A live engine (``margincast live``) whose margins are served as they change."""

    folder: str
    """Where it shows its margins and takes rows, a path from the workspace."""
    look_every_milliseconds: Annotated[int, Field(ge=5, le=1_000)]
    longest_silence_milliseconds: Annotated[int, Field(ge=100, le=60_000)]
    """Without a heartbeat for so long it counts as gone, and all margins fall back."""


class Service(Spec):
    """One service of one store of publications."""

    name: str
    description: str
    address: Address
    publications: Published
    access: Access
    limits: Limits
    monitor: MonitorReport | None = None
    """Present: exceedances and alarms are shown."""
    live: LiveEngine | None = None
    """Present: a live engine is followed."""
