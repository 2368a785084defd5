"""Batch scoring: the champion's latest forecasts, turned into the margin levels a venue publishes.

Every contract of the data gets a row a side and tier. Where its forecast cannot be used (stale
data, an unknown feature, no champion) the row is the base schedule with status ``fallback`` and
the reason: a contract is never left without a margin.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from margincast.core.errors import CheckFailedError
from margincast.core.types import SIDES, FloatArray, Side
from margincast.margin.background import Background
from margincast.margin.beside_maintenance import InitialInputs
from margincast.margin.levels import fallback_levels, margin_levels
from margincast.margin.liquidation_cost import Book
from margincast.margin.open_interest import Held, open_interest_shares
from margincast.margin.override import Override
from margincast.margin.tier_rows import tier_rows
from margincast.models.protocol import Panel, TailForecast
from margincast.serving.background import background_at
from margincast.serving.manifest import Manifest
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy


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
    other = policy.initial.forecast
    if other is not None:
        minutes = other.horizon / timedelta(minutes=1)
        if minutes not in has.horizons_minutes:
            problems.append(f"initial.forecast.horizon {minutes:g} min")
        if other.level not in has.levels:
            problems.append(f"initial.forecast.level {other.level:g} (it has {list(has.levels)})")
    if policy.forecast.sides == "larger":
        problems += [f"side {side}" for side in SIDES if side not in has.sides]
    if problems:
        raise CheckFailedError(
            f"the champion of {wanted.registered_model} does not forecast "
            f"{'; '.join(problems)}; change the policy or train such a model"
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
    forecasts: Mapping[int, TailForecast],
    policy: MarginPolicy,
    schedule: BaseSchedule,
    *,
    at: datetime,
    books: Mapping[str, Book],
    origin: Origin,
    history: Panel | None = None,
    overrides: Sequence[Override] = (),
    open_interest: Mapping[str, Held] | None = None,
) -> pd.DataFrame:
    """Turn the latest decision of every contract into margin levels.

    Args:
        panels: per horizon in minutes, the same decisions since the model was fitted, as far as
            there are any; the last of every contract is turned into margin.
        forecasts: the champion's, of all of them; see :func:`require_answers`.
        policy: the margin policy; the forecast is the one for its horizon and level.
        schedule: the base schedule.
        at: moment of use, UTC; older data is stale as the policy says.
        books: latest order books, where there are any.
        origin: what to record beside every number.
        history: outcomes that long-run rates are made of; without it they are not known.
        overrides: margins set by hand that are in force, oldest first.
        open_interest: of the contracts, for a policy with caps on it.

    Returns:
        The ``margin_levels`` table, sorted by contract, side and tier.
    """
    minutes = policy.model.horizon // timedelta(minutes=1)
    panel = panels[minutes]
    newest = latest_rows(panel.frame)
    predicted = forecasts[minutes]
    moment = _moment(at)
    decisions = panel.frame.iloc[newest]
    rows = tier_rows(decisions["symbol"].tolist(), schedule, policy)
    background = background_at(moment, panel, predicted, policy=policy, rows=rows, history=history)
    level = policy.model.level
    levels = margin_levels(
        rows,
        {side: predicted.at(side, level)[newest] for side in predicted.sides},
        policy,
        data_age=moment - panel.decided[newest],
        books=books,
        background=background,
        overrides=overrides,
        initial=_initial(rows.symbols, forecasts, newest, policy, open_interest or {}),
    )
    return _recorded(levels, decisions["ts"].iloc[rows.contract].reset_index(drop=True), origin)


def latest_forecasts(
    panels: Mapping[int, Panel], forecasts: Mapping[int, TailForecast], model: str, version: str
) -> pd.DataFrame:
    """Return the ``forecasts`` table of every contract's latest decision.

    Args:
        panels: per horizon in minutes.
        forecasts: of them.
        model: name of the model.
        version: of it.

    Returns:
        A row a horizon, side, level and contract; what the model cannot tell is NaN.
    """
    parts = []
    for minutes, panel in panels.items():
        newest = latest_rows(panel.frame)
        made = forecasts[minutes].rows(newest)
        beyond = made.expected_shortfall
        for i, side in enumerate(made.sides):
            for j, level in enumerate(made.levels):
                part = panel.frame[["symbol", "ts"]].iloc[newest].reset_index(drop=True)
                part = part.assign(horizon_minutes=minutes, side=side, level=level)
                part["forecast"] = made.quantiles[:, i, j]
                part["expected_shortfall"] = np.nan if beyond is None else beyond[:, i, j]
                parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    return table.assign(model=model, model_version=version)


def _initial(
    symbols: Sequence[str],
    forecasts: Mapping[int, TailForecast],
    newest: "np.ndarray[tuple[int], np.dtype[np.intp]]",
    policy: MarginPolicy,
    open_interest: Mapping[str, Held],
) -> InitialInputs:
    """Return what initial margins hang on beside the maintenance margin."""
    by_side: dict[Side, FloatArray] = {}
    if (other := policy.initial.forecast) is not None:
        made = forecasts[other.horizon // timedelta(minutes=1)]
        by_side = {side: made.at(side, other.level)[newest] for side in made.sides}
    section = policy.open_interest
    if section is None:
        return InitialInputs(by_side, None)
    return InitialInputs(by_side, open_interest_shares(symbols, open_interest, section))


def score_fallback(
    reasons: Mapping[str, str],
    policy: MarginPolicy,
    schedule: BaseSchedule,
    *,
    at: datetime,
    origin: Origin,
    overrides: Sequence[Override] = (),
) -> pd.DataFrame:
    """Return the base schedule for contracts that cannot be forecast.

    Args:
        reasons: by contract, why it cannot.
        policy: the margin policy.
        schedule: the base schedule.
        at: moment of use, UTC.
        origin: what to record beside every number.
        overrides: see :func:`score`.
    """
    symbols = sorted(reasons)
    rows = tier_rows(symbols, schedule, policy)
    levels = fallback_levels(
        rows,
        policy,
        [reasons[symbol] for symbol in symbols],
        Background.none(len(rows), _moment(at)),
        overrides,
    )
    return _recorded(levels, pd.Series(pd.NaT, levels.index), origin)


def _moment(at: datetime) -> np.datetime64:
    return np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us")


def _recorded(
    levels: pd.DataFrame, data_as_of: "pd.Series[pd.Timestamp]", origin: Origin
) -> pd.DataFrame:
    """Write beside every number what it was made from."""
    utc = pd.to_datetime(data_as_of, utc=True).dt.as_unit("us")
    return levels.assign(data_as_of=utc, **asdict(origin))
