"""A live session whose forecasts a test sets: the real maker, board, watchdog and publisher."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from tests.serving.levels_case import AT, CHECKOUT, POLICY, SCHEDULE, SYMBOLS

from margincast.core.types import SIDES
from margincast.margin.background import Remembered
from margincast.margin.tier_rows import tier_rows
from margincast.models.protocol import TailForecast
from margincast.serving.batch import score_fallback
from margincast.serving.board import Board
from margincast.serving.live.board_keeper import BoardKeeper
from margincast.serving.live.books import RecentBooks
from margincast.serving.live.engine import Decision, Engine
from margincast.serving.live.events import Reader
from margincast.serving.live.folder import LiveFolder
from margincast.serving.live.maker import Maker, now_us
from margincast.serving.live.publisher import Publisher
from margincast.serving.live.session import Session
from margincast.serving.scored import Origin
from margincast.specs.live import LiveMode
from margincast.specs.loading import load_spec

MINUTE = timedelta(minutes=1)
TABLES = ("bars", "book", "trades", "mark")
MINUTES = POLICY.model.horizon // MINUTE
LIVE = load_spec(
    CHECKOUT / "serving" / "live.toml",
    LiveMode,
    ["recovery.good_decisions=0", "watch.silence={}", "watch.unchanged={}"],
)


@dataclass
class HandClock:
    """A clock that a test turns."""

    time: datetime = AT
    elapsed: int = 0

    def now(self):
        return self.time

    def elapsed_us(self):
        return self.elapsed

    def hear(self, known):
        """Learn nothing."""

    def turn(self, seconds):
        self.time += timedelta(seconds=seconds)
        self.elapsed += round(seconds * 1e6)


class HandWatch:
    """A champion watch whose faults a test sets."""

    def __init__(self):
        self.faults, self.next, self.serving = {}, None, None

    def faults_at(self, _):
        return self.faults


class HandModel:
    """A model that decides at every minute."""

    version, interval = "demo/1", MINUTE

    @staticmethod
    def is_decision(_):
        return True


class HandEngine(Engine):
    """An engine that forecasts what a test says."""

    forecast = 0.01

    def is_complete(self):
        return True

    def decide(self, reasons, overrides=()):
        at, self.next_close = self.next_close, self.next_close + MINUTE
        good = self.forecasts(at, self.forecast)
        problems = {one: found for one in SYMBOLS if (found := self.maker.problem(one))}
        moment = self.maker.after_last(now_us(at))
        scored = self.maker.make(moment, self.maker.symbols, reasons, {}, overrides)
        return Decision(at, good, problems, scored)

    def forecasts(self, at, forecast):
        """Take in a forecast of every contract."""
        quantiles = np.full((len(SYMBOLS), len(SIDES), 1), forecast)
        made = TailForecast(SIDES, (POLICY.model.level,), quantiles)
        times = pd.Series([pd.Timestamp(at)] * len(SYMBOLS)).dt.as_unit("us")
        frame = pd.DataFrame({"symbol": SYMBOLS, "ts": times})
        return frozenset(self.maker.take(frame, {MINUTES: made}))


def maker_of(policy=POLICY):
    """A maker before its first decision."""
    origin = Origin("demo/1", "2" * 64, "3" * 64)
    past = lambda rows: Remembered.nothing(len(rows))  # noqa: E731
    first = score_fallback(
        dict.fromkeys(SYMBOLS, "new"), policy, SCHEDULE, at=AT - MINUTE, origin=origin, past=past
    )
    return Maker(policy, SCHEDULE, first, lambda _: None)


def session_of(folder, *, store=None, publish=None, before=None, policy=POLICY):
    """A session that starts at :data:`AT` with a decision behind it.

    Args:
        folder: of what it shows.
        store: of publications it is to make.
        publish: takes decisions instead.
        before: how the engine before stood.
        policy: the margin policy.
    """
    maker = maker_of(policy)
    engine = HandEngine(None, HandModel(), maker, RecentBooks(policy), frozenset(), AT)
    engine.forecasts(AT, HandEngine.forecast)
    maker.publish(maker.make(now_us(AT), maker.symbols, {}, {}))
    caught_up = lambda: None  # noqa: E731
    if store is not None:
        publish = Publisher(store, maker, lambda: "", "engine", lambda _: None, follows=0)
        caught_up = publish.caught_up
    session = Session(
        LIVE, engine, Reader(TABLES, frozenset(SYMBOLS), 65536), HandClock(),
        BoardKeeper(Board(), "test"), LiveFolder(folder), HandWatch(), tuple, publish, caught_up,
        lambda _: None, 0, before,
    )  # fmt: skip
    session.show_first()
    return session


def shown(session, column="mmr"):
    """Values on the board, by contract, side and tier."""
    board = session.keeper.board.current
    return {
        (symbol, side, row["tier"]): row[column]
        for symbol, sides in board.contracts.items()
        for side, levels in sides.items()
        for row in levels.rows
    }


def base_rates():
    """Base schedule by contract, side and tier."""
    rows = tier_rows(SYMBOLS, SCHEDULE, POLICY)
    return {
        (SYMBOLS[rows.contract[i]], SIDES[rows.side[i]], int(rows.tier[i])): rows.base_mmr[i]
        for i in range(len(rows))
    }
