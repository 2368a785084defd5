"""The service put together: routes, refusals, the OpenAPI document, and the gate before them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from margincast import __version__
from margincast.serving.api import events, margins, page, record, standing, stream, what_if
from margincast.serving.api.examples import with_examples
from margincast.serving.api.guard import API_POLICY, Guard, incident
from margincast.serving.api.problem import MEDIA_TYPE, Refusal
from margincast.serving.api.shapes import Problem
from margincast.serving.api.state import State

DESCRIPTION = (
    "Maintenance and initial margin rates of crypto derivatives, and what they rest on. Rates are "
    "fractions (0.0125 is 1.25 %), amounts USD, times UTC. Show a key as "
    "`Authorization: Bearer mc_...`. Answers carry the version of the publication as their ETag; "
    "refusals are problem documents (RFC 9457)."
)
_MOST_PROBLEMS = 20


def create_app(state: State) -> Guard:
    """Return the service of one worker.

    Args:
        state: of the worker; its background work runs while the application does.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with state.running():
            yield

    app = FastAPI(
        title="margincast",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
        exception_handlers={
            Refusal: _refused,
            Exception: _defect,
            HTTPException: _http_error,
            RequestValidationError: _invalid,
        },
    )
    routers = [margins.router, record.router, record.admin, what_if.router]
    for one in (*routers, stream.router, standing.router, events.router, page.router):
        app.include_router(one)
    document = openapi(app)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_document() -> dict[str, Any]:
        return document

    return Guard(app, state)


def openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with an example of every question and answer."""
    document = app.openapi()
    document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    schemes = document["components"].setdefault("securitySchemes", {})
    schemes["key"] = HTTPBearer(description="An API key, `mc_...`.").model.model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    for path, item in document["paths"].items():
        for operation in item.values():
            if path not in {"/health", "/ready", "/"}:
                operation["security"] = [{"key": []}]
    return with_examples(document)


def _refusal(refusal: Refusal) -> Response:
    headers = {name.decode(): value.decode() for name, value in (API_POLICY, *refusal.headers)}
    return Response(
        refusal.body,
        status_code=refusal.status,
        media_type=MEDIA_TYPE.decode(),
        headers=headers,
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _refusal(error)


async def _defect(_: Request, error: Exception) -> Response:
    return _refusal(error if isinstance(error, Refusal) else incident(error))


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {404: "there is no such path; /openapi.json lists them", 405: "not this method here"}
    headers = [(name.encode(), value.encode()) for name, value in (error.headers or {}).items()]
    status = error.status_code
    return _refusal(Refusal(status, details.get(status, "the request cannot be read"), headers))


async def _invalid(_: Request, error: Exception) -> Response:
    """Say what is wrong with a query or body, each problem with its place; never the value."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    problems = [
        {
            "where": ".".join(str(part)[:64] for part in one["loc"])[:200],
            "problem": one["msg"][:200],
        }
        for one in found[:_MOST_PROBLEMS]
    ]
    unread = any(one["type"] == "json_invalid" for one in found)
    more = f", of which {_MOST_PROBLEMS} are named" if len(found) > _MOST_PROBLEMS else ""
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    detail = "the body is not JSON" if unread else f"{count} in this request{more}"
    return _refusal(Refusal(400 if unread else 422, detail, problems=problems))
