"""``margincast frontier``: what steadiness costs, over a grid of settings of a margin policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.backtest.frontier import (
    Judge,
    Standing,
    efficient,
    replay_settings,
    table_of,
    without_cost,
    without_steadying,
)
from margincast.backtest.frontier_page import render_frontier
from margincast.backtest.replay import Replay
from margincast.backtest.report import write_page
from margincast.backtest.submitted import join_outcomes, models_of, read_submitted
from margincast.core.errors import InputError, did_you_mean
from margincast.core.time import format_duration, parse_instant
from margincast.core.types import FloatArray
from margincast.data.bars import interval_of, read_bars
from margincast.data.writing import write_table
from margincast.jobs.console import output, progress, say
from margincast.specs.loading import load_spec
from margincast.specs.serving import MarginPolicy
from margincast.training.policy_inputs import history_of, wanted_of

COSTS = ("scaled_mean", "scaled_shortfall_bps", "peak_to_trough", "largest_1_day_rise")
IN_FORCE = "in force"
STEADYING_OFF = "in force, nothing steadied"
MOST_ROWS = 25


@dataclass(frozen=True)
class Frontier:
    """A finished study: a row a margin, and the page."""

    table: pd.DataFrame
    page: Path


def run(
    spec: Path,
    forecasts: Path,
    bars: Sequence[str],
    vary: Sequence[str],
    out: Path | None,
    *,
    start: str | None = None,
    end: str | None = None,
    subject: str | None = None,
    against: str | None = None,
) -> Frontier:
    """Replay a policy and all combinations of other settings; write table and page.

    Args:
        spec: the margin policy in force.
        forecasts: of a backtest, with the policy's level and horizon.
        bars: folders or files of the bars they are of.
        vary: ``section.key=value,value,...`` texts; none judges the policy in force alone.
        out: folder; ``out/frontier`` if not given.
        start: first moment that is judged; margins are replayed from the first forecast on.
        end: moment from which on nothing is judged.
        subject: model whose forecasts are margined; the table's first if not given.
        against: model that stands beside it, without a policy and behind the one in force.

    Raises:
        InputError: policy, settings, forecasts or bars that cannot be used.
    """
    policy = load_spec(spec, MarginPolicy)
    settings = _settings(spec, vary)
    say(f"reading {forecasts}")
    # the first model of a table is known only once all of it is read
    named = [name for name in (subject, against) if name] if subject else []
    table = read_submitted(forecasts, named)
    read = read_bars(Path(), list(bars), (), interval_of(Path(), bars))
    replay = _replay_of(policy, join_outcomes(table, read).replays)
    names = models_of({0: replay})
    chosen, other = _known(subject or names[0], names), against and _known(against, names)
    history = history_of(read, policy.model.horizon)
    panel = replay.panel
    standings: dict[str, Standing] = {}
    kinds: dict[str, str] = {}

    def judge(name: str, kind: str, margins: FloatArray) -> None:
        standings[name] = judgement.standing(margins)
        kinds[name] = kind

    sides = replay.forecasts[chosen].sides
    judgement = Judge.of(
        panel, sides, policy.model.level, start=_moment(start, "from"), end=_moment(end, "until")
    )
    for name in dict.fromkeys((chosen, other or chosen)):
        forecast = replay.forecasts[name]
        judge(name, "forecast", wanted_of(forecast, sides, policy))
    every = {name: without_cost(one) for name, one in {IN_FORCE: policy, **settings}.items()}
    bare = without_cost(without_steadying(policy))
    with progress("settings", len(every) + 1 + 2 * (other is not None)) as counter:
        for name, margins in replay_settings(panel, replay.forecasts[chosen], every, history):
            judge(name, "setting", margins)
            counter.advance(name)
        beside = [(chosen, {STEADYING_OFF: bare})]
        if other is not None:
            behind = (f"{other}, {IN_FORCE}", f"{other}, {STEADYING_OFF}")
            beside.append((other, dict(zip(behind, (every[IN_FORCE], bare), strict=True))))
        for model, policies in beside:
            for name, margins in replay_settings(panel, replay.forecasts[model], policies, history):
                judge(name, "other", margins)
                counter.advance(name)
    found = table_of(standings)
    found.insert(1, "kind", [kinds[name] for name in found["setting"]])
    found["efficient"] = False
    of_settings = found["kind"] == "setting"
    found.loc[of_settings, "efficient"] = efficient(found[of_settings], COSTS)
    folder = out or Path("out") / "frontier"
    write_table(found, folder / "frontier.parquet")
    page = folder / "frontier.html"
    judged = int(judgement.judged.sum())
    write_page(page, render_frontier(found, policy, IN_FORCE, chosen, judged))
    output.print(_terminal_table(found))
    output.print(f"frontier: {page}", soft_wrap=True)
    return Frontier(found, page)


def _settings(spec: Path, vary: Sequence[str]) -> dict[str, MarginPolicy]:
    if not vary:
        return {}
    axes = []
    for text in vary:
        key, separator, values = text.partition("=")
        if not separator or not all(value.strip() for value in values.split(",")):
            raise InputError(f"--vary {text!r}: write section.key=value,value,...")
        axes.append([f"{key.strip()}={value.strip()}" for value in values.split(",")])
    return {
        " ".join(chosen): load_spec(spec, MarginPolicy, list(chosen)) for chosen in product(*axes)
    }


def _moment(text: str | None, option: str) -> np.datetime64 | None:
    if text is None:
        return None
    try:
        return np.datetime64(parse_instant(text).replace(tzinfo=None), "us")
    except ValueError as error:
        raise InputError(f"--{option}: {error}") from None


def _replay_of(policy: MarginPolicy, replays: dict[int, Replay]) -> Replay:
    minutes = policy.model.horizon // timedelta(minutes=1)
    if minutes not in replays:
        known = ", ".join(f"{one} min" for one in replays)
        raise InputError(
            f"policy {policy.name} margins {format_duration(policy.model.horizon)}, the forecasts "
            f"are of {known}"
        )
    replay = replays[minutes]
    levels = next(iter(replay.forecasts.values())).levels
    if policy.model.level not in levels:
        raise InputError(
            f"policy {policy.name} margins level {policy.model.level:g}, the forecasts have "
            f"{', '.join(f'{level:g}' for level in levels)}"
        )
    return replay


def _known(name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise InputError(
            f"no forecast of {name!r}{did_you_mean(name, names)}; there are {', '.join(names)}"
        )
    return name


def _terminal_table(found: pd.DataFrame) -> Table:
    """The policy in force, forecasts alone and efficient settings, at one exceedance rate."""
    table = Table(
        title="At one rate of exceedances (efficient settings, cheapest first)",
        box=SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("margin", max_width=58)
    for name in (
        "mean\nmargin", "beyond\nbps", "one-day\nrise", "five-day\nrise", "peak /\ntrough",
        "mean as\npublished", "beyond\nbps", "exceeded",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    others = found[found["kind"] != "setting"]
    own = found[(found["setting"] == IN_FORCE)]
    rest = found[found["efficient"] & (found["setting"] != IN_FORCE)].sort_values("scaled_mean")
    for _, row in pd.concat([others, own, rest.head(MOST_ROWS)]).iterrows():
        table.add_row(
            str(row["setting"]),
            f"{row['scaled_mean']:.2%}",
            f"{row['scaled_shortfall_bps']:.2f}",
            f"{row['largest_1_day_rise']:+.0%}",
            f"{row['largest_5_day_rise']:+.0%}",
            f"{row['peak_to_trough']:.1f}",
            f"{row['mean_margin']:.2%}",
            f"{row['shortfall_bps']:.2f}",
            f"{row['exceedance_ratio']:.2f}x",
        )
    return table
