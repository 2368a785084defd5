"""What a monitor looks at: the champion, the market since its training, publications, the shadow.

Responsible for reading it all once, and for saying what is not there instead of failing: a monitor
that stops at the first trouble tells of none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from margincast.core.errors import MargincastError
from margincast.jobs.monitor_publications import NOTHING_PUBLISHED, Publications
from margincast.jobs.setting import Setting
from margincast.jobs.shadow import shadow_situation
from margincast.jobs.situation import Situation, load_model, situation_of
from margincast.models.horizons import HorizonForecaster
from margincast.serving.champion import resolve_champion
from margincast.serving.monitoring.distribution import SPEC, Distribution
from margincast.serving.monitoring.record import (
    Record,
    record_of_forecasts,
    record_of_margins,
)
from margincast.serving.registry import Registry
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy
from margincast.training.panel import on_grid
from margincast.training.targets import outcome_table


@dataclass(frozen=True)
class Inputs:
    """What there is to look at.

    Attributes:
        at: the moment.
        model: champion; empty where there is none.
        no_champion: why there is none; empty where there is one.
        forecasts: record of the champion's forecasts since its training.
        shadow: of the shadow's; None where there is none.
        margins: record of published margins; None where there is none to look at.
        left_out: by reason, published margins that are not in the record.
        publications: what is known of them.
        features: of decisions, up to the moment.
        newest: newest decision by contract; delisted ones are left out.
        distribution: features in training; None where the bundle does not keep it.
        notes: what could not be looked at, and why.
    """

    at: datetime
    model: str = ""
    no_champion: str = ""
    forecasts: Record | None = None
    shadow: Record | None = None
    margins: Record | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    publications: Publications = NOTHING_PUBLISHED
    features: pd.DataFrame | None = None
    newest: dict[str, datetime] = field(default_factory=dict)
    distribution: Distribution | None = None
    notes: tuple[str, ...] = ()


def gather(
    policy: MarginPolicy,
    setting: Setting,
    data_overrides: Sequence[str],
    at: datetime,
    *,
    publications: Publications,
    with_shadow: bool,
) -> Inputs:
    """Read what a policy's monitor looks at.

    Args:
        policy: the margin policy.
        setting: folders of the job.
        data_overrides: ``data.*`` texts of the command line.
        at: the moment.
        publications: of the policy.
        with_shadow: whether the shadow is to be compared.
    """
    registry = Registry(policy.tracking.uri, setting.workspace)
    try:
        champion = resolve_champion(registry, policy.model.registered_model)
        model = load_model(champion.version, champion.bundle_directory, policy)
        situation = situation_of(model, setting, data_overrides)
    except MargincastError as error:
        return Inputs(at, no_champion=str(error), publications=publications)
    notes = []
    if champion.from_last_good:
        notes.append(f"using the last good champion: {champion.reason}")
    features = situation.known_at(at)
    shadow = None
    if with_shadow:
        try:
            beside = shadow_situation(registry, policy, situation, setting, data_overrides)
            shadow = None if beside is None else unseen_forecasts(beside, policy, at)
        except MargincastError as error:
            notes.append(f"the shadow cannot be compared: {error}")
    distribution = None
    kept = model.bundle.specs.get(SPEC)
    if kept is None:
        notes.append(
            f"{model.version} was trained before bundles kept the distribution of their features; "
            "drift cannot be told until it is trained again"
        )
    else:
        distribution = Distribution.from_json(kept)
    try:
        schedule = load_spec(setting.workspace / policy.schedule.file, BaseSchedule)
        delisted = situation.delisting_at(at, policy, schedule).gone
    except MargincastError as error:
        delisted = ()
        notes.append(f"delisted contracts are counted as any other: {error}")
    margins, left_out = _margins(situation, policy, publications)
    return Inputs(
        at,
        model.version,
        forecasts=unseen_forecasts(situation, policy, at),
        shadow=shadow,
        margins=margins,
        left_out=left_out,
        publications=publications,
        features=features,
        newest={
            str(symbol): newest.to_pydatetime()
            for symbol, newest in features.groupby("symbol")["ts"].max().items()
            if symbol not in delisted
        },
        distribution=distribution,
        notes=tuple(notes),
    )


def _margins(
    situation: Situation, policy: MarginPolicy, publications: Publications
) -> tuple[Record | None, dict[str, int]]:
    """Put outcomes beside published margins."""
    if publications.margins is None:
        return None, {}
    target = situation.model.job.target
    horizon = policy.model.horizon
    outcomes, _ = outcome_table(situation.market.bars, horizon, target.gap_tolerance, target.kind)
    return record_of_margins(
        publications.subject,
        publications.margins,
        outcomes,
        horizon=horizon,
        level=policy.model.level,
    )


def unseen_forecasts(situation: Situation, policy: MarginPolicy, at: datetime) -> Record:
    """Return the record of a model's forecasts at decisions that it has learnt nothing of.

    Those are the decisions after its last training label was known. Forecasts are made anew; they
    hang on nothing later than their decisions, so they are what was forecast then from the same
    data.

    Args:
        situation: model and market.
        policy: whose horizon is looked at.
        at: the moment.
    """
    decisions = situation.decisions_at(at)
    horizon = policy.model.horizon
    minutes = horizon // timedelta(minutes=1)
    forecaster: HorizonForecaster = situation.model.bundle.forecaster
    panel, forecast = decisions.unseen[minutes], situation.forecasts_of(decisions)[minutes]
    longest = np.timedelta64(max(forecaster.horizons_minutes), "m")
    trained_until = situation.model.bundle.manifest.metadata.trained_until
    target = situation.model.job.target
    # a contract's newest decision may be off the grid, and is another one in an hour
    kept = on_grid(panel.frame["ts"], target.stride, situation.market.bars.interval)
    kept &= panel.decided > np.datetime64(trained_until, "us") + longest
    return record_of_forecasts(
        situation.model.version, panel.rows(kept), forecast.rows(kept), horizon
    )
