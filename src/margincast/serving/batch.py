"""Batch scoring: the champion's latest forecasts, turned into the margin levels a venue publishes.

Every contract of the data gets a row a side and tier. Where its forecast cannot be used (stale
data, an unknown feature, no champion) the row is the base schedule with status ``fallback`` and
the reason: a contract is never left without a margin.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from margincast.core.errors import CheckFailedError
from margincast.core.types import SIDES, FloatArray, Side
from margincast.margin.background import Background, Remembered
from margincast.margin.beside_maintenance import InitialInputs
from margincast.margin.level_inputs import LevelInputs
from margincast.margin.levels import costs_of, levels_of
from margincast.margin.liquidation_cost import Book
from margincast.margin.open_interest import Held, open_interest_shares
from margincast.margin.override import Override
from margincast.margin.tier_rows import Numbers, places_in, tier_rows
from margincast.models.protocol import Panel, TailForecast
from margincast.serving.background import Past, background_at
from margincast.serving.manifest import Manifest
from margincast.serving.scored import Origin, Scored
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/:;,'\"]*/)*")
"""An absolute path but for its last part."""


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


def latest_rows(frame: pd.DataFrame) -> Numbers:
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
    undecided: Mapping[str, str] | None = None,
    past: Past | None = None,
    delisted: Collection[str] = (),
) -> Scored:
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
        undecided: why there is no decision, by further contracts that need a margin too.
        past: what was published before; without it the forecasts of the past stand for it.
        delisted: contracts that get no margin; the others' long-run rates still rest on their
            history too.

    Returns:
        The ``margin_levels`` table, sorted by contract, side and tier, and what it was made of.
    """
    minutes = policy.model.horizon // timedelta(minutes=1)
    panel, predicted = panels[minutes], forecasts[minutes]
    newest = latest_rows(panel.frame)
    moment = _moment(at)
    undecided = undecided or {}
    decided = tier_rows(panel.frame["symbol"].iloc[newest].tolist(), schedule, policy)
    background = background_at(
        moment, panel, predicted, policy=policy, rows=decided, history=history, past=past
    )
    symbols = sorted({*decided.symbols, *undecided} - set(delisted))
    rows = tier_rows(symbols, schedule, policy)
    place = places_in(decided, rows)
    number = {symbol: contract for contract, symbol in enumerate(decided.symbols)}
    of_contract = np.array([number.get(symbol, -1) for symbol in symbols], dtype=np.intp)
    remembered = background.remembered.rows(place) if past is None else past(rows)
    wanted = {side: predicted.at(side, policy.model.level)[newest] for side in predicted.sides}
    costs, cost_reasons = costs_of(decided, policy, books)
    inputs = LevelInputs(
        rows.symbols,
        _of_sides(wanted, of_contract),
        np.where(of_contract >= 0, panel.decided[newest][of_contract], np.datetime64("NaT")),
        np.array([undecided.get(symbol, "") for symbol in symbols], dtype=object),
        _placed(costs, place),
        np.where(place >= 0, cost_reasons[place], ""),
        Background.of(
            moment,
            remembered,
            _placed(background.long_run, place),
            _placed(background.stressed, place),
        ),
        _initial(
            rows.symbols,
            forecasts,
            newest,
            of_contract,
            policy=policy,
            open_interest=open_interest or {},
        ),
    )
    return levels_from(inputs, policy, schedule, origin, overrides)


def _placed(values: FloatArray, place: Numbers) -> FloatArray:
    """Return values at their places; NaN where the place is -1."""
    return np.where(place >= 0, values[place], np.nan)


def _of_sides(wanted: Mapping[Side, FloatArray], place: Numbers) -> FloatArray:
    """Return values a side at their places, shape (k, S); NaN where there are none."""
    unknown = np.full(len(place), np.nan)
    columns = [_placed(wanted[side], place) if side in wanted else unknown for side in SIDES]
    return np.stack(columns, axis=1)


def score_fallback(
    reasons: Mapping[str, str],
    policy: MarginPolicy,
    schedule: BaseSchedule,
    *,
    at: datetime,
    origin: Origin,
    overrides: Sequence[Override] = (),
    past: Past | None = None,
) -> Scored:
    """Return the safe margins of contracts that cannot be forecast.

    Each is the larger of the base schedule's and the one published last.

    Args:
        reasons: by contract, why it cannot; whoever has a margin reads it, so that of the paths in
            it only the last part is kept.
        policy: the margin policy.
        schedule: the base schedule.
        at: moment of use, UTC.
        origin: what to record beside every number.
        overrides: see :func:`score`.
        past: see :func:`score`.
    """
    reasons = {symbol: without_folders(reason) for symbol, reason in reasons.items()}
    inputs = _undecided(reasons, policy, schedule, _moment(at), past)
    return levels_from(inputs, policy, schedule, origin, overrides)


def without_folders(text: str) -> str:
    """Return a text in which absolute paths are shortened to their last part.

    >>> without_folders("bundle /srv/m/mlruns/bundle: model/30m/long.txt was changed")
    'bundle bundle: model/30m/long.txt was changed'
    """
    return _FOLDERS.sub("", text)


def levels_from(
    inputs: LevelInputs,
    policy: MarginPolicy,
    schedule: BaseSchedule,
    origin: Origin,
    overrides: Sequence[Override],
) -> Scored:
    """Return the ``margin_levels`` table of recorded inputs, to the last bit each time."""
    rows = tier_rows(inputs.symbols, schedule, policy)
    made = levels_of(rows, inputs, policy, overrides)
    data_as_of = pd.DatetimeIndex(inputs.data_as_of[rows.contract]).tz_localize("UTC")
    # beside every number what it was made from
    made_from = {
        name: np.full(len(rows), value, dtype=object) for name, value in asdict(origin).items()
    }
    columns = {**made.columns, "data_as_of": data_as_of, **made_from}
    return Scored(columns, inputs, made.after, origin)


def _undecided(
    reasons: Mapping[str, str],
    policy: MarginPolicy,
    schedule: BaseSchedule,
    moment: np.datetime64,
    past: Past | None,
) -> LevelInputs:
    symbols = sorted(reasons)
    rows = tier_rows(symbols, schedule, policy)
    unknown = np.full(len(rows), np.nan)
    remembered = Remembered.nothing(len(rows)) if past is None else past(rows)
    return LevelInputs.unknown(
        rows,
        np.array([reasons[symbol] for symbol in symbols], dtype=object),
        Background.of(moment, remembered, unknown, unknown),
        policy,
    )


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
    newest: Numbers,
    of_contract: Numbers,
    *,
    policy: MarginPolicy,
    open_interest: Mapping[str, Held],
) -> InitialInputs:
    """Return what initial margins hang on beside the maintenance margin."""
    by_side: dict[Side, FloatArray] = {}
    if (other := policy.initial.forecast) is not None:
        made = forecasts[other.horizon // timedelta(minutes=1)]
        by_side = {
            side: _placed(made.at(side, other.level)[newest], of_contract) for side in made.sides
        }
    section = policy.open_interest
    if section is None:
        return InitialInputs(by_side, None)
    return InitialInputs(by_side, open_interest_shares(symbols, open_interest, section))


def _moment(at: datetime) -> np.datetime64:
    return np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us")
