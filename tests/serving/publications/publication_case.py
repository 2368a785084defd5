"""Margins of a few contracts through some hours, published: what tests of publications share."""

import multiprocessing
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from margincast.core.errors import PublishedMeanwhileError
from margincast.core.types import SIDES
from margincast.margin.background import Background, Remembered
from margincast.margin.level_inputs import LevelInputs
from margincast.margin.levels import costs_of
from margincast.margin.tier_rows import tier_rows
from margincast.serving.batch import levels_from
from margincast.serving.publications.store import PublicationStore
from margincast.serving.scored import Origin
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

SERVING = Path(__file__).resolve().parents[3] / "serving"
SCHEDULE = load_spec(SERVING / "schedules" / "perpetuals.toml", BaseSchedule)
POLICY = load_spec(SERVING / "perp-8h.toml", MarginPolicy)
ORIGIN = Origin("perp-8h/3", "f" * 64, "p" * 64)
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "DOGEUSDT", "XRPUSDT")


def scored(
    hour=0, *, seed=0, symbols=SYMBOLS, policy=POLICY, schedule=SCHEDULE, past=None, by_hand=()
):
    """Margins of an hour, of forecasts drawn at random; the last contract has none."""
    rng = np.random.default_rng([seed, hour])
    rows = tier_rows(symbols, schedule, policy)
    at = np.datetime64((AT + timedelta(hours=hour)).replace(tzinfo=None), "us")
    forecasts = rng.lognormal(-3.0, 0.5, (len(symbols), len(SIDES)))
    forecasts[-1] = np.nan
    unknown = LevelInputs.unknown(
        rows,
        np.array([""] * (len(symbols) - 1) + ["no data"], dtype=object),
        Background.of(
            at,
            Remembered.nothing(len(rows)) if past is None else past(rows),
            rng.lognormal(-3.0, 0.1, len(rows)),
            rng.lognormal(-2.0, 0.1, len(rows)),
        ),
        policy,
    )
    costs, cost_reasons = costs_of(rows, policy, {})
    as_of = np.full(len(symbols), at)
    as_of[-1] = np.datetime64("NaT")
    inputs = replace(
        unknown, forecasts=forecasts, data_as_of=as_of, costs=costs, cost_reasons=cost_reasons
    )
    return levels_from(inputs, policy, schedule, ORIGIN, by_hand)


def publish(store: PublicationStore, made, *, follows=None, reason="nightly", **options):
    """Publish what the case scored."""
    return store.publish(
        made,
        **{
            "policy": POLICY,
            "schedule": SCHEDULE,
            "overrides": (),
            "by": "anna",
            "reason": reason,
            "follows": store.last_number if follows is None else follows,
            **options,
        },
    )


def chain_of_publications(folder: Path, hours=3) -> PublicationStore:
    """Publish some hours, each going on from what the one before left behind."""
    store = PublicationStore(folder)
    for hour in range(hours):
        last = store.latest()
        publish(store, scored(hour, past=None if last is None else last.remembered))
    return store


def processes():
    """Return where processes come from: one without threads, which a fork would not survive."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def race(folder, barrier, answers, name):
    """Publish the first one at the same time as others, and answer how it went."""
    store = PublicationStore(folder)
    made = scored()
    barrier.wait()
    try:
        answers.put((name, publish(store, made, follows=0, by=name).number))
    except PublishedMeanwhileError as error:
        answers.put((name, str(error)))


def publish_for_ever(folder, here, sync):
    """Publish hour after hour; stop for good at one of the syncs, if one is named.

    Args:
        folder: of the store.
        here: file that says that it is about to publish, or at the sync.
        sync: number of the sync; None never stops.
    """
    store, real, calls = PublicationStore(folder), os.fsync, 0

    def counted(descriptor):
        nonlocal calls
        calls += 1
        real(descriptor)
        if calls == sync:
            here.touch()
            time.sleep(60)

    os.fsync = counted
    if sync is None:
        here.touch()
    for hour in range(store.last_number, 10_000):
        publish(store, scored(hour), now=AT + timedelta(hours=hour))
