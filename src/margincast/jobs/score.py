"""``margincast score``: the champion on the latest data, as a table of margin levels.

Responsible for the proposal that a venue may publish, and for saying what it would change. Nothing
is in force until it is published.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from margincast.core.errors import MargincastError
from margincast.data.writing import write_table
from margincast.jobs.by_hand import overrides_in_force, say_unused
from margincast.jobs.console import output, say
from margincast.jobs.moment import moment_of
from margincast.jobs.publish import Proposal, publish, say_changes
from margincast.jobs.setting import Setting
from margincast.jobs.shadow import score_shadow
from margincast.jobs.situation import (
    NoChampionError,
    Situation,
    load_model,
    situation_of,
)
from margincast.jobs.tables import margin_table
from margincast.margin.schedule import require_policy_fits
from margincast.models.protocol import Panel
from margincast.serving.batch import latest_forecasts, score_fallback
from margincast.serving.champion import resolve_champion
from margincast.serving.publications.publication import Publication
from margincast.serving.publications.store import store_of
from margincast.serving.registry import Registry
from margincast.serving.scored import Origin, policy_hash
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
    publication: Publication | None = None
    """Under which number it was published; None where it was not."""


def run(
    spec: Path,
    data: Path | None,
    out: Path | None,
    overrides: Sequence[str],
    *,
    at: str | None = None,
    cache: str | None = None,
    reason: str | None = None,
    by: str | None = None,
) -> Scoring:
    """Score the latest data with the champion and write ``margin_levels.parquet``.

    The forecasts they are made of are written beside them, ``latest_forecasts.parquet``, and what
    the shadow would set, if there is one, ``shadow_levels.parquet``. Without a
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
        reason: why the table is published; None publishes nothing.
        by: who publishes; the user if not given.

    Raises:
        PublishedMeanwhileError: somebody else published in the meantime; the table is written.
        InputError: data, policy or schedule cannot be used, or the table cannot be published.
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
    store = store_of(setting.workspace, policy.name)
    last = store.latest()
    problem = digest = ""
    asked: Mapping[int, Panel] | None = None
    try:
        situation = _situation(policy, setting, of_data)
        digest = situation.model.bundle.manifest.digest
        at_moment = moment or situation.newest
        _say_what_there_is(situation, at_moment)
        decisions = situation.decisions_at(at_moment)
        asked = decisions.unseen
        for line in situation.delisting_at(at_moment, policy, schedule).describe():
            say(line)
        forecasts = situation.forecasts_of(decisions)
        if situation.asked.reused:
            say(situation.asked.describe())
        model, version = policy.model.registered_model, situation.model.version
        before = store.before(at_moment)
        made = latest_forecasts(decisions.unseen, forecasts, model, version)
        write_table(made, setting.out / "latest_forecasts.parquet")
        scored = situation.scored_at(
            at_moment,
            policy,
            schedule,
            by_hand,
            decisions,
            forecasts=forecasts,
            before=before,
        )
        score_shadow(
            Registry(policy.tracking.uri, setting.workspace),
            policy,
            situation,
            setting,
            data_overrides=of_data,
            levels_of=lambda shadow: (
                shadow.scored_at(at_moment, policy, schedule, by_hand, before=before).levels
            ),
        )
    except NoChampionError as error:
        problem = str(error)
        at_moment = moment or pd.Timestamp.now("UTC").to_pydatetime()
        before = store.before(at_moment)
        # without a look at the data nobody who has margins goes off
        needed = set(schedule.named - set(schedule.delisted))
        needed |= set(() if before is None else before.symbols)
        scored = score_fallback(
            dict.fromkeys(needed, problem),
            policy,
            schedule,
            at=at_moment,
            origin=Origin("none", "none", policy_hash(policy, schedule)),
            overrides=by_hand,
            past=None if before is None else before.remembered,
        )
    levels = scored.levels
    say_unused(by_hand, levels)
    path = setting.out / "margin_levels.parquet"
    write_table(levels, path)
    output.print(margin_table(levels))
    fallback = int((levels["status"] == "fallback").sum())
    if fallback:
        reasons = levels.loc[levels["status"] == "fallback", "reason"].value_counts()
        for said, count in reasons.head(5).items():
            say(f"{count} of {len(levels)} levels fall back: {said}")
    output.print(f"margin levels: {path}", soft_wrap=True)
    proposal = Proposal(scored, policy, schedule, by_hand, digest, last, asked)
    say_changes(proposal)
    if reason is None:
        return Scoring(levels, path, problem)
    return Scoring(levels, path, problem, publish(proposal, store, reason=reason, by=by))


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
