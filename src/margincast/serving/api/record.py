"""Routes of the record: publications, policy, how a margin came about, and its past."""

import asyncio
import logging
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import Field

from margincast.core.errors import InputError, LedgerError, PublicationError
from margincast.core.types import Side
from margincast.margin.explanation import chain_of
from margincast.serving.api.asking import (
    StateOf,
    ViewOf,
    answered,
    fresh,
    known_sides,
    needs,
    refusals,
    strict_query,
)
from margincast.serving.api.margins import AnySymbol, Notional
from margincast.serving.api.problem import Refusal
from margincast.serving.api.shapes import (
    AuditLog,
    Explanation,
    History,
    KeyList,
    PolicyInForce,
    PublicationList,
    Question,
)
from margincast.serving.api.view import encode, position_row, written

LOG = logging.getLogger("margincast.service")
router = APIRouter(dependencies=[needs("read"), Depends(strict_query)], tags=["record"])
admin = APIRouter(dependencies=[needs("admin"), Depends(strict_query)], tags=["administration"])


def _damaged(error: Exception, what: str) -> Refusal:
    """Write down what is damaged, with its place, and return what a caller is told."""
    LOG.error("%s: %s", what, error)
    return Refusal(409, f"{what}; see the service's log")


class ExplainQuery(Question):
    """Which side, and a notional in the tier that is explained; without it the first."""

    side: Annotated[Side, Field(examples=["long"])]
    notional_usd: Notional = None


class HistoryQuery(Question):
    """Which side and tier, and how many publications back."""

    side: Annotated[Side, Field(examples=["long"])]
    tier: Annotated[int, Field(ge=1, le=1_000)] = 1
    limit: Annotated[int, Field(ge=1, le=1_000)] = 90


class BackwardsQuery(Question):
    """A page of a record, newest first."""

    before: Annotated[int | None, Field(ge=1, le=10**9, description="Number to go on from.")] = None
    limit: Annotated[int, Field(ge=1, le=1_000)] = 50


@router.get("/v1/explain/{symbol}", response_model=Explanation, responses=refusals(304, 404, 409))
async def explain(
    symbol: AnySymbol,
    query: Annotated[ExplainQuery, Query()],
    request: Request,
    view: ViewOf,
    state: StateOf,
) -> Response:
    """How a margin came about: every step of the policy, what it did and why."""
    (levels,) = known_sides(view, symbol, query.side)
    try:
        row = position_row(levels, float(query.notional_usd or 0.0))
    except InputError as error:
        raise Refusal(422, str(error)) from error
    record = await state.record_of(view)
    if record is None or record.origin.policy_hash != row["policy_hash"]:
        raise Refusal(409, "the policy behind this margin is not on record; its columns are")
    steps = chain_of(row, record.policy)
    return answered(
        request,
        view,
        lambda: encode(
            {
                "symbol": symbol,
                "side": levels.side,
                "publication": view.publication,
                "tier": row["tier"],
                **{name: row[name] for name in ("mmr", "imr", "binding_rule", "imr_reason")},
                "steps": [
                    {
                        "step": step.name,
                        "before": step.value_before,
                        "after": step.value_after,
                        "reason": step.reason,
                    }
                    for step in steps
                ],
            }
        ),
    )


@router.get("/v1/policy", response_model=PolicyInForce, responses=refusals(304, 409))
async def policy(request: Request, view: ViewOf, state: StateOf) -> Response:
    """The policy and base schedule behind the margins in force, as they were then."""
    record = await state.record_of(view)
    if record is None:
        raise Refusal(409, "the policy in force is not on record")
    return answered(
        request,
        view,
        lambda: encode(
            {
                "publication": view.publication,
                "policy_hash": record.origin.policy_hash,
                "policy": record.policy.model_dump(mode="json", exclude_defaults=True),
                "schedule": record.schedule.model_dump(mode="json"),
            }
        ),
    )


@router.get("/v1/publications", response_model=PublicationList, responses=refusals(409))
async def publications(query: Annotated[BackwardsQuery, Query()], state: StateOf) -> Response:
    """Publications on record, newest first."""
    newest = state.in_force().snapshot.header.number
    start = min(newest, (query.before or newest + 1) - 1)
    numbers = range(start, max(0, start - query.limit), -1)
    try:
        listed = await state.past.listed(numbers)
    except (PublicationError, OSError) as error:
        raise _damaged(error, "the record of publications does not verify") from error
    return fresh(
        {
            "publications": listed,
            "next": numbers[-1] if numbers and numbers[-1] > 1 else None,
        }
    )


@router.get("/v1/history/{symbol}", response_model=History, responses=refusals(304, 404, 409))
async def history(
    symbol: AnySymbol,
    query: Annotated[HistoryQuery, Query()],
    request: Request,
    view: ViewOf,
    state: StateOf,
) -> Response:
    """A contract's margin and forecast over publications, oldest first."""
    known_sides(view, symbol, query.side)
    newest = view.snapshot.header.number
    numbers = range(max(1, newest - query.limit + 1), newest + 1)
    try:
        moments = await state.past.moments(numbers, symbol, query.side, query.tier)
    except (PublicationError, OSError) as error:
        raise _damaged(error, "a publication of this time does not verify") from error
    return answered(request, view, lambda: encode({"symbol": symbol, "moments": moments}))


@admin.get("/v1/keys", response_model=KeyList, responses=refusals(409))
async def keys(state: StateOf) -> Response:
    """API keys, without their secrets."""
    now = state.now()
    try:
        keys_made = await asyncio.to_thread(state.key_file.read)
    except InputError as error:
        raise _damaged(error, "the file of keys cannot be read") from error
    return fresh(
        {
            "keys": [
                {
                    "identifier": key.identifier,
                    "holder": key.holder,
                    "scopes": key.scopes,
                    "created": key.created,
                    "expires": key.expires,
                    "revoked": key.revoked,
                    "state": key.state(now),
                }
                for key in keys_made
            ]
        }
    )


@admin.get("/v1/audit", response_model=AuditLog, responses=refusals(409))
async def audit(query: Annotated[BackwardsQuery, Query()], state: StateOf) -> Response:
    """Administrative acts, newest first; the chain of hashes is verified first."""
    try:
        entries = await asyncio.to_thread(state.audit.read)
    except (LedgerError, OSError) as error:
        raise _damaged(error, "the audit log does not verify") from error
    start = min(len(entries), (query.before or len(entries) + 1) - 1)
    chosen = entries[max(0, start - query.limit) : start][::-1]
    return fresh(
        {
            "acts": [
                {
                    "number": entry.number,
                    "when": written(entry.instant),
                    "who": entry.who,
                    "what": entry.what,
                    "why": entry.why,
                    "hash": entry.hash,
                }
                for entry in chosen
            ],
            "next": chosen[-1].number if chosen and chosen[-1].number > 1 else None,
        }
    )
