"""Routes that say how the service stands: for a person, a load balancer, and Prometheus."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field

from margincast.serving.api.asking import StateOf, fresh, needs, refusals, strict_query
from margincast.serving.api.problem import Refusal
from margincast.serving.api.shapes import Health, MonitorAnswer, Question, StatusAnswer
from margincast.serving.api.view import written


class MonitorQuery(Question):
    """Of which contract exceedances are told."""

    symbol: Annotated[str, Field(max_length=64, description="Empty: all, and all together.")] = ""


router = APIRouter(dependencies=[Depends(strict_query)], tags=["standing"])


@router.get("/health", response_model=Health, responses=refusals())
async def health() -> Response:
    """Whether the worker runs; says nothing about margins."""
    return fresh({"status": "ok"})


@router.get("/ready", response_model=Health, responses=refusals())
async def ready(state: StateOf) -> Response:
    """Whether margins are served that are young enough; a fallback is an answer too."""
    standing = state.standing()
    if standing.status in {"empty", "stale"}:
        raise Refusal(503, standing.reason, [(b"retry-after", b"5")])
    return fresh({"status": "ok"})


@router.get(
    "/v1/status", response_model=StatusAnswer, dependencies=[needs("read")], responses=refusals()
)
async def status(state: StateOf) -> Response:
    """How the service stands: ok, fallback, stale or empty, and why."""
    standing, view = state.standing(), state.view
    snapshot = view.snapshot if view is not None else None
    return fresh(
        {
            "status": standing.status,
            "reason": standing.reason,
            "publication": view.publication if view is not None else None,
            "by": snapshot.header.by if snapshot else None,
            "published_because": snapshot.header.reason if snapshot else None,
            "contracts": len(snapshot.contracts) if snapshot else 0,
            "fallbacks": snapshot.fallbacks if snapshot else (),
            "data_as_of": written(snapshot.oldest_data) if snapshot else None,
        }
    )


@router.get(
    "/v1/monitor", response_model=MonitorAnswer, dependencies=[needs("read")], responses=refusals()
)
async def monitor(query: Annotated[MonitorQuery, Query()], state: StateOf) -> Response:
    """What the monitor found last: alarms, and how often what was promised was exceeded."""
    return fresh(state.report.found(query.symbol))


@router.get(
    "/metrics",
    response_class=Response,
    dependencies=[needs("read")],
    responses={**refusals(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(state: StateOf) -> Response:
    """What all workers count, in the text format of Prometheus."""
    return Response(
        state.metrics.text() + state.report.metrics,
        headers={"content-type": CONTENT_TYPE_LATEST, "cache-control": "no-store"},
    )
