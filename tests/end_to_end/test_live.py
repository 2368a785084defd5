"""Live margins are those of batch scoring, and fall back with the real engine when something fails.

The engine starts from nine and a half days of the simulated market and is fed with what came after.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

from margincast.jobs.live_start import Start
from margincast.jobs.setting import Setting
from margincast.jobs.situation import Model, situation_of
from margincast.margin.tier_rows import places_in, tier_rows
from margincast.models.horizons import HorizonForecaster
from margincast.serving.board import Board
from margincast.serving.bundle import Bundle
from margincast.serving.live.board_keeper import BoardKeeper
from margincast.serving.live.events import Event, Reader
from margincast.serving.live.faults import Fault
from margincast.serving.live.folder import LiveFolder
from margincast.serving.live.session import Session
from margincast.serving.manifest import BundleMetadata, Manifest
from margincast.serving.scored import Scored
from margincast.specs.live import LiveMode
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy
from margincast.training.workload import forecaster_for

CUT = datetime(2026, 1, 10, 22, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
REMEMBERING = (
    "speed.rise_per_hour=0.05",
    "speed.rise_per_day=0.5",
    "speed.fall_half_life=6h",
    "publication.every=10m",
    "publication.hold=0.01",
    "publication.notice_of_fall=30m",
    'long_run={window="10d", minimum_history="1d", elasticity=1.2, floor=0.3, cap=5.0}',
)


@pytest.fixture(scope="module")
def past(market, tmp_path_factory):
    """The market as it was known at the cut."""
    folder = tmp_path_factory.mktemp("past")
    for path in sorted(market.rglob("*.parquet")):
        known = pl.col("ts") + (MINUTE if path.parent.name == "bars" else timedelta(0)) <= CUT
        target = folder / path.relative_to(market)
        target.parent.mkdir(exist_ok=True)
        pl.read_parquet(path).filter(known).write_parquet(target)
    return folder


@pytest.fixture(scope="module")
def feed(market):
    """What came in the hour after the cut, in the order in which it could be known, bars last."""
    found = []
    for number, table in enumerate(("trades", "book", "bars")):
        for path in sorted((market / table).glob("*.parquet")):
            later = MINUTE if table == "bars" else timedelta(0)
            rows = pl.read_parquet(path).filter(
                pl.col("ts") + later > CUT, pl.col("ts") + later <= CUT + timedelta(hours=1)
            )
            for row in rows.iter_rows(named=True):
                line = {"table": table, **row, "ts": row["ts"].isoformat()}
                found.append((row["ts"] + later, number, json.dumps(line).encode()))
    return [line for _, _, line in sorted(found, key=lambda one: one[:2])]


@dataclass
class Before:
    """A publication in memory."""

    scored: Scored
    live: Start

    @property
    def symbols(self):
        return self.scored.inputs.symbols

    def remembered(self, rows):
        there = tier_rows(self.symbols, self.live.schedule, self.live.policy)
        return self.scored.after.rows(places_in(there, rows))


@pytest.fixture(scope="module")
def model(small_workload):
    """A model fitted half a day before the cut: it has something to remember."""
    until = np.datetime64("2026-01-10T10:00", "us")
    first = next(iter(small_workload.panels.values()))
    panels = {
        minutes: panel.rows(first.label_end <= until)
        for minutes, panel in small_workload.panels.items()
    }
    models = {each: forecaster_for(small_workload, "margincast", each, 1) for each in panels}
    forecaster = HorizonForecaster("margincast", models, monotone=True).fit(panels)
    job, features = small_workload.job, small_workload.feature_set
    metadata = BundleMetadata(
        job=job.name,
        horizons_minutes=forecaster.horizons_minutes,
        sides=job.target.sides,
        levels=job.target.levels,
        feature_columns=tuple(first.units),
        spec_digest=job.digest(),
        feature_set_hash=features.digest(),
        training_data_digest="0" * 64,
        trained_until=str(panels[10].decided.max()),
    )
    manifest = Manifest("margincast", "m:M", metadata, {}, {}, "4" * 64)
    return Model("demo/1", Bundle(forecaster, manifest, {}), job, features)


def start_of(workspace, folder, overrides=()):
    spec = workspace / "serving" / "demo.toml"
    policy = load_spec(spec, MarginPolicy, overrides)
    schedule = load_spec(workspace / policy.schedule.file, BaseSchedule)
    return Start(policy, schedule, Setting.of(spec, folder, None, "live", "none"), ())


EXACT = [
    "symbol", "side", "tier", "mmr", "imr", "mmr_in_force", "maintenance_amount", "multiplier",
    "effective_from", "status", "binding_rule", "data_as_of", "model_version",
]  # fmt: skip


def test_live_levels_are_those_of_batch_scoring(workspace, model, past, market, feed):
    before, whole = (
        situation_of(model, start_of(workspace, folder).setting, ()) for folder in (past, market)
    )
    for overrides, publications in (((), 12), (REMEMBERING, 6)):
        live = start_of(workspace, past, overrides)
        engine, scored = live.engine(before, None, ())
        reader = Reader(("bars", "book", "trades"), frozenset(engine.maker.symbols), 10_000)
        seen = 0
        for line in feed:
            event = reader.read(line)
            assert isinstance(event, Event)
            assert engine.take(event) is None
            if not engine.is_complete():
                continue
            at = engine.next_close
            made = engine.decide({}).scored
            if made is None:
                continue
            engine.commit(made)
            seen += 1
            if seen in {2, publications}:  # a batch takes a second
                earlier = Before(scored, live)
                batch = whole.scored_at(at, live.policy, live.schedule, (), before=earlier).levels
                pd.testing.assert_frame_equal(made.levels, batch, rtol=1e-9)
                pd.testing.assert_frame_equal(made.levels[EXACT], batch[EXACT], rtol=0, atol=0)
            scored = made
        assert seen == publications
        assert (scored.levels["status"] == "ok").any()


# --- the session: faults injected into the real engine ------------------------------------------


@dataclass
class HandClock:
    """A clock that a test turns."""

    time: datetime
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


class Calm:
    """A champion watch that a test sets."""

    def __init__(self):
        self.faults, self.next, self.serving = {}, None, None

    def look(self, now_us):
        """Find nothing new."""

    def faults_at(self, _):
        return self.faults


@pytest.fixture
def session(workspace, model, past, tmp_path):
    start = start_of(workspace, past)
    engine, first = start.engine(situation_of(model, start.setting, ()), None, ())
    changes = [
        'feed.tables=["bars", "book", "trades", "mark"]',
        "feed.queue_rows=3000",
        'recovery={quiet="10s", good_decisions=0}',
        'feed.wait_for_rows="2s"',
    ]
    spec = load_spec(workspace / "serving" / "live.toml", LiveMode, changes)
    folder = LiveFolder(tmp_path)
    keeper = BoardKeeper(Board(), "test")
    made = Session(
        spec, engine, Reader(spec.feed.tables, frozenset(first.inputs.symbols), 65536),
        HandClock(CUT), keeper, folder, Calm(), tuple, None, lambda: None, lambda _: None,
    )  # fmt: skip
    made.show_first()
    return made


def given(session, feed, until):
    """Give what the feed had until a time, each row at its time; returns the rest."""
    rest = list(feed)
    while rest:
        raw = json.loads(rest[0])
        later = MINUTE if raw["table"] == "bars" else timedelta(0)
        known = datetime.fromisoformat(raw["ts"]) + later
        if known > until:
            break
        session.clock.turn(max(0.0, (known - session.clock.now()).total_seconds()))
        session.receive([rest.pop(0)])
        session.drain()
    session.clock.turn((until - session.clock.now()).total_seconds())
    session.work(0.0)
    return rest


def rates(session):
    board = session.keeper.board.current
    return {
        (symbol, side, row["tier"]): (row["mmr"], row["base_mmr"], row["status"], row["reason"])
        for symbol, sides in board.contracts.items()
        for side, levels in sides.items()
        for row in levels.rows
    }


def row_of(table, symbol, at, **values):
    return json.dumps({"table": table, "symbol": symbol, "ts": at.isoformat(), **values}).encode()


def book_row(symbol, at, bid, ask):
    sizes = {"bid_size_0": 1.0, "ask_size_0": 1.0}
    return row_of("book", symbol, at, bid_price_0=bid, ask_price_0=ask, **sizes)


def close_of(session, symbol):
    return session.engine.stream.last_bars(symbol, 1)["close"][0]


def sound_rows(session, symbol):
    """A row of every table that shows no fault."""
    now, close = session.clock.now(), close_of(session, symbol)
    return [
        row_of("mark", symbol, now, mark_price=close),
        book_row(symbol, now, close, close * 1.0001),
        row_of("trades", symbol, now, price=close, size=1.0, side="buy"),
    ]


def crossed(session, now, close):
    return book_row("SIM-BTC", now, close * 1.01, close)


def not_a_number(session, now, close):
    return row_of("trades", "SIM-BTC", now, price="NaN", size=1.0, side="buy")


def spike(session, now, close):
    return row_of("trades", "SIM-BTC", now, price=close * 1.2, size=1.0, side="buy")


def from_the_future(session, now, close):
    return row_of("mark", "SIM-BTC", now + timedelta(seconds=30), mark_price=close)


OF_A_ROW = {
    crossed: Fault.CROSSED_BOOK,
    not_a_number: Fault.NOT_A_NUMBER,
    spike: Fault.SPIKE,
    from_the_future: Fault.CLOCK_SKEW,
}


def test_faults_of_one_contract_are_its_fallback_at_the_next_look(session, feed):
    given(session, feed, CUT + timedelta(minutes=10, seconds=5))
    session.receive(sound_rows(session, "SIM-BTC"))
    session.drain()
    session.look()
    calm = rates(session)
    decided = {key for key in calm if key[0] != "SIM-ALT"}
    assert {calm[key][2] for key in decided} == {"ok"}
    for inject, fault in OF_A_ROW.items():
        now, close = session.clock.now(), close_of(session, "SIM-BTC")
        session.receive([inject(session, now, close)])
        session.drain()
        assert session.look().of("SIM-BTC").fault is fault
        shown = rates(session)
        for key in decided:
            mmr, base, status, reason = shown[key]
            assert mmr == max(base, calm[key][0])
            assert (status == "fallback") == (key[0] == "SIM-BTC") == (str(fault) in reason)
        # sound rows take the fault away; the contract waits until it has been quiet
        session.receive(sound_rows(session, "SIM-BTC"))
        session.drain()
        for seconds, back in ((9.9, False), (0.2, True)):
            session.clock.turn(seconds)
            session.work(0.0)
            assert (session.look().of("SIM-BTC") is None) == back
        session.work(0.0)
        assert {rates(session)[key][2] for key in decided} == {"ok"}


def test_silence_and_faults_of_the_machine_are_fallbacks_too(session, feed, monkeypatch):
    given(session, feed, CUT + timedelta(minutes=10, seconds=5))
    session.look()
    calm = rates(session)

    def shows(fault, subject="SIM-BTC"):
        verdict = session.look()
        assert verdict.of(subject).fault is fault
        for key, (mmr, base, status, reason) in rates(session).items():
            assert mmr == max(base, calm[key][0])
            assert status == "fallback"
            assert key[0] == "SIM-ALT" or str(fault) in reason
        state = session.folder.read()
        assert str(fault) in state.header.problem or subject
        return state

    def calm_again():
        for seconds in (0.1, 11.0, 0.1):
            session.clock.turn(seconds)
            session.receive([*sound_rows(session, "SIM-BTC"), *sound_rows(session, "SIM-ETH")])
            session.drain()
            session.look()
            session.work(0.0)
        assert "ok" in {one[2] for one in rates(session).values()}

    monkeypatch.setattr(LiveFolder, "free_bytes", lambda _: 10)
    shows(Fault.DISK_FULL)
    monkeypatch.undo()
    calm_again()
    for fault in (Fault.NO_CHAMPION, Fault.FAILED_GATE, Fault.TAMPERED_BUNDLE, Fault.STORE_DOWN):
        session.champion.faults = {fault: "as the registry says"}
        shows(fault)
        session.champion.faults = {}
        calm_again()
    session.clock.time += timedelta(seconds=3)  # set, not waited for
    shows(Fault.CLOCK_SKEW)
    calm_again()
    trades = [row_of("trades", "SIM-BTC", CUT, price=1.0, size=1.0, side="buy")] * 3001
    assert session.receive(trades).dropped == 1
    shows(Fault.OVERLOAD)
    session.inbox.take(5000, 0.0)
    calm_again()
    session.clock.turn(1.5)  # nobody calls work
    shows(Fault.ENGINE_STOPPED)
    calm_again()
    session.clock.turn(151.0)
    session.work(0.0)
    state = shows(Fault.STALE_FEED)
    assert set(state.counts["fallbacks"]) == {"SIM-BTC", "SIM-ETH"}
    assert session.clock.now() - state.beat <= timedelta(seconds=1)
