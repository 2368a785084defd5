"""``margincast score``: the champion on the latest data, as a table of margin levels."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from margincast.core.errors import MargincastError
from margincast.data.writing import write_table
from margincast.jobs.by_hand import overrides_in_force, say_unused
from margincast.jobs.console import output, say
from margincast.jobs.moment import moment_of
from margincast.jobs.setting import Setting
from margincast.jobs.situation import (
    NoChampionError,
    Situation,
    load_model,
    named_by,
    situation_of,
)
from margincast.jobs.tables import margin_table
from margincast.margin.schedule import require_policy_fits
from margincast.serving.batch import Origin, latest_forecasts, policy_hash, score_fallback
from margincast.serving.champion import resolve_champion
from margincast.serving.registry import Registry
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy


@dataclass(frozen=True)
class Scoring:
    """A finished scoring run."""

    levels: pd.DataFrame
    path: Path
    problem: str
    """Why there is no forecast at all; empty when there is one."""


def run(
    spec: Path,
    data: Path | None,
    out: Path | None,
    overrides: Sequence[str],
    *,
    at: str | None = None,
    cache: str | None = None,
) -> Scoring:
    """Score the latest data with the champion and write ``margin_levels.parquet``.

    The forecasts they are made of are written beside them, ``latest_forecasts.parquet``. Without a
    usable champion the base schedule is written for every contract it names, with the reason, and
    the run counts as a failed check.

    Args:
        spec: the margin policy.
        data: folder that data paths start at.
        out: folder for the table.
        overrides: ``section.key=value`` texts; those of ``data.*`` change where the champion's
            training spec says its data lies, the others change the policy.
        at: moment of use, or ``now``; the newest time in the data when absent.
        cache: folder of built features to read, or ``none``; that of the workspace when absent.
    """
    of_data = [text for text in overrides if text.startswith("data.")]
    policy = load_spec(spec, MarginPolicy, [text for text in overrides if text not in of_data])
    # a new row gives every entry another name: what a score keeps, no other score reads
    name = f"score-{policy.name}"
    setting = Setting.of(spec, data, out, name, cache, keeps_features=False)
    schedule = load_spec(setting.workspace / policy.schedule.file, BaseSchedule)
    require_policy_fits(policy, schedule)
    moment = None if at is None else moment_of(at)
    by_hand = overrides_in_force(setting.workspace, policy, moment)
    problem = ""
    try:
        situation = _situation(policy, setting, of_data)
        at_moment = moment or situation.newest
        _say_what_there_is(situation, at_moment)
        decisions = situation.decisions_at(at_moment)
        forecasts = situation.forecasts_of(decisions)
        model, version = policy.model.registered_model, situation.model.version
        made = latest_forecasts(decisions.unseen, forecasts, model, version)
        write_table(made, setting.out / "latest_forecasts.parquet")
        levels = situation.levels_at(
            at_moment, policy, schedule, by_hand, decisions, forecasts=forecasts
        )
    except NoChampionError as error:
        problem = str(error)
        levels = score_fallback(
            dict.fromkeys(named_by(schedule), problem),
            policy,
            schedule,
            at=moment or pd.Timestamp.now("UTC").to_pydatetime(),
            origin=Origin("none", "none", policy_hash(policy, schedule)),
            overrides=by_hand,
        )
    say_unused(by_hand, levels)
    path = setting.out / "margin_levels.parquet"
    write_table(levels, path)
    output.print(margin_table(levels))
    fallback = int((levels["status"] == "fallback").sum())
    if fallback:
        reasons = levels.loc[levels["status"] == "fallback", "reason"].value_counts()
        for reason, count in reasons.head(5).items():
            say(f"{count} of {len(levels)} levels fall back: {reason}")
    output.print(f"margin levels: {path}", soft_wrap=True)
    return Scoring(levels, path, problem)


def _situation(policy: MarginPolicy, setting: Setting, data_overrides: Sequence[str]) -> Situation:
    name = policy.model.registered_model
    try:
        champion = resolve_champion(Registry(policy.tracking.uri, setting.workspace), name)
    except MargincastError as error:
        raise NoChampionError(str(error)) from error
    model = load_model(champion.version, champion.bundle_directory, policy)
    if champion.from_last_good:
        say(f"using the last good champion: {champion.reason}")
    if champion.override is not None:
        say(
            f"the champion's gate failed; {champion.override.approver} allowed it until "
            f"{champion.override.expires:%F %H:%M} UTC"
        )
    return situation_of(model, setting, data_overrides)


def _say_what_there_is(situation: Situation, at: datetime) -> None:
    known = situation.known_at(at)
    count, latest = known["symbol"].nunique(), known["ts"].max()
    version = situation.model.version
    say(f"{version}: {count} contracts, data as of {latest:%F %H:%M} UTC")
