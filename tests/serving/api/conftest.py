"""A service in this process, on publications made by the real policy arithmetic."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.serving.api.asgi_caller import ask
from tests.serving.published_case import service_workspace

from margincast.serving.api.app import create_app
from margincast.serving.api.keys import KeyFile
from margincast.serving.api.rate import RateLimit
from margincast.serving.api.state import State
from margincast.specs.loading import load_spec
from margincast.specs.service import SCOPES, Service

NEWEST = datetime(2026, 1, 10, tzinfo=UTC)
OVERRIDES = ("publications.max_age=10000d", "limits.requests_per_second=1e6", "limits.burst=1000")


class Asked:
    """A running service in this process, asked without a network."""

    def __init__(self, workspace: Path, overrides: tuple[str, ...] = OVERRIDES) -> None:
        self.workspace = workspace
        self.service = load_spec(workspace / "serving" / "service.toml", Service, overrides)
        self.loop = asyncio.new_event_loop()
        limits = self.service.limits
        rate = RateLimit(workspace / "rate", limits.requests_per_second, limits.burst)
        self.state = State(self.service, workspace, rate)
        self.app = create_app(self.state)
        self.keys = {scope: self.key(scope, scope) for scope in SCOPES}
        self._stack = contextlib.AsyncExitStack()
        self.loop.run_until_complete(self._stack.enter_async_context(self.state.running()))

    def key(self, holder: str, *scopes: str, expires: datetime | None = None) -> str:
        file = KeyFile(self.workspace / self.service.access.keys_file)
        _, key = file.create(holder, scopes, expires=expires, now=datetime(2026, 1, 1, tzinfo=UTC))
        return key

    def ask(self, target, method="GET", *, scope="read", headers=None, body=None, pieces=()):
        """Ask with a key of one scope, or with none; a body is sent as JSON."""
        own = {"authorization": f"Bearer {self.keys[scope]}"} if scope else {}
        if body is not None:
            own["content-type"], pieces = "application/json", [json.dumps(body).encode()]
        return self.loop.run_until_complete(
            ask(self.app, method, target, own | (headers or {}), pieces)
        )

    def look(self) -> None:
        self.loop.run_until_complete(self.state.look())

    def close(self) -> None:
        self.loop.run_until_complete(self._stack.aclose())
        self.loop.close()


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A workspace with three publications; tests do not change it."""
    return service_workspace(tmp_path_factory.mktemp("service") / "workspace", newest=NEWEST)


@pytest.fixture(scope="session")
def asked(published):
    """The service of that workspace."""
    service = Asked(published)
    yield service
    service.close()


@pytest.fixture
def own(tmp_path):
    """Make services of workspaces of a test's own."""
    with contextlib.ExitStack() as stack:

        def make(*overrides, forecasts=None):
            rest = {} if forecasts is None else {"forecasts": forecasts}
            workspace = service_workspace(tmp_path / "workspace", newest=NEWEST, **rest)
            service = Asked(workspace, (*OVERRIDES, *overrides))
            stack.callback(service.close)
            return service

        yield make
