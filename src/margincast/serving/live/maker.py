"""Margin levels of a live moment: what batch scoring makes of a table, made of what stands.

Responsible for the numbers of a live margin. They go the one road of
:func:`~margincast.serving.batch.levels_from`; what is kept here between two moments is what a batch
reads anew: each contract's newest forecast, the books, long-run rates, and what the last
publication left behind.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from margincast.core.errors import InputError
from margincast.core.types import SIDES, FloatArray, Side
from margincast.margin.background import Background, Remembered
from margincast.margin.beside_maintenance import InitialInputs
from margincast.margin.level_inputs import LevelInputs
from margincast.margin.levels import costs_of
from margincast.margin.liquidation_cost import Book
from margincast.margin.override import Override
from margincast.margin.tier_rows import TierRows, places_in, tier_rows
from margincast.models.protocol import TailForecast
from margincast.serving.batch import levels_from
from margincast.serving.scored import Origin, Scored
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

NO_DECISION = "no decision yet"


@dataclass(frozen=True)
class Rates:
    """Long-run and stressed rates of all rows, shape (k,) each, from a moment on."""

    since: np.datetime64
    long_run: FloatArray
    stressed: FloatArray


RatesAt = Callable[[np.datetime64], Rates]
"""Gives the rates that hold at a moment; asked at the start of every month."""


@dataclass(frozen=True)
class _Latest:
    decided: np.datetime64
    forecasts: Mapping[Side, float]
    initial: Mapping[Side, float]


@dataclass
class Maker:
    """Makes the margin levels of one policy, moment after moment.

    Attributes:
        policy: the margin policy.
        schedule: its base schedule.
        first: levels to go on from, as batch scoring made them: their contracts have a margin, and
            what they leave behind is remembered.
        rates_at: long-run rates of a later month.
    """

    policy: MarginPolicy
    schedule: BaseSchedule
    first: InitVar[Scored]
    rates_at: RatesAt
    symbols: tuple[str, ...] = field(init=False)
    origin: Origin = field(init=False)
    remembered: Remembered = field(init=False)
    _undecided: Mapping[str, str] = field(init=False)
    _rows: TierRows = field(init=False)
    _rates: Rates = field(init=False)
    _latest: dict[str, _Latest] = field(init=False)

    def __post_init__(self, first: Scored) -> None:
        if self.policy.open_interest is not None:
            raise InputError(
                f"policy {self.policy.name} has [open_interest], which live mode does not follow; "
                "score it in batch, or leave the section out"
            )
        inputs = first.inputs
        self.symbols, self.origin, self.remembered = inputs.symbols, first.origin, first.after
        require_base_above_floor(self.schedule, self.symbols, self.policy)
        self._rows = tier_rows(self.symbols, self.schedule, self.policy)
        background = inputs.background
        self._rates = Rates(background.at, background.long_run, background.stressed)
        self._undecided = dict(zip(self.symbols, inputs.reasons.tolist(), strict=True))
        unknown = np.full(len(self.symbols), np.nan)
        initial = [inputs.initial.forecasts.get(side, unknown) for side in SIDES]
        self._latest = {
            symbol: _Latest(
                inputs.data_as_of[place],
                dict(zip(SIDES, inputs.forecasts[place].tolist(), strict=True)),
                dict(zip(SIDES, (float(values[place]) for values in initial), strict=True)),
            )
            for place, symbol in enumerate(self.symbols)
            if not np.isnat(inputs.data_as_of[place])
        }

    @property
    def decided_on(self) -> tuple[str, ...]:
        """Contracts that the last decision was taken on."""
        last = max((one.decided for one in self._latest.values()), default=None)
        return tuple(symbol for symbol, one in self._latest.items() if one.decided == last)

    @property
    def known(self) -> frozenset[str]:
        """Contracts that ever had a decision."""
        return frozenset(self._latest)

    def take(self, frame: pd.DataFrame, forecasts: Mapping[int, TailForecast]) -> set[str]:
        """Take in the forecasts of a decision; returns the contracts with a usable one.

        Args:
            frame: the decisions: ``symbol`` and ``ts``.
            forecasts: of them, by horizon in minutes.
        """
        chosen, other = self.policy.model, self.policy.initial.forecast
        made = _by_side(forecasts[chosen.horizon // timedelta(minutes=1)], chosen.level)
        initial: dict[Side, FloatArray] = {}
        if other is not None:
            initial = _by_side(forecasts[other.horizon // timedelta(minutes=1)], other.level)
        decided = frame["ts"].to_numpy(dtype="datetime64[us]")
        good = set()
        for place, symbol in enumerate(frame["symbol"].to_list()):
            own = {side: float(values[place]) for side, values in made.items()}
            self._latest[symbol] = _Latest(
                decided[place],
                own,
                {side: float(values[place]) for side, values in initial.items()},
            )
            largest = self.policy.forecast.largest_plausible
            if all(0.0 < value <= largest for value in own.values()):
                good.add(symbol)
        return good

    def problem(self, symbol: str) -> str | None:
        """Say why the newest forecast of a contract cannot be used; None where it can."""
        latest = self._latest.get(symbol)
        if latest is None:
            return None
        largest = self.policy.forecast.largest_plausible
        for side, value in latest.forecasts.items():
            if not 0.0 < value <= largest:
                return f"{side} forecast {value:g} is not above 0 and at most {largest:g}"
        return None

    def make(
        self,
        at: np.datetime64,
        symbols: Sequence[str],
        reasons: Mapping[str, str],
        books: Mapping[str, Book],
        overrides: Sequence[Override] = (),
    ) -> Scored:
        """Make the levels of some contracts.

        Args:
            at: the moment, UTC, after the one of the last publication.
            symbols: contracts, sorted.
            reasons: why a contract falls back, whatever its forecast is.
            books: latest order books.
            overrides: margins set by hand that are in force, oldest first.
        """
        rows = tier_rows(symbols, self.schedule, self.policy)
        everybody = tuple(symbols) == self.symbols  # most often, and then nothing is to be chosen
        place = places_in(self._rows, rows)
        rates = self._rates_of(at)
        latest = [self._latest.get(symbol) for symbol in symbols]
        costs, cost_reasons = costs_of(rows, self.policy, books)
        # who falls back is asked for no cost: his rates are the ones published last
        asked = [
            one is not None and not reasons.get(symbol)
            for symbol, one in zip(symbols, latest, strict=True)
        ]
        known = np.repeat(asked, _counts(rows))
        inputs = LevelInputs(
            rows.symbols,
            _table([None if one is None else one.forecasts for one in latest]),
            np.array(
                [np.datetime64("NaT", "us") if one is None else one.decided for one in latest],
                dtype="datetime64[us]",
            ),
            np.array(
                [
                    reasons.get(symbol)
                    or ("" if one is not None else self._undecided[symbol] or NO_DECISION)
                    for symbol, one in zip(symbols, latest, strict=True)
                ],
                dtype=object,
            ),
            np.where(known, costs, np.nan),
            np.where(known, cost_reasons, ""),
            Background.of(
                at,
                self.remembered if everybody else self.remembered.rows(place),
                np.where(known, rates.long_run[place], np.nan),
                np.where(known, rates.stressed[place], np.nan),
            ),
            self._initial(latest),
        )
        return levels_from(inputs, self.policy, self.schedule, self.origin, overrides)

    def after_last(self, moment: np.datetime64) -> np.datetime64:
        """Return a moment, or the first one after the last publication where that is later."""
        published = self.remembered.memory.at
        if published is None:
            return moment
        return max(moment, published + np.timedelta64(1, "us"))

    def publish(self, scored: Scored) -> None:
        """Remember levels of all contracts as published."""
        self.remembered = scored.after

    def go_on_from(self, past: Callable[[TierRows], Remembered]) -> None:
        """Remember what somebody else published."""
        self.remembered = past(self._rows)

    def _rates_of(self, at: np.datetime64) -> Rates:
        month = at.astype("datetime64[M]")
        if self._rates.since.astype("datetime64[M]") != month:
            self._rates = self.rates_at(at)
        return self._rates

    def _initial(self, latest: Sequence[_Latest | None]) -> InitialInputs:
        if self.policy.initial.forecast is None:
            return InitialInputs({}, None)
        table = _table([None if one is None else one.initial for one in latest])
        return InitialInputs({side: table[:, i] for i, side in enumerate(SIDES)}, None)


def require_base_above_floor(
    schedule: BaseSchedule, symbols: Sequence[str], policy: MarginPolicy
) -> None:
    """Check that no fallback can lie below the policy's floor.

    Raises:
        InputError: the base schedule has a tier below it.
    """
    rows = tier_rows(symbols, schedule, policy)
    floor = policy.limits.mmr_floor
    low = np.flatnonzero(rows.base_mmr < floor)
    if len(low):
        symbol = rows.symbols[rows.contract[low[0]]]
        raise InputError(
            f"schedule {schedule.name}: tier {rows.tier[low[0]]} of {symbol} has MMR "
            f"{rows.base_mmr[low[0]]:g}, below limits.mmr_floor {floor:g} of policy {policy.name}: "
            "a fallback to it would lie below the floor; raise the schedule or lower the floor"
        )


def now_us(at: datetime) -> np.datetime64:
    """Return a UTC time as margins are made for it."""
    return np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us")


def _by_side(forecast: TailForecast, level: float) -> dict[Side, FloatArray]:
    return {side: forecast.at(side, level) for side in forecast.sides}


def _table(values: Sequence[Mapping[Side, float] | None]) -> FloatArray:
    """Return values a contract and side, shape (C, S); NaN where there are none."""
    return np.array(
        [[np.nan if one is None else one.get(side, np.nan) for side in SIDES] for one in values]
    ).reshape(len(values), len(SIDES))


def _counts(rows: TierRows) -> list[int]:
    """Rows of each contract."""
    return [len(SIDES) * len(tiers) for tiers in rows.tiers]
