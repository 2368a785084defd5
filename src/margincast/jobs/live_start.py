"""Where a live engine starts: the champion, what it remembers, and the market so far.

Responsible for the first table of live margins, which is the one that ``margincast score`` makes of
the same data, and for everything that goes on from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import partial

import numpy as np

from margincast.core.errors import InputError
from margincast.features.stream import FeatureStream
from margincast.jobs.books import books_at
from margincast.jobs.setting import Setting
from margincast.jobs.situation import Decisions, Model, Situation, load_model, situation_of
from margincast.margin.override import Override
from margincast.margin.snapshots import Snapshots
from margincast.margin.tier_rows import places_in, tier_rows
from margincast.serving.champion import Champion
from margincast.serving.live.books import RecentBooks
from margincast.serving.live.engine import Engine
from margincast.serving.live.maker import Maker, Rates
from margincast.serving.live.model import LiveModel
from margincast.serving.publications.publication import Publication
from margincast.serving.scored import Scored
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy
from margincast.training.panel import on_grid


@dataclass(frozen=True)
class Start:
    """What live engines of one policy are started from.

    Attributes:
        policy: the margin policy.
        schedule: its base schedule.
        setting: folders.
        data_overrides: ``data.*`` texts of the command line.
    """

    policy: MarginPolicy
    schedule: BaseSchedule
    setting: Setting
    data_overrides: Sequence[str]

    def situation(self, champion: Champion) -> Situation:
        """Read the market that a champion is asked about."""
        model = load_model(champion.version, champion.bundle_directory, self.policy)
        return situation_of(model, self.setting, self.data_overrides)

    def engine(
        self, situation: Situation, before: Publication | None, overrides: Sequence[Override]
    ) -> tuple[Engine, Scored]:
        """Return an engine that goes on after the newest decision of the data.

        Args:
            situation: the champion and the market.
            before: the last publication before that decision.
            overrides: margins set by hand that are in force.

        Raises:
            InputError: live mode cannot follow the policy or the data.
        """
        at, sources = situation.newest, situation.market.sources
        decisions = situation.decisions_at(at)
        first = situation.scored_at(
            at, self.policy, self.schedule, overrides, decisions, before=before
        )
        model = live_model(situation.model, decisions)
        stream = FeatureStream.warm(
            situation.model.feature_set,
            sources,
            at,
            situation.places.book_known_after,
            bars_of_book=not situation.places.bars,
            bars_kept=model.bars_kept,
        )
        rates_at = partial(self._rates, situation.model, first.inputs.symbols)
        maker = Maker(self.policy, self.schedule, first, rates_at)
        histories = {
            symbol: _history(book.history)
            for symbol, book in books_at(self.policy, sources.books, at).items()
        }
        given = {"book": sources.books, "trades": sources.trades}
        tables = {name for name, table in given.items() if table is not None}
        tables |= {"bars"} if situation.places.bars else set()
        tables |= set(sources.states) - {"options"}
        books = RecentBooks(self.policy, histories)
        return Engine(stream, model, maker, books, frozenset(tables), at), first

    def successor(self, champion: Champion, present: LiveModel) -> LiveModel:
        """Load another champion beside the present one, and let it go through the past.

        Raises:
            InputError: it has other features, which only a new start can follow.
        """
        situation = self.situation(champion)
        model = live_model(situation.model, situation.decisions_at(situation.newest))
        if model.feature_set_hash != present.feature_set_hash:
            raise InputError(
                f"champion {model.version} was trained on another feature set than "
                f"{present.version}; start live mode again to follow it"
            )
        if model.bars_kept > present.bars_kept or model.interval != present.interval:
            raise InputError(
                f"champion {model.version} has a longer horizon than {present.version}; start "
                "live mode again to follow it"
            )
        return model

    def _rates(self, model: Model, symbols: tuple[str, ...], at: np.datetime64) -> Rates:
        """Return the long-run rates of a new month, off the data as it is by then."""
        rows = tier_rows(symbols, self.schedule, self.policy)
        unknown = np.full(len(rows), np.nan)
        if self.policy.long_run is None:
            return Rates(at, unknown, unknown)
        moment = at.astype("datetime64[us]").item().replace(tzinfo=UTC)
        situation = situation_of(model, self.setting, self.data_overrides)
        made = situation.scored_at(moment, self.policy, self.schedule).inputs
        there = tier_rows(made.symbols, self.schedule, self.policy)
        place = places_in(there, rows)
        long_run, stressed = (
            np.where(place >= 0, values[place], np.nan)
            for values in (made.background.long_run, made.background.stressed)
        )
        return Rates(at, long_run, stressed)


def live_model(model: Model, decisions: Decisions) -> LiveModel:
    """Return a model as it stands after the decisions since its fit."""
    followed = LiveModel(
        model.version,
        model.feature_set.digest(),
        model.bundle.forecaster,
        model.job.target,
        next(iter(decisions.unseen.values())).units,
        model.feature_set.grid.interval,
    )
    stride, interval = model.job.target.stride, followed.interval
    followed.replay(
        {
            minutes: panel.rows(on_grid(panel.frame["ts"], stride, interval))
            for minutes, panel in decisions.unseen.items()
        }
    )
    return followed


def _history(history: Snapshots | None) -> Snapshots:
    assert history is not None  # books off a table have one
    return history
