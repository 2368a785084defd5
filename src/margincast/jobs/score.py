"""``margincast score``: the champion on the latest data, as a table of margin levels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from margincast.core.errors import CheckFailedError, InputError, MargincastError
from margincast.core.time import format_duration
from margincast.data.writing import write_table
from margincast.features.pipeline import FeatureTable, build_features
from margincast.jobs.books import books_at
from margincast.jobs.console import output, say
from margincast.jobs.moment import moment_of
from margincast.jobs.setting import Setting
from margincast.jobs.simulated_data import data_root
from margincast.jobs.tables import margin_table
from margincast.margin.schedule import require_policy_fits
from margincast.models.catalogue import LOADERS
from margincast.models.protocol import Panel
from margincast.serving.batch import (
    Origin,
    latest_rows,
    policy_hash,
    require_answers,
    require_feature_set,
    score,
    score_fallback,
)
from margincast.serving.bundle import read_bundle
from margincast.serving.champion import resolve_champion
from margincast.serving.manifest import Manifest
from margincast.serving.registry import Registry
from margincast.specs.features import FeatureSet
from margincast.specs.loading import apply_overrides, load_spec, validate_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy
from margincast.specs.training import Data, TrainingJob
from margincast.training.market import Market, read_market
from margincast.training.panel import assemble_panels
from margincast.training.targets import outcome_table


class NoChampionError(CheckFailedError):
    """There is no model that may set margins."""


NO_DATA = "no data for this contract, which the model was trained on"
NOT_KNOWN = "no data for this contract, which the base schedule names"


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

    Without a usable champion the base schedule is written for every contract it names, with the
    reason, and the run counts as a failed check.

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
    problem = ""
    try:
        levels = _scored(policy, schedule, setting, moment, of_data)
    except NoChampionError as error:
        problem = str(error)
        levels = score_fallback(
            dict.fromkeys(_named(schedule), problem),
            policy,
            schedule,
            at=moment or pd.Timestamp.now("UTC").to_pydatetime(),
            origin=Origin("none", "none", policy_hash(policy, schedule)),
        )
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


def _scored(
    policy: MarginPolicy,
    schedule: BaseSchedule,
    setting: Setting,
    moment: datetime | None,
    data_overrides: Sequence[str],
) -> pd.DataFrame:
    name = policy.model.registered_model
    try:
        champion = resolve_champion(Registry(policy.tracking.uri, setting.workspace), name)
        bundle = read_bundle(champion.bundle_directory, LOADERS, champion.version.bundle_digest)
        require_answers(policy, bundle.manifest)
        job = validate_spec(dict(bundle.specs["training"]), TrainingJob, "training in the bundle")
        feature_set = validate_spec(
            dict(bundle.specs["features"]), FeatureSet, "features in the bundle"
        )
        require_feature_set(feature_set.digest(), bundle.manifest)
    except MargincastError as error:
        raise NoChampionError(str(error)) from error
    if champion.from_last_good:
        say(f"using the last good champion: {champion.reason}")
    if champion.override is not None:
        say(
            f"the champion's gate failed; {champion.override.approver} allowed it until "
            f"{champion.override.expires:%F %H:%M} UTC"
        )
    places = _places(job.data, data_overrides)
    root = data_root(setting, places)
    market = read_market(places, feature_set, root)
    table = build_features(feature_set, market.sources, setting.cache)
    setting.say_what_was_reused()
    newest = table.frame["ts"].max().to_pydatetime()
    at = moment or newest
    known = table.frame.loc[table.frame["ts"] <= at]
    if known.empty:
        raise InputError(f"no data at or before {at:%F %H:%M} UTC; the first is later")
    version = f"{name}/{champion.version.version}"
    count, latest = known["symbol"].nunique(), known["ts"].max()
    say(f"{version}: {count} contracts, data as of {latest:%F %H:%M} UTC")
    panels, history = _decisions(replace(table, frame=known), market, job, bundle.manifest)
    origin = Origin(version, feature_set.digest(), policy_hash(policy, schedule))
    levels = score(
        panels,
        bundle.forecaster,
        policy,
        schedule,
        at=at,
        books=books_at(policy, market.sources.books, at),
        origin=origin,
        history=history[policy.model.horizon // timedelta(minutes=1)],
    )
    undecided = {} if places.symbols else dict.fromkeys(_named(schedule), NOT_KNOWN)
    undecided |= dict.fromkeys([] if places.symbols else bundle.specs.get("contracts", ()), NO_DATA)
    warm_up = format_duration(feature_set.grid.warm_up)
    young = f"no decision yet: less history than the features' warm-up of {warm_up}"
    undecided |= dict.fromkeys(market.bars.frames, young)
    for symbol in known["symbol"].unique():
        undecided.pop(symbol, None)
    others = score_fallback(undecided, policy, schedule, at=at, origin=origin)
    return pd.concat([levels, others]).sort_values(["symbol", "side", "tier"], ignore_index=True)


def _decisions(
    table: FeatureTable, market: Market, job: TrainingJob, manifest: Manifest
) -> tuple[dict[int, Panel], dict[int, Panel]]:
    """Decisions the models have not seen, and all, with what is known to have followed.

    Every contract's newest decision is among the first, also where it lies before the end of
    training.

    Returns:
        Both per horizon in minutes.
    """
    target = job.target
    outcomes = {
        minutes: outcome_table(market.bars, horizon, target.gap_tolerance, target.kind)[0]
        for minutes, horizon in zip(target.horizons_minutes, target.horizons, strict=True)
    }
    interval = market.bars.interval
    panels, _ = assemble_panels(
        table, outcomes, target.sides, stride=target.stride, interval=interval, with_newest=True
    )
    any_panel = next(iter(panels.values()))
    unseen = any_panel.decided > np.datetime64(manifest.metadata.trained_until, "us")
    unseen[latest_rows(any_panel.frame)] = True
    return {minutes: panel.rows(unseen) for minutes, panel in panels.items()}, panels


def _named(schedule: BaseSchedule) -> set[str]:
    """Contracts the base schedule names."""
    return {name for bracket in schedule.brackets for name in bracket.symbols}


def _places(trained_on: Data, overrides: Sequence[str]) -> Data:
    """Where to read: the places the model was trained on, with the command line's changes."""
    raw = apply_overrides({"data": trained_on.model_dump(mode="json")}, overrides)
    return validate_spec(raw["data"], Data, "data")
