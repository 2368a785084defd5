"""A model and the market it is asked about: everything margins of any moment are made of.

Responsible for turning a policy, its champion and a data folder into decisions, and these into the
margin levels of a moment. ``margincast score`` asks for one moment, ``margincast explain`` for two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from margincast.core.errors import CheckFailedError, InputError, MargincastError
from margincast.core.time import format_duration
from margincast.features.cache import FeatureCache
from margincast.features.pipeline import FeatureTable, build_features
from margincast.jobs.books import books_at
from margincast.jobs.open_interest import open_interest_at
from margincast.jobs.setting import Setting
from margincast.jobs.simulated_data import data_root
from margincast.margin.override import Override
from margincast.models.catalogue import LOADERS
from margincast.models.protocol import Panel, TailForecast
from margincast.serving.batch import latest_rows, require_answers, require_feature_set, score
from margincast.serving.bundle import Bundle, read_bundle
from margincast.serving.delisting import Delisting, delisting_at
from margincast.serving.kept_forecasts import KeptForecasts
from margincast.serving.publications.publication import Publication
from margincast.serving.registry import RegisteredVersion
from margincast.serving.scored import Origin, Scored, policy_hash
from margincast.specs.features import FeatureSet
from margincast.specs.loading import apply_overrides, validate_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy
from margincast.specs.training import Data, TrainingJob
from margincast.training.market import Market, read_market
from margincast.training.panel import assemble_panels
from margincast.training.targets import outcome_table

NO_DATA = "no data for this contract, which the model was trained on"
NOT_KNOWN = "no data for this contract, which the base schedule names"
NOT_IN_DATA = "no data for this contract, which was published before"


class NoChampionError(CheckFailedError):
    """There is no model that may set margins."""


@dataclass(frozen=True)
class Decisions:
    """Decisions up to a moment, per horizon in minutes.

    Attributes:
        unseen: those after the model's training, every contract's newest among them.
        all: those in training too, with what is known to have followed.
    """

    unseen: dict[int, Panel]
    all: dict[int, Panel]


@dataclass(frozen=True)
class Model:
    """A registered version, loaded, with the specs it was trained by.

    Attributes:
        version: which it is, such as ``perp-8h/3``.
        bundle: the fitted model.
        job: its training job.
        feature_set: its features.
    """

    version: str
    bundle: Bundle
    job: TrainingJob
    feature_set: FeatureSet


@dataclass(frozen=True)
class Situation:
    """A model, and the features of all decisions that the data has.

    Attributes:
        model: that is asked.
        places: where the data lies.
        root: folder that its paths start at.
        market: bars, books and other sources.
        table: features.
        asked: the model, through what it said before.
    """

    model: Model
    places: Data
    root: Path
    market: Market
    table: FeatureTable
    asked: KeptForecasts

    @property
    def newest(self) -> datetime:
        """Time of the newest decision."""
        newest: pd.Timestamp = self.table.frame["ts"].max()
        return newest.to_pydatetime()

    def known_at(self, at: datetime) -> pd.DataFrame:
        """Return the features of decisions at or before a moment.

        Raises:
            InputError: there are none.
        """
        known = self.table.frame.loc[self.table.frame["ts"] <= at]
        if known.empty:
            raise InputError(f"no data at or before {at:%F %H:%M} UTC; the first is later")
        return known

    def decisions_at(self, at: datetime) -> Decisions:
        """Return the decisions at or before a moment.

        Every contract's newest is among the unseen ones, also where it lies before the end of
        training.
        """
        target, bars = self.model.job.target, self.market.bars
        outcomes = {
            minutes: outcome_table(bars, horizon, target.gap_tolerance, target.kind)[0]
            for minutes, horizon in zip(target.horizons_minutes, target.horizons, strict=True)
        }
        panels, _ = assemble_panels(
            replace(self.table, frame=self.known_at(at)),
            outcomes,
            target.sides,
            stride=target.stride,
            interval=bars.interval,
            with_newest=True,
        )
        any_panel = next(iter(panels.values()))
        trained_until = self.model.bundle.manifest.metadata.trained_until
        unseen = any_panel.decided > np.datetime64(trained_until, "us")
        unseen[latest_rows(any_panel.frame)] = True
        return Decisions({minutes: one.rows(unseen) for minutes, one in panels.items()}, panels)

    def forecasts_of(self, decisions: Decisions) -> dict[int, TailForecast]:
        """Return the model's forecasts of unseen decisions, by horizon in minutes.

        All horizons are asked: what one of them may be hangs on the others. Models with a memory
        learn from the decisions before.
        """
        return self.asked.predict(decisions.unseen)

    def levels_at(
        self,
        at: datetime,
        policy: MarginPolicy,
        schedule: BaseSchedule,
        overrides: Sequence[Override] = (),
        decisions: Decisions | None = None,
        *,
        forecasts: dict[int, TailForecast] | None = None,
    ) -> pd.DataFrame:
        """Return the margin levels of a moment, those of contracts without decisions included.

        Args:
            at: the moment, UTC.
            policy: the margin policy.
            schedule: its base schedule.
            overrides: margins set by hand that are in force, oldest first.
            decisions: of the moment, where they are there already.
            forecasts: of these decisions, likewise.

        Raises:
            InputError: there is no data at or before the moment.
        """
        return self.scored_at(
            at, policy, schedule, overrides, decisions, forecasts=forecasts
        ).levels

    def scored_at(
        self,
        at: datetime,
        policy: MarginPolicy,
        schedule: BaseSchedule,
        overrides: Sequence[Override] = (),
        decisions: Decisions | None = None,
        *,
        forecasts: dict[int, TailForecast] | None = None,
        before: Publication | None = None,
    ) -> Scored:
        """Return the margin levels of a moment with all that they were made of.

        Args:
            at: see :meth:`levels_at`, and so on.
            policy: the margin policy.
            schedule: its base schedule.
            overrides: margins set by hand.
            decisions: of the moment.
            forecasts: of these decisions.
            before: the last publication before the moment: its margins are remembered, and none of
                its contracts is left without a margin.

        Raises:
            InputError: there is no data at or before the moment.
        """
        decisions = decisions or self.decisions_at(at)
        origin = Origin(
            self.model.version, self.model.feature_set.digest(), policy_hash(policy, schedule)
        )
        delisted = self.delisting_at(at, policy, schedule).gone
        undecided = self._undecided(schedule)
        if before is not None:
            undecided = dict.fromkeys(before.symbols, NOT_IN_DATA) | undecided
        for symbol in self.known_at(at)["symbol"].unique():
            undecided.pop(symbol, None)
        return score(
            decisions.unseen,
            forecasts or self.forecasts_of(decisions),
            policy,
            schedule,
            at=at,
            books=books_at(policy, self.market.sources.books, at),
            origin=origin,
            history=decisions.all[policy.model.horizon // timedelta(minutes=1)],
            overrides=overrides,
            open_interest=open_interest_at(policy, self.places, self.root, self.market.bars, at),
            undecided=undecided,
            past=None if before is None else before.remembered,
            delisted=delisted,
        )

    def delisting_at(self, at: datetime, policy: MarginPolicy, schedule: BaseSchedule) -> Delisting:
        """Return who is delisted at a moment; bars count as data where there is no decision yet."""
        named = set(schedule.delisted)
        newest = {
            symbol: min(at, frame["ts"][-1].replace(tzinfo=UTC))
            for symbol, frame in self.market.bars.frames.items()
            if symbol in named
        }
        known = self.known_at(at)
        latest: pd.Timestamp = known["ts"].max()
        known = known[known["symbol"].isin(named)]
        decided = known.groupby("symbol", observed=True)["ts"].max()
        newest |= {str(symbol): ts.to_pydatetime() for symbol, ts in decided.items()}
        return delisting_at(schedule, newest, latest.to_pydatetime(), policy.staleness.max_data_age)

    def _undecided(self, schedule: BaseSchedule) -> dict[str, str]:
        """Say of every contract why it would have no decision."""
        model, chosen = self.model, self.places.symbols
        trained_on = model.bundle.specs.get("contracts", ())
        undecided = {} if chosen else dict.fromkeys(schedule.named, NOT_KNOWN)
        undecided |= {} if chosen else dict.fromkeys(trained_on, NO_DATA)
        warm_up = format_duration(model.feature_set.grid.warm_up)
        young = f"no decision yet: less history than the features' warm-up of {warm_up}"
        return undecided | dict.fromkeys(self.market.bars.frames, young)


def load_model(version: RegisteredVersion, directory: Path, policy: MarginPolicy) -> Model:
    """Load a version for a policy.

    Args:
        version: the version.
        directory: its bundle.
        policy: that is to be answered.

    Raises:
        NoChampionError: the bundle is damaged or another one, or it does not forecast what the
            policy asks for.
    """
    try:
        bundle = read_bundle(directory, LOADERS, version.bundle_digest)
        require_answers(policy, bundle.manifest)
        job = validate_spec(dict(bundle.specs["training"]), TrainingJob, "training in the bundle")
        feature_set = validate_spec(
            dict(bundle.specs["features"]), FeatureSet, "features in the bundle"
        )
        require_feature_set(feature_set.digest(), bundle.manifest)
    except MargincastError as error:
        raise NoChampionError(str(error)) from error
    return Model(f"{version.name}/{version.version}", bundle, job, feature_set)


def situation_of(model: Model, setting: Setting, data_overrides: Sequence[str]) -> Situation:
    """Read the market a model is asked about, and build its features.

    Args:
        model: that is asked.
        setting: folders of the job.
        data_overrides: ``data.*`` texts of the command line.

    Raises:
        InputError: data that cannot be used.
    """
    raw = apply_overrides({"data": model.job.data.model_dump(mode="json")}, data_overrides)
    places = validate_spec(raw["data"], Data, "data")
    root = data_root(setting, places)
    market = read_market(places, model.feature_set, root)
    table = build_features(model.feature_set, market.sources, setting.cache)
    setting.say_what_was_reused()
    kept = None if setting.cache is None else FeatureCache(setting.cache.folder)
    return Situation(model, places, root, market, table, KeptForecasts(model.bundle, kept))
