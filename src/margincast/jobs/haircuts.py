"""``margincast haircuts``: what collateral counts for, from tail forecasts of its own prices."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.backtest.submitted import read_submitted
from margincast.core.errors import InputError, did_you_mean
from margincast.core.time import format_duration
from margincast.core.types import FloatArray
from margincast.data.bars import interval_of, read_bars
from margincast.data.writing import write_table
from margincast.jobs.console import output, say
from margincast.jobs.moment import moment_of
from margincast.margin.collateral import (
    HAIRCUT_STEPS,
    HaircutInputs,
    haircuts,
    tail_quantile,
    wrong_way_exceedance,
)
from margincast.margin.reference import Outcomes, reference_rates
from margincast.specs.collateral import Asset, CollateralPolicy
from margincast.specs.loading import load_spec
from margincast.training.policy_inputs import history_of

BPS = 1e-4
NO_MARKET = "no market risk: its own floor"


@dataclass(frozen=True)
class Known:
    """What is known of one asset's price at the moment of use.

    Attributes:
        forecast: long-side forecast at the policy's level; 0 of an asset without market risk, NaN
            where it cannot be used.
        tail_forecast: the same at the tail level.
        as_of: its decision time.
        problem: why it cannot be used; empty otherwise.
    """

    forecast: float
    tail_forecast: float
    as_of: pd.Timestamp | None
    problem: str


def run(
    spec: Path,
    forecasts: Path,
    bars: Sequence[str],
    out: Path | None,
    *,
    subject: str | None = None,
    at: str | None = None,
    overrides: Sequence[str] = (),
) -> pd.DataFrame:
    """Make haircuts and write ``haircuts.parquet``.

    Args:
        spec: the collateral policy.
        forecasts: of a scoring run or a backtest.
        bars: folders or files of the contracts' bars, for a policy with ``[long_run]``.
        out: folder; ``out/haircuts`` if not given.
        subject: model whose forecasts are used; the table's first if not given.
        at: moment of use, or ``now``; the newest time of the forecasts if not given.
        overrides: ``section.key=value`` texts.

    Raises:
        InputError: policy, forecasts or bars that cannot be used.
    """
    policy = load_spec(spec, CollateralPolicy, overrides)
    table = read_submitted(forecasts, [subject] if subject else ())
    model = subject or str(table["model"].iloc[0])
    table = table[(table["model"] == model) & (table["side"] == "long")]
    moment = _moment(at, table)
    known = [_known(asset, table, policy, moment) for asset in policy.assets]
    made = _made(policy, known, _long_run(policy, bars, moment))
    made = made.assign(model=model, effective_from=moment, policy_hash=policy.digest()[:32])
    path = (out or Path("out") / "haircuts") / "haircuts.parquet"
    write_table(made, path)
    output.print(_terminal_table(made, moment))
    for row in made[made["status"] == "fallback"].to_dict(orient="records"):
        say(f"{row['asset']}: {row['reason']}")
    output.print(f"haircuts: {path}", soft_wrap=True)
    return made


def _moment(at: str | None, table: pd.DataFrame) -> pd.Timestamp:
    if at is None:
        newest = table["ts"].max()
        assert isinstance(newest, pd.Timestamp)
        return newest
    return pd.Timestamp(moment_of(at)).as_unit("us")


def _known(
    asset: Asset, table: pd.DataFrame, policy: CollateralPolicy, moment: pd.Timestamp
) -> Known:
    """Take the latest forecasts of an asset at the moment of use."""
    market = asset.market
    if market is None:
        return Known(0.0, 0.0, None, "")
    minutes = market.horizon / timedelta(minutes=1)
    own = table[(table["symbol"] == market.contract) & (table["horizon_minutes"] == minutes)]
    levels = (policy.forecast.level, policy.forecast.tail_level)
    missing = [level for level in levels if not (own["level"] == level).any()]
    if missing:
        names = sorted(set(table["symbol"].astype(str)))
        hint = did_you_mean(market.contract, names) if market.contract not in names else ""
        what = f"long side of {market.contract} over {format_duration(market.horizon)}"
        return Known(np.nan, np.nan, None, f"no forecast of the {what} at {missing[0]:g}{hint}")
    own = own[own["level"].isin(levels) & (own["ts"] <= moment)]
    latest = own[own["ts"] == own["ts"].max()].set_index("level")["forecast"]
    if latest.empty:
        return Known(np.nan, np.nan, None, f"no forecast of {market.contract} by {moment:%F %H:%M}")
    as_of = own["ts"].max()
    if moment - as_of > policy.forecast.max_age:
        allowed = format_duration(policy.forecast.max_age)
        problem = f"forecast of {as_of:%F %H:%M} UTC is stale: allowed age {allowed}"
        return Known(np.nan, np.nan, as_of, problem)
    low, high = (float(latest.get(level, np.nan)) for level in levels)
    if not 0.0 <= low <= high < 1.0:
        problem = f"forecasts {low:g} and {high:g} are not rising fractions below 1"
        return Known(np.nan, np.nan, as_of, problem)
    return Known(low, high, as_of, "")


def _long_run(policy: CollateralPolicy, bars: Sequence[str], moment: pd.Timestamp) -> FloatArray:
    """Return the long-run quantile of every asset's falls; NaN where it has none."""
    found = np.full(len(policy.assets), np.nan)
    long_run = policy.long_run
    if long_run is None:
        return found
    if not bars:
        raise InputError(
            f"collateral policy {policy.name} has [long_run]: give the contracts' bars with --bars"
        )
    markets = [(i, each.market) for i, each in enumerate(policy.assets) if each.market is not None]
    contracts = tuple(sorted({market.contract for _, market in markets}))
    read = read_bars(Path(), list(bars), contracts, interval_of(Path(), bars))
    at = np.array([moment.tz_convert(None).to_datetime64()], dtype="datetime64[us]")
    for horizon in sorted({market.horizon for _, market in markets}):
        own = [(i, market.contract) for i, market in markets if market.horizon == horizon]
        history = history_of(read, horizon)
        names = history.frame["symbol"].to_numpy(dtype=str)
        outcomes = []
        for _, contract in own:
            rows = np.flatnonzero(names == contract)
            outcomes.append(
                Outcomes(
                    "long",
                    history.decided[rows],
                    history.label_end[rows],
                    history.outcomes["long"][rows],
                )
            )
        rates = reference_rates(
            outcomes,
            at,
            level=policy.forecast.level,
            window=long_run.window,
            period=long_run.window,
            minimum_history=long_run.minimum_history,
        )
        found[[i for i, _ in own]] = rates.long_run[0]
    return found


def _made(policy: CollateralPolicy, known: Sequence[Known], long_run: FloatArray) -> pd.DataFrame:
    """Put every asset through the chain: plain, and against longs in its own and in another."""
    assets, level, tail = policy.assets, policy.forecast.level, policy.forecast.tail_level
    forecast = np.array([each.forecast for each in known])
    tail_forecast = np.array([each.tail_forecast for each in known])
    joint = np.array([each.market.joint_tail if each.market else 0.0 for each in assets])
    own = np.array([1.0 if each.market else 0.0 for each in assets])
    share = policy.long_run.floor if policy.long_run is not None else np.nan
    cost = np.array([each.market.cost_bps * BPS if each.market else 0.0 for each in assets])
    depeg = np.array([each.depeg_floor or 0.0 for each in assets])
    fallback = np.array([each.market.fallback if each.market else np.nan for each in assets])
    made = {}
    of_case: dict[str, FloatArray] = {"": forecast}
    for case, chi in (("own_", own), ("other_", joint)):
        of_case[case] = tail_quantile(
            forecast,
            tail_forecast,
            wrong_way_exceedance(level, chi),
            level=level,
            tail_level=tail,
        )
    for case, value in of_case.items():
        # a fall of everything is a haircut of everything, which the cap then limits
        usable = np.where(np.isfinite(value), np.minimum(value, np.nextafter(1.0, 0.0)), np.nan)
        inputs = HaircutInputs(usable, cost, share * long_run, depeg, fallback)
        limits = policy.limits
        made[case] = haircuts(inputs, floor=limits.floor, cap=limits.cap, step=limits.step)
    plain = made[""]
    columns: dict[str, npt.NDArray[np.object_] | FloatArray | list[object]] = {
        "asset": [each.asset for each in assets],
        "contract": [each.market.contract if each.market else None for each in assets],
        "haircut": plain.haircut,
        "own_haircut": made["own_"].haircut,
        "other_haircut": made["other_"].haircut,
        "forecast": forecast,
        "tail_forecast": tail_forecast,
        "own_forecast": of_case["own_"],
        "other_forecast": of_case["other_"],
        "cost": cost,
        "long_run_rate": long_run,
        "depeg_floor": depeg,
    }
    after = dict(zip(HAIRCUT_STEPS, plain.values, strict=True))  # an array of the chain
    columns |= {
        "step_" + step.replace(" ", "_").replace("-", "_"): rates for step, rates in after.items()
    }
    columns["binding_rule"] = np.array(plain.binding(), dtype=object)
    columns["status"] = np.where(plain.fallback, "fallback", "ok").astype(object)
    columns["reason"] = [
        _reason(asset, each, rule, policy)
        for asset, each, rule in zip(assets, known, plain.binding(), strict=True)
    ]
    found = pd.DataFrame(columns)
    times = [each.as_of if each.as_of is not None else pd.NaT for each in known]
    found["data_as_of"] = pd.to_datetime(pd.Series(times), utc=True).dt.as_unit("us")
    return found


def _reason(asset: Asset, known: Known, rule: str, policy: CollateralPolicy) -> str:
    market = asset.market
    if known.problem:
        return f"fallback of the policy: {known.problem}"
    if rule == "forecast":
        assert market is not None
        return (
            f"{policy.forecast.level:g} quantile of the fall of {market.contract} over "
            f"{format_duration(market.horizon)}, and {market.cost_bps:g} bps for selling"
        )
    return {
        "long-run floor": "raised to the share of its long-run quantile",
        "depeg floor": f"raised to the depeg floor of {asset.asset}",
        "floor": "raised to the least haircut",
        "cap": "lowered to the largest haircut: it does not cover the forecast",
    }.get(rule, NO_MARKET)


def _terminal_table(made: pd.DataFrame, moment: pd.Timestamp) -> Table:
    table = Table(
        title=f"Haircuts, effective from {moment:%F %H:%M} UTC", box=SIMPLE_HEAD, padding=0
    )
    table.add_column("asset", no_wrap=True)
    for heading in ("forecast", "haircut", "own long", "other long"):
        table.add_column(heading, justify="right")
    table.add_column("binding rule")
    for row in made.to_dict(orient="records"):
        table.add_row(
            row["asset"],
            f"{row['forecast']:.2%}" if row["contract"] and row["status"] == "ok" else "-",
            *(f"{row[name]:.2%}" for name in ("haircut", "own_haircut", "other_haircut")),
            row["binding_rule"],
            style=None if row["status"] == "ok" else "yellow",
        )
    table.caption = (
        "own long, other long: of collateral that stands behind a long in its own contract, or in "
        "another"
    )
    return table
