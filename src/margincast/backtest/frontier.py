"""The frontier of policies: what steadiness costs, each setting judged on the same decisions.

Responsible for comparing margin policies fairly. A policy that charges more is exceeded less, so
every margin is also scaled to one rate of exceedances; what is left are its mean (what traders
pay), the losses beyond it (what the fund pays), and how violently it moves (Murphy, Vasios and
Vause 2014, Bank of England Financial Stability Paper 29). Settings are replayed side by side.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.backtest.cells import SMALLEST_MARGIN
from margincast.backtest.daily_margin import daily_measures, last_of_each_day, medians
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray, Side, Times
from margincast.margin.notice import InForce
from margincast.margin.parameters import Parameters
from margincast.margin.timeline import Forecasts, Rows, through_time
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.serving import MarginPolicy
from margincast.training.policy_inputs import references_of, wanted_of

MEASURES = ("peak_to_trough", "largest_1_day_rise", "largest_5_day_rise")
BPS = 1e4
NO_LIMIT = 1e12
"""Multiple of a base rate that nothing reaches."""


@dataclass(frozen=True)
class Standing:
    """How one margin stands.

    Attributes:
        exceedance_ratio: observed over promised exceedances, as published.
        mean_margin: as published, a fraction.
        shortfall_bps: mean loss beyond the margin as published, bps of notional a decision.
        scale: factor that brings it to the promised rate of exceedances; above 1 it charged too
            little.
        scaled_mean: mean of the scaled margin.
        scaled_shortfall_bps: mean loss beyond the scaled margin, bps of notional a decision.
        peak_to_trough, largest_1_day_rise, largest_5_day_rise: medians over contracts and sides of
            the margin of each day's end.
    """

    exceedance_ratio: float
    mean_margin: float
    shortfall_bps: float
    scale: float
    scaled_mean: float
    scaled_shortfall_bps: float
    peak_to_trough: float
    largest_1_day_rise: float
    largest_5_day_rise: float


@dataclass(frozen=True)
class Judge:
    """Decisions with their outcomes, made ready to judge many margins by.

    Attributes:
        decided: decision times, shape (n,).
        outcomes: shape (S, n).
        contracts: every contract's decisions, in order of time.
        judged: which decisions count, shape (n,).
        level: share of outcomes that a margin promises to cover.
    """

    decided: Times
    outcomes: FloatArray
    contracts: tuple[npt.NDArray[np.intp], ...]
    judged: BoolArray
    level: float

    @classmethod
    def of(
        cls,
        panel: Panel,
        sides: Sequence[Side],
        level: float,
        *,
        start: np.datetime64 | None = None,
        end: np.datetime64 | None = None,
    ) -> "Judge":
        """Return the judge of a panel's decisions from a start until before an end.

        Raises:
            InputError: there is none.
        """
        judged = np.ones(len(panel), dtype=bool)
        if start is not None:
            judged &= panel.decided >= start
        if end is not None:
            judged &= panel.decided < end
        if not judged.any():
            raise InputError(
                f"no decision from {start} until {end}; there are decisions from "
                f"{panel.decided[0]} to {panel.decided[-1]}"
            )
        names, contract_of = np.unique(
            panel.frame["symbol"].to_numpy(dtype=str), return_inverse=True
        )
        outcomes = np.stack([panel.outcomes[side] for side in sides])
        contracts = (np.flatnonzero((contract_of == c) & judged) for c in range(len(names)))
        own = tuple(rows for rows in contracts if len(rows))
        return cls(panel.decided, outcomes, own, judged, level)

    def standing(self, margins: FloatArray) -> Standing:
        """Judge a margin.

        Args:
            margins: rates in force at the decisions, shape (S, n); NaN where there is none.

        Raises:
            InputError: no decision has both an outcome and a margin.
        """
        known = np.isfinite(self.outcomes) & np.isfinite(margins) & self.judged
        if not known.any():
            raise InputError("no decision has both an outcome and a margin; nothing can be judged")
        outcome, margin = self.outcomes[known], margins[known]
        scale = float(np.quantile(outcome / margin, self.level))
        records: list[dict[str, float] | None] = []
        for own in self.contracts:
            records += map(daily_measures, last_of_each_day(self.decided[own], margins[:, own]))
        return Standing(
            exceedance_ratio=float((outcome > margin).mean() / (1.0 - self.level)),
            mean_margin=float(margin.mean()),
            shortfall_bps=BPS * float(np.maximum(outcome - margin, 0.0).mean()),
            scale=scale,
            scaled_mean=scale * float(margin.mean()),
            scaled_shortfall_bps=BPS * float(np.maximum(outcome - scale * margin, 0.0).mean()),
            **medians(records, MEASURES),
        )


def replay_settings(
    panel: Panel,
    forecast: TailForecast,
    policies: Mapping[str, MarginPolicy],
    history: Panel,
    *,
    at_a_time: int = 40,
) -> Iterator[tuple[str, FloatArray]]:
    """Yield each policy's margins in force, shape (S, n), for the excursion alone.

    Liquidation cost and base schedule are left out, because they are the same for all; the policies
    differ in nothing else than numbers of the chain.

    Args:
        panel: the n decisions, sorted by time.
        forecast: of them.
        policies: by name; with one level, grid, rhythm, notice and long-run window.
        history: see :func:`~margincast.backtest.published.published_margin`.
        at_a_time: settings replayed side by side; memory grows with it.

    Raises:
        InputError: policies that differ in what must be one.
    """
    _require_comparable(policies)
    names = list(policies)
    first = policies[names[0]]
    symbols, contract_of = np.unique(panel.frame["symbol"].to_numpy(dtype=str), return_inverse=True)
    forecasts = Forecasts(panel.decided, contract_of, wanted_of(forecast, forecast.sides, first))
    looking_back = next((one for one in policies.values() if one.long_run is not None), first)
    references = references_of(
        history, symbols.tolist(), forecast.sides, panel.decided, looking_back
    )
    width = len(forecast.sides) * len(symbols)
    for start in range(0, len(names), at_a_time):
        chosen = names[start : start + at_a_time]
        nothing = np.zeros(len(chosen) * width)
        shape = (len(chosen), len(forecast.sides), len(symbols))
        made = np.empty((*shape[:2], len(panel)), dtype=np.float32)
        in_force = InForce.blank(len(nothing))
        for moment in through_time(
            forecasts,
            Rows(len(symbols), len(forecast.sides), nothing + SMALLEST_MARGIN, nothing),
            Parameters.side_by_side([policies[name] for name in chosen], width),
            references=references,
            publish_every=first.publication.every if first.publication is not None else None,
            max_data_age=first.staleness.max_data_age,
        ):
            if moment.published is not None:
                at_once: BoolArray = moment.first | moment.published.fallback
                in_force = in_force.publish(moment.published.mmr, moment.at, first, at_once=at_once)
            else:
                in_force = in_force.at(moment.at)
            own = contract_of[moment.decisions]
            made[:, :, moment.decisions] = in_force.mmr.reshape(shape)[:, :, own]
        for name, rates in zip(chosen, made, strict=True):
            yield name, rates.astype(np.float64)


def efficient(table: pd.DataFrame, costs: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return the rows that no other row beats in one cost without losing in another, shape (n,).

    Args:
        table: a row a setting.
        costs: columns of which less is better.
    """
    values = table[list(costs)].to_numpy(np.float64)
    no_worse = (values[:, None, :] <= values[None, :, :]).all(axis=2)
    better = (values[:, None, :] < values[None, :, :]).any(axis=2)
    return np.asarray(~(no_worse & better).any(axis=0), dtype=np.bool_)


def table_of(standings: Mapping[str, Standing]) -> pd.DataFrame:
    """Return a row a margin: ``setting`` and the fields of :class:`Standing`."""
    return pd.DataFrame([{"setting": name, **asdict(one)} for name, one in standings.items()])


def _require_comparable(policies: Mapping[str, MarginPolicy]) -> None:
    if not policies:
        raise InputError("there is no policy to replay")
    same: dict[str, set[object]] = {
        "model": {one.model for one in policies.values()},
        "forecast": {one.forecast for one in policies.values()},
        "staleness.max_data_age": {one.staleness.max_data_age for one in policies.values()},
        "rounding.mmr_step": {one.rounding.mmr_step for one in policies.values()},
        "publication.every and notice": {
            (p.every, p.notice_of_rise, p.notice_of_fall) if (p := one.publication) else None
            for one in policies.values()
        },
        "long_run.window and minimum_history": {
            (one.long_run.window, one.long_run.minimum_history)
            for one in policies.values()
            if one.long_run is not None
        },
        "stress.period": {one.stress.period for one in policies.values() if one.stress is not None},
    }
    different = [name for name, values in same.items() if len(values) > 1]
    if different:
        raise InputError(
            f"settings replayed side by side share {', '.join(different)}; vary other keys"
        )


def without_steadying(policy: MarginPolicy) -> MarginPolicy:
    """Return a policy without all that keeps a margin from following its forecast."""
    publication = policy.publication
    return policy.model_copy(
        update={
            "buffer": policy.buffer.model_copy(update={"drawdown": None}),
            "stress": None,
            "long_run": None,
            "speed": None,
            "publication": publication and publication.model_copy(update={"hold": 0.0}),
        }
    )


def without_cost(policy: MarginPolicy) -> MarginPolicy:
    """Return a policy of the excursion alone: no cost, no floors and caps of the venue."""
    limits = policy.limits.model_copy(
        update={
            "mmr_floor": policy.rounding.mmr_step,
            "mmr_cap": 1.0 - policy.rounding.mmr_step,
            "multiplier_floor": 0.0,
            "multiplier_cap": NO_LIMIT,
        }
    )
    return policy.model_copy(update={"limits": limits})
