"""Routes of what is in force: margins, forecasts, and where they come from.

Responsible for the questions whose answers hang on the snapshot alone; each carries the version of
the publication as its ETag.
"""

from bisect import bisect_right
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import Field

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.core.types import Side
from margincast.serving.api.asking import (
    StateOf,
    ViewOf,
    answered,
    known_sides,
    needs,
    refusals,
    strict_query,
)
from margincast.serving.api.problem import Refusal
from margincast.serving.api.shapes import (
    Forecasts,
    Margins,
    Model,
    Question,
    Status,
    Symbol,
    Table,
)
from margincast.serving.api.view import View, encode, forecasts_of

router = APIRouter(dependencies=[needs("read"), Depends(strict_query)], tags=["margins"])
AnySymbol = Annotated[Symbol, Path(examples=["SIM-BTC"])]
Notional = Annotated[
    str | None,
    Field(
        pattern=r"^[0-9]{1,15}(\.[0-9]{1,8})?$",
        description="Notional of a position, USD, as a decimal.",
        examples=["100000"],
    ),
]


class PositionQuery(Question):
    """Which side, and the notional of a position."""

    side: Annotated[Side | None, Field(examples=["long"])] = None
    notional_usd: Notional = None


class PageQuery(Question):
    """Which contracts: a page of them, in the order of their names."""

    after: Annotated[
        str, Field(max_length=64, description="The last contract of the page before.")
    ] = ""
    limit: Annotated[int, Field(ge=1, le=10_000, description="Contracts on a page, at most.")] = 100
    side: Side | None = None
    status: Annotated[
        Status | None, Field(description="Only contracts of which a side has this status.")
    ] = None


class TableQuery(PageQuery):
    """Which contracts, and which of their tiers."""

    tier: Annotated[int | None, Field(ge=1, le=1_000, description="Only this tier.")] = None


@router.get("/v1/margins/{symbol}", response_model=Margins, responses=refusals(304, 404))
async def margins_of_a_contract(
    symbol: AnySymbol, query: Annotated[PositionQuery, Query()], request: Request, view: ViewOf
) -> Response:
    """Margins of one contract, by side and tier, and of a position of a given notional."""
    known_sides(view, symbol, query.side)
    try:
        body = view.margins(symbol, query.side or "", query.notional_usd or "")
    except InputError as error:
        raise Refusal(422, str(error)) from error
    assert body is not None
    return answered(request, view, body)


@router.get("/v1/margins", response_model=Table, responses=refusals(304))
async def margins(
    query: Annotated[TableQuery, Query()], request: Request, view: ViewOf, state: StateOf
) -> Response:
    """Margins of all contracts, page by page."""
    symbols, following = _page(query, view, state.service.limits.batch)
    return answered(
        request,
        view,
        lambda: (
            b'{"publication":%b,"contracts":%b,"next":%b}'
            % (
                encode(view.publication),
                view.table(symbols, query.side or "", query.tier),
                encode(following),
            )
        ),
    )


@router.get("/v1/forecasts", response_model=Forecasts, responses=refusals(304, 404))
async def forecasts(
    query: Annotated[PageQuery, Query()], request: Request, view: ViewOf, state: StateOf
) -> Response:
    """Forecasts behind the margins: the quantile of the adverse excursion over the horizon."""
    symbols, following = _page(query, view, state.service.limits.batch)
    record = await state.record_of(view)
    return answered(
        request,
        view,
        lambda: encode(
            {
                "publication": view.publication,
                "level": record.policy.model.level if record else None,
                "horizon": format_duration(record.policy.model.horizon) if record else None,
                "forecasts": [
                    forecasts_of(one)
                    for symbol in symbols
                    for one in view.sides(symbol, query.side or "")
                ],
                "next": following,
            }
        ),
    )


@router.get("/v1/model", response_model=Model, responses=refusals(304))
async def model(request: Request, view: ViewOf) -> Response:
    """The model behind the margins in force."""
    columns = [next(iter(one.values())).columns for one in view.snapshot.contracts.values()]
    tables = {id(one): one for one in columns}.values()
    return answered(
        request,
        view,
        lambda: encode(
            {
                "publication": view.publication,
                **{
                    f"{name}s" if name.endswith("n") else f"{name}es": sorted(
                        {str(value) for table in tables for value in table[name].tolist()}
                    )
                    for name in ("model_version", "feature_set_hash")
                },
            }
        ),
    )


def _page(query: PageQuery, view: View, most: int) -> tuple[tuple[str, ...], str | None]:
    """Return the contracts of a page, and after which one the next page starts.

    Args:
        query: what is asked for.
        view: the margins.
        most: contracts that a page of this service holds; more than that come page by page.
    """
    symbols = view.snapshot.symbols
    if query.status is not None:
        fallen = set(view.snapshot.fallbacks)
        wanted = query.status == "fallback"
        symbols = tuple(symbol for symbol in symbols if (symbol in fallen) == wanted)
    start = bisect_right(symbols, query.after)
    end = start + min(query.limit, most)
    page = symbols[start:end]
    more = end < len(symbols)
    return page, page[-1] if more else None
