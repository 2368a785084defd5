"""A live session on the simulated market, and the feed that it follows.

Ten days of minutes are the past; the model is fitted on all but the last two of them, so that it
has something to remember. What follows comes as lines, each row when it could be known, bars last.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Never

import polars as pl

from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.features.loading import load_feature_set
from margincast.jobs.live_start import Start
from margincast.jobs.setting import Setting
from margincast.jobs.situation import Model, Situation, situation_of
from margincast.models.horizons import HorizonForecaster
from margincast.serving.board import Board
from margincast.serving.bundle import Bundle
from margincast.serving.live.board_keeper import BoardKeeper
from margincast.serving.live.champion_watch import ChampionWatch
from margincast.serving.live.clock import FeedClock
from margincast.serving.live.events import Reader
from margincast.serving.live.folder import LiveFolder
from margincast.serving.live.session import Session
from margincast.serving.manifest import BundleMetadata, Manifest
from margincast.specs.live import LiveMode
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy
from margincast.specs.training import TrainingJob
from margincast.training.market import read_market
from margincast.training.workload import forecaster_for, workload_of

WORKSPACE = Path(__file__).resolve().parents[1]
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PAST = timedelta(days=10)
CONTRACTS = ("SIM-BTC", "SIM-ETH", "SIM-ALT")
MINUTE = timedelta(minutes=1)
SMALL = (
    "model.head.min_data_factor=10.0",
    "model.calibration.folds=3",
    "target.stride=1",
)


@dataclass(frozen=True)
class Case:
    """A session and its feed.

    Attributes:
        session: as it stands after the past.
        lines: the feed.
        start: what the session was started from.
        situation: the model and the past.
    """

    session: Session
    lines: list[bytes]
    start: Start
    situation: Situation


def live_case(folder: Path, follows: timedelta, contracts: int = 3) -> Case:
    """Make a session with a model that decides at every minute.

    Args:
        folder: an empty one.
        follows: length of the feed.
        contracts: how many of them.
    """
    job = load_spec(WORKSPACE / "training" / "demo.toml", TrainingJob, SMALL)
    parameters = MarketParameters(contracts=select_contracts(list(CONTRACTS[:contracts])))
    days = PAST.days + 1 + follows.days
    market = simulate_market(parameters, days=days, seed=1, start=BEGIN)
    cut = BEGIN + PAST
    write_market(market, folder / "all")
    lines = _lines(folder / "all", cut, cut + follows)
    past = folder / "past"
    for path in sorted((folder / "all").rglob("*.parquet")):
        later = MINUTE if path.parent.name == "bars" else timedelta(0)
        target = past / path.relative_to(folder / "all")
        target.parent.mkdir(parents=True, exist_ok=True)
        pl.read_parquet(path).filter(pl.col("ts") + later <= cut).write_parquet(target)
    spec = WORKSPACE / "serving" / "live.toml"
    live = load_spec(spec, LiveMode, ["recovery.good_decisions=0"])
    policy = load_spec(WORKSPACE / live.policy, MarginPolicy)
    schedule = load_spec(WORKSPACE / policy.schedule.file, BaseSchedule)
    setting = Setting.of(spec, past, folder / "out", "live", "none")
    start = Start(policy, schedule, setting, ())
    situation = _situation(job, setting, cut - timedelta(days=2))
    engine, first = start.engine(situation, None, ())
    live_folder = LiveFolder(folder / "out")
    live_folder.prepare()
    session = Session(
        live,
        engine,
        Reader(live.feed.tables, frozenset(first.inputs.symbols), live.feed.line_bytes),
        FeedClock(cut),
        BoardKeeper(Board(), "benchmark"),
        live_folder,
        ChampionWatch(_not_asked, _not_asked, live.watch.longest_store_outage, print),
        tuple,
        None,
        lambda: None,
        lambda _: None,
    )
    session.show_first()
    return Case(session, lines, start, situation)


def _not_asked(*_: object) -> Never:
    raise AssertionError("a session that is driven by hand asks no registry")


def _situation(job: TrainingJob, setting: Setting, until: datetime) -> Situation:
    features = load_feature_set(WORKSPACE / job.features.set)
    market = read_market(job.data, features, setting.root)
    workload = workload_of(job, features, market)
    fitted = {
        minutes: panel.rows((panel.frame["ts"] <= until - timedelta(hours=1)).to_numpy())
        for minutes, panel in workload.panels.items()
    }
    fitted = {minutes: panel.rows(panel.labelled) for minutes, panel in fitted.items()}
    models = {each: forecaster_for(workload, "margincast", each, 1) for each in fitted}
    forecaster = HorizonForecaster("margincast", models, monotone=True).fit(fitted)
    first = next(iter(fitted.values()))
    metadata = BundleMetadata(
        job=job.name,
        horizons_minutes=forecaster.horizons_minutes,
        sides=job.target.sides,
        levels=job.target.levels,
        feature_columns=tuple(first.units),
        spec_digest=job.digest(),
        feature_set_hash=features.digest(),
        training_data_digest="0" * 64,
        trained_until=str(first.decided.max()),
    )
    bundle = Bundle(forecaster, Manifest("margincast", "m:M", metadata, {}, {}, "0" * 64), {})
    return situation_of(Model("demo/1", bundle, job, features), setting, ())


def _lines(folder: Path, start: datetime, end: datetime) -> list[bytes]:
    found = []
    for number, table in enumerate(("trades", "book", "bars")):
        later = MINUTE if table == "bars" else timedelta(0)
        for path in sorted((folder / table).glob("*.parquet")):
            known = pl.col("ts") + later
            rows = pl.read_parquet(path).filter(known > start, known <= end)
            for row in rows.iter_rows(named=True):
                line = {"table": table, **row, "ts": row["ts"].isoformat()}
                found.append((row["ts"] + later, number, json.dumps(line).encode()))
    return [line for _, _, line in sorted(found, key=lambda one: one[:2])]
