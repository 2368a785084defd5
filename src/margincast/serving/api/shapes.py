"""The shapes of requests and answers: what the OpenAPI document promises, key by key.

Rates are fractions (0.0125 is 1.25 %), amounts USD, times UTC (RFC 3339). A number that is not
known is null.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from margincast.core.types import Side

Symbol = Annotated[str, Field(min_length=1, max_length=64, description="Name of a contract.")]
Rate = Annotated[float, Field(ge=0.0)]
Usd = Annotated[float, Field(ge=0.0, le=1e15, allow_inf_nan=False)]
Price = Annotated[float, Field(gt=1e-12, le=1e12, allow_inf_nan=False)]
Size = Annotated[float, Field(gt=1e-12, le=1e15, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
Move = Annotated[
    float,
    Field(ge=-0.99, le=10.0, allow_inf_nan=False, description="Simple fraction of the mark price."),
]
Status = Literal["ok", "fallback"]


def _whole(value: object) -> object:
    """Return 2 for 2.0: to JSON they are one number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Question(BaseModel):
    """What a caller sends: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Body(Question):
    """A question that comes as JSON: a number is a number there, not a text or true."""

    model_config = ConfigDict(strict=True)


class Answer(BaseModel):
    """What the service answers: all keys are there, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Publication(Answer):
    """The publication that an answer rests on; a revision counts live changes since."""

    number: int
    revision: int
    published_at: datetime


class Tier(Answer):
    """One notional tier: ``margin = notional x mmr - maintenance_amount_usd``."""

    tier: int
    floor_usd: float
    cap_usd: float
    mmr: Rate
    imr: Rate
    max_leverage: float
    maintenance_amount_usd: float
    multiplier: float
    effective_from: datetime
    mmr_in_force: Annotated[float | None, Field(description="Rate charged until effective_from.")]
    base_mmr: Rate
    binding_rule: str
    reason: str


class SideMargins(Answer):
    """Margins of one side of a contract."""

    side: Side
    status: Status
    forecast: float | None
    data_as_of: datetime | None
    model_version: str
    tiers: list[Tier]


class PositionMargin(Answer):
    """Margin of a position of the notional that was asked about."""

    side: Side
    notional_usd: float
    tier: int
    maintenance_margin_usd: Annotated[float, Field(description="From effective_from on.")]
    initial_margin_usd: float
    maintenance_margin_in_force_usd: Annotated[
        float | None, Field(description="Until effective_from.")
    ]
    effective_from: datetime


class Margins(Answer):
    """Margins of a contract."""

    symbol: str
    publication: Publication
    sides: list[SideMargins]
    positions: list[PositionMargin]


class Contract(Answer):
    """A contract in a table."""

    symbol: str
    sides: list[SideMargins]


class Table(Answer):
    """Margins of several contracts; ``next`` is the ``after`` of the page that follows."""

    publication: Publication
    contracts: list[Contract]
    next: str | None


class Forecast(Answer):
    """The forecast behind the margins of a side; null in a fallback."""

    symbol: str
    side: Side
    forecast: float | None
    data_as_of: datetime | None
    model_version: str
    status: Status


class Forecasts(Answer):
    """Forecasts of several contracts."""

    publication: Publication
    level: Annotated[float | None, Field(description="Share of outcomes covered.")]
    horizon: Annotated[str | None, Field(description="Liquidation horizon, such as 8h.")]
    forecasts: list[Forecast]
    next: str | None


class ExplainedStep(Answer):
    """One step of the chain: where the rate stood before and after, and why."""

    step: str
    before: float
    after: float
    reason: str


class Explanation(Answer):
    """How a margin came about."""

    symbol: str
    side: Side
    publication: Publication
    tier: int
    mmr: float
    imr: float
    binding_rule: str
    imr_reason: str
    steps: list[ExplainedStep]


class Model(Answer):
    """The model behind the publication in force."""

    publication: Publication
    model_versions: list[str]
    feature_set_hashes: list[str]


class PolicyInForce(Answer):
    """The policy and base schedule behind the publication in force, as they were then."""

    publication: Publication
    policy_hash: str
    policy: dict[str, Any]
    schedule: dict[str, Any]


class PublicationRecord(Answer):
    """A publication on record."""

    number: int
    published_at: datetime
    by: str
    reason: str
    kind: str


class PublicationList(Answer):
    """Publications, newest first."""

    publications: list[PublicationRecord]
    next: int | None


class Moment(Answer):
    """What one publication said of a contract's side."""

    number: int
    published_at: datetime
    side: Side
    tier: int
    mmr: float
    imr: float
    multiplier: float
    forecast: float | None
    status: Status
    binding_rule: str


class History(Answer):
    """Margins of a contract's first tier, or another, over publications; oldest first."""

    symbol: str
    moments: list[Moment]


class StatusAnswer(Answer):
    """How the service stands."""

    status: Literal["ok", "fallback", "stale", "empty"]
    reason: str
    publication: Publication | None
    by: str | None
    published_because: str | None
    contracts: int
    fallbacks: list[str]
    data_as_of: datetime | None


class Coverage(Answer):
    """How often a promise was exceeded, of those whose outcome is known."""

    record: Annotated[str, Field(description="forecasts or margins")]
    symbol: str
    side: str
    level: float
    known: float
    exceeded: float
    exceedance_ratio: Annotated[float | None, Field(description="1 is as often as promised.")]


class MonitorAnswer(Answer):
    """What ``margincast monitor`` found last; ``note`` says why there is nothing."""

    at: datetime | None
    alarm: bool | None
    note: str
    checks: list[dict[str, Any]]
    coverage: list[Coverage]


class Health(Answer):
    """The worker runs."""

    status: Literal["ok"]


class Problem(BaseModel):
    """A refusal (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    status: int
    detail: str
    problems: list[dict[str, str]] = []


class Position(Body):
    """A position, real or imagined."""

    symbol: Symbol
    side: Side
    size: Size
    entry_price: Price
    mark_price: Price
    isolated_margin_usd: Usd | None = None


class CollateralItem(Body):
    """An asset behind the account; a negative amount is owed."""

    asset: Symbol
    amount: Amount
    price_usd: Price
    haircut: Annotated[float, Field(ge=0.0, le=1.0)]
    contract: Symbol | None = None


class AccountQuestion(Body):
    """An account, and moves of prices to try on it."""

    positions: Annotated[list[Position], Field(min_length=1)]
    collateral: list[CollateralItem] = []
    moves: dict[str, Move] = {}
    rates: Literal["in_force", "published"] = "in_force"


class PoolAnswer(Answer):
    """Equity against requirements of what shares one margin."""

    pool: str
    equity_usd: float
    maintenance_margin_usd: float
    initial_margin_usd: float
    margin_ratio: float | None
    is_below_maintenance: bool
    down: Annotated[float | None, Field(description="Move of all prices together that liquidates.")]
    up: float | None


class AccountAnswer(Answer):
    """The account as it stands, and after the moves."""

    publication: Publication
    now: list[PoolAnswer]
    after_moves: list[PoolAnswer]


class BookLevel(Body):
    """Price and size of one level of an order book."""

    price: Price
    size: Size


class BookQuestion(Body):
    """An order book, best level first."""

    bids: Annotated[list[BookLevel], Field(min_length=1)]
    asks: Annotated[list[BookLevel], Field(min_length=1)]


class MarginQuestion(Body):
    """What the next margin of a contract would be if forecasts or the book were other ones."""

    symbol: Symbol
    forecast_multiple: Annotated[float, Field(gt=0.0, le=100.0, allow_inf_nan=False)] = 1.0
    forecasts: dict[Side, Annotated[float, Field(gt=0.0, le=100.0, allow_inf_nan=False)]] = {}
    book: BookQuestion | None = None
    after_minutes: Annotated[int, Field(ge=1, le=10_080), BeforeValidator(_whole)] = 60


class MarginAnswer(Answer):
    """Margins as published, and as they would be."""

    symbol: str
    publication: Publication
    published: list[SideMargins]
    supposed: list[SideMargins]


class ReceiptAnswer(Answer):
    """What became of rows that were sent."""

    taken: int
    refused: Annotated[dict[str, int], Field(description="By reason.")]
    dropped: Annotated[int, Field(description="The engine could not keep up, and falls back.")]


class KeyRecord(Answer):
    """An API key without its secret."""

    identifier: str
    holder: str
    scopes: list[str]
    created: str
    expires: str
    revoked: str
    state: Literal["valid", "expired", "revoked"]


class KeyList(Answer):
    """All keys ever made."""

    keys: list[KeyRecord]


class AuditRecord(Answer):
    """An administrative act; its hash covers the one before it."""

    number: int
    when: datetime
    who: str
    what: str
    why: str
    hash: str


class AuditLog(Answer):
    """Administrative acts, newest first; the whole chain was verified."""

    acts: list[AuditRecord]
    next: int | None
