"""Batch scoring: the champion's latest forecasts, turned into the margin levels a venue publishes.

Every contract of the data gets a row a side and tier. Where its forecast cannot be used (stale
data, an unknown feature, no champion) the row is the base schedule with status ``fallback`` and
the reason: a contract is never left without a margin.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from margincast.core.errors import CheckFailedError
from margincast.core.types import SIDES, Side
from margincast.margin.levels import MarginLevel, fallback_levels, margin_levels_for
from margincast.margin.liquidation_cost import Book
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Panel
from margincast.serving.background import backgrounds_at
from margincast.serving.manifest import Manifest
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

COLUMNS = (
    "symbol", "side", "tier", "tier_floor_usd", "tier_cap_usd", "effective_from", "mmr", "imr",
    "max_leverage", "maintenance_amount", "multiplier", "forecast", "liquidation_cost",
    "binding_rule", "status", "reason", "imr_reason", "steps", "model_version",
    "feature_set_hash", "policy_hash", "data_as_of",
)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """What a table of margin levels was made from."""

    model_version: str
    feature_set_hash: str
    policy_hash: str


def policy_hash(policy: MarginPolicy, schedule: BaseSchedule) -> str:
    """Digest of all that an operator chose between forecast and margin."""
    return f"{policy.digest()[:32]}{schedule.digest()[:32]}"


def require_answers(policy: MarginPolicy, manifest: Manifest) -> None:
    """Check that a model forecasts what a policy asks for.

    Raises:
        CheckFailedError: a horizon or level the model does not have, or a side where the policy
            takes the larger of both (otherwise that side falls back).
    """
    wanted = policy.model
    minutes = wanted.horizon / timedelta(minutes=1)
    has = manifest.metadata
    problems = []
    if minutes not in has.horizons_minutes:
        known = ", ".join(map(str, has.horizons_minutes))
        problems.append(f"horizon {minutes:g} min (the model has {known} min)")
    if wanted.level not in has.levels:
        problems.append(f"level {wanted.level:g} (the model has {list(has.levels)})")
    if policy.forecast.sides == "larger":
        problems += [f"side {side}" for side in SIDES if side not in has.sides]
    if problems:
        raise CheckFailedError(
            f"the champion of {wanted.registered_model} does not forecast "
            f"{'; '.join(problems)}; change [model] of the policy or train such a model"
        )


def require_feature_set(built: str, manifest: Manifest) -> None:
    """Check that features are built by the very set a model was trained on.

    Args:
        built: digest of the set that features are built by.
        manifest: of the model's bundle.

    Raises:
        CheckFailedError: it is another set: columns of the same name may mean something else.
    """
    trained = manifest.metadata.feature_set_hash
    if built != trained:
        raise CheckFailedError(
            f"features built by set {built[:12]}, but the model {manifest.metadata.job} was "
            f"trained on set {trained[:12]}; score with the version of margincast that trained it "
            f"({manifest.libraries.get('margincast', 'unknown')}), or train again"
        )


def latest_rows(frame: pd.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Return the position of every contract's last decision, in the order of contracts."""
    order = np.lexsort((frame["ts"].to_numpy(), frame["symbol"].to_numpy(dtype=str)))
    symbols = frame["symbol"].to_numpy(dtype=str)[order]
    last = np.append(symbols[1:] != symbols[:-1], np.ones(min(1, len(symbols)), dtype=bool))
    return np.asarray(order[last], dtype=np.intp)


def score(
    panels: Mapping[int, Panel],
    forecaster: HorizonForecaster,
    policy: MarginPolicy,
    schedule: BaseSchedule,
    *,
    at: datetime,
    books: Mapping[str, Book],
    origin: Origin,
    history: Panel | None = None,
) -> pd.DataFrame:
    """Turn the latest decision of every contract into margin levels.

    Args:
        panels: per horizon in minutes, the same decisions since the model was fitted, as far as
            there are any; the last of every contract is turned into margin, models with a memory
            learn from those before.
        forecaster: the champion; see :func:`require_answers`.
        policy: the margin policy; the forecast is the one for its horizon and level.
        schedule: the base schedule.
        at: moment of use, UTC; older data is stale as the policy says.
        books: latest order books, where there are any.
        origin: what to record beside every number.
        history: outcomes that long-run rates are made of; without it they are not known.

    Returns:
        The ``margin_levels`` table, sorted by contract, side and tier.
    """
    minutes = policy.model.horizon // timedelta(minutes=1)
    panel = panels[minutes]
    newest = latest_rows(panel.frame)
    # all horizons are asked: what one of them may be hangs on the others
    predicted = forecaster.predict(panels)[minutes]
    moment = np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us")
    backgrounds = backgrounds_at(
        moment, panel, predicted, policy=policy, schedule=schedule, history=history
    )
    decisions = panel.frame.iloc[newest]
    level = policy.model.level
    by_side = {side: predicted.at(side, level)[newest] for side in predicted.sides}
    rows = []
    for i, (symbol, ts) in enumerate(zip(decisions["symbol"], decisions["ts"], strict=True)):
        forecasts: dict[Side, float] = {side: float(by_side[side][i]) for side in by_side}
        for side in SIDES:
            levels = margin_levels_for(
                symbol,
                side,
                forecasts,
                schedule,
                policy,
                data_age=at - ts.to_pydatetime(),
                book=books.get(symbol),
                background=backgrounds.get((symbol, side)),
            )
            rows += [_row(row, at, ts, origin) for row in levels]
    return _table(rows)


def score_fallback(
    symbols: list[str],
    schedule: BaseSchedule,
    *,
    at: datetime,
    reason: str,
    origin: Origin,
) -> pd.DataFrame:
    """Return the base schedule for contracts that cannot be forecast, with the reason."""
    rows = [
        _row(level, at, None, origin)
        for symbol in symbols
        for side in SIDES
        for level in fallback_levels(symbol, side, schedule, reason)
    ]
    return _table(rows)


def _row(
    level: MarginLevel, at: datetime, data_as_of: datetime | None, origin: Origin
) -> dict[str, object]:
    record = asdict(level)
    record["steps"] = json.dumps(record["steps"])
    return record | {
        "max_leverage": level.max_leverage,
        "effective_from": at,
        "data_as_of": data_as_of,
        **asdict(origin),
    }


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for column in ("effective_from", "data_as_of"):
        frame[column] = pd.to_datetime(frame[column], utc=True).astype("datetime64[us, UTC]")
    return frame
