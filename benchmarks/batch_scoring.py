"""A night's score of a whole venue from ready features: what it costs on top of the trees.

1,000 contracts x 20 tiers x 2 sides. The model was fitted a while ago, so the decisions since then
are asked about too: its online correction learns from them. Three figures of one run, one thread:

- everything asked anew, against ``Booster.predict`` of the same trees on a ready matrix of the same
  rows: at most 1.3 times as long;
- the same a decision later, when forecasts were kept: only the new decisions meet the trees;
- the whole way to a published table: forecasts, levels, publication on the disk.

Run: ``OMP_NUM_THREADS=1 python -m benchmarks.batch_scoring``
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd
from benchmarks.margin_levels import SERVING, schedule_of

from margincast.core.threads import available_threads
from margincast.core.types import SIDES
from margincast.features.cache import FeatureCache
from margincast.models.catalogue import LOADERS, OURS, make_forecaster
from margincast.models.head import QuantileHead
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Panel
from margincast.models.scale import HarScale
from margincast.serving.batch import score
from margincast.serving.bundle import Bundle, read_bundle, write_bundle
from margincast.serving.kept_forecasts import KeptForecasts
from margincast.serving.manifest import BundleMetadata
from margincast.serving.publications.decisions import keep_decisions
from margincast.serving.publications.store import PublicationStore
from margincast.serving.scored import Origin, Scored, policy_hash
from margincast.specs.loading import load_spec
from margincast.specs.serving import MarginPolicy
from margincast.specs.training import TrainingJob

BUDGET = 1.3
WORKSPACE = Path(__file__).resolve().parents[1]
HORIZON = 480
"""Minutes, as ``perp-8h`` has it."""
OTHERS = 40
"""Features beside those the scale reads."""


def main() -> None:
    """Score three ways and compare."""
    parser = argparse.ArgumentParser(description="a night's score of a whole venue")
    parser.add_argument("--contracts", type=int, default=1000)
    parser.add_argument("--tiers", type=int, default=20)
    parser.add_argument(
        "--hours", type=int, default=168, help="decisions since the fit, a contract"
    )
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    job = load_spec(WORKSPACE / "training" / "perp-8h.toml", TrainingJob)
    policy = load_spec(SERVING / "perp-8h.toml", MarginPolicy, ["limits.multiplier_cap=1000"])
    symbols = [f"C{number:04}USDT" for number in range(arguments.contracts)]
    schedule = schedule_of(symbols, arguments.tiers, np.random.default_rng(8))
    whole = _market(job, symbols, arguments.hours + 1)
    count = len(symbols)
    unseen = {HORIZON: whole.rows(np.arange(len(whole) - count))}
    later = {HORIZON: whole}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bundle, trees = _served(job, folder)
        matrix = _matrix(job, bundle, unseen[HORIZON])
        threads = available_threads()
        # in turn, so that what else the machine does meets both
        turns = [
            (
                _seconds(lambda: [one.predict(matrix, num_threads=threads) for one in trees], 1),
                _seconds(lambda: KeptForecasts(bundle, None).predict(unseen), 1),
            )
            for _ in range(arguments.repeats)
        ]
        bare, anew = (min(times) for times in zip(*turns, strict=True))
        KeptForecasts(bundle, FeatureCache(folder / "kept")).predict(unseen)
        kept: list[KeptForecasts] = []

        def night() -> None:
            kept.append(KeptForecasts(bundle, FeatureCache(folder / "kept")))
            kept[-1].predict(later)

        again = _seconds(night, 1)
        asked, reused = kept[0].made, kept[0].reused
        forecasts = kept[0].predict(later)
        made: list[Scored] = []

        def levels() -> None:
            at = pd.Timestamp(whole.decided[-1]).tz_localize("UTC").to_pydatetime()
            origin = Origin("perp-8h/1", "f" * 64, policy_hash(policy, schedule))
            made.append(
                score(
                    later, forecasts, policy, schedule, at=at.astimezone(UTC), books={},
                    origin=origin, history=None,
                )
            )  # fmt: skip

        def publish() -> None:
            store = PublicationStore(folder / "publications")
            store.publish(
                made[-1], policy=policy, schedule=schedule, overrides=(), by="benchmark",
                reason="nightly", follows=0, decisions=keep_decisions(store.folder, later),
            )  # fmt: skip

        table, published = _seconds(levels, 1), _seconds(publish, 1)
    ratio = anew / bare
    print(
        f"{count:,} contracts x {arguments.tiers} tiers x 2 sides = {len(made[-1].levels):,} "
        f"levels; "
        f"{len(unseen[HORIZON]):,} decisions since the fit, {len(trees)} models of "
        f"{job.model.head.rounds} rounds, {matrix.shape[1]} columns, {threads} thread(s)"
    )
    print(
        f"forecasts, all asked anew: {anew:.2f} s; bare Booster.predict {bare:.2f} s; ratio "
        f"{ratio:.2f}, budget {BUDGET} ({'kept' if ratio <= BUDGET else 'EXCEEDED'})"
    )
    print(
        f"forecasts an hour later: {again:.2f} s, {asked:,} asked and {reused:,} read back: "
        f"{again / anew:.2f} of all anew"
    )
    print(
        f"levels with the memory of {arguments.hours} hours: {table:.2f} s; published with all "
        f"decisions: {published:.2f} s; altogether {again + table + published:.2f} s"
    )


def _market(job: TrainingJob, symbols: list[str], hours: int) -> Panel:
    """Return hours of contracts whose volatility wanders; outcomes are known eight hours later."""
    rng = np.random.default_rng(3)
    count = len(symbols)
    volatility = 0.02 * np.exp(np.cumsum(rng.normal(0, 0.05, (hours, count)), axis=0)).ravel()
    ts = pd.date_range("2026-01-01", periods=hours, freq="h", tz="UTC", unit="us")
    columns = {
        name: volatility * np.exp(rng.normal(0, 0.2, hours * count))
        for name in job.model.scale.columns
    }
    others = {f"feature_{i}": rng.normal(0, 1, hours * count) for i in range(OTHERS)}
    frame = pd.DataFrame(
        {"symbol": np.tile(symbols, hours), "ts": np.repeat(ts, count), **columns, **others}
    )
    units = dict.fromkeys(columns, "fraction") | dict.fromkeys(others, "number")
    panel = Panel.of_decisions(frame, units, SIDES)
    move = volatility * rng.standard_t(4, hours * count)
    end = panel.decided + np.timedelta64(HORIZON, "m")
    known = end <= panel.decided[-1]
    return replace(
        panel,
        outcomes={
            "long": np.where(known, np.maximum(0.0, -move), np.nan),
            "short": np.where(known, np.maximum(0.0, move), np.nan),
        },
        log_range=np.where(known, np.abs(move) + volatility, np.nan),
        label_end=np.where(known, end, np.datetime64("NaT", "us")),
    )


def _served(job: TrainingJob, folder: Path) -> tuple[Bundle, list[lgb.Booster]]:
    """Fit on other hours, write as a bundle, verify and load; return the model and its trees."""
    model = job.model.model_copy(update={"stride": 1})
    past = _market(job, [f"T{number:02}" for number in range(40)], 2_000)
    past = past.rows(past.labelled)
    shifted = past.frame.assign(ts=past.frame["ts"] - pd.Timedelta(days=365))
    past = replace(past, frame=shifted, label_end=past.label_end - np.timedelta64(365, "D"))
    fitted = make_forecaster(
        OURS, model, SIDES, job.target.levels, overlap=8.0, threads=available_threads()
    ).fit(past)
    metadata = BundleMetadata(
        job=job.name, horizons_minutes=(HORIZON,), sides=SIDES, levels=job.target.levels,
        feature_columns=tuple(past.units), spec_digest=job.digest(), feature_set_hash="0" * 64,
        training_data_digest="0" * 64, trained_until=str(past.decided[-1]),
    )  # fmt: skip
    directory = folder / "bundle"
    write_bundle(
        HorizonForecaster(OURS, {HORIZON: fitted}, monotone=True), directory, loaders=LOADERS,
        metadata=metadata, specs={},
    )  # fmt: skip
    trees = [lgb.Booster(model_file=path) for path in sorted(directory.glob("model/*/*.txt"))]
    return read_bundle(directory, LOADERS), trees


def _matrix(
    job: TrainingJob, bundle: Bundle, panel: Panel
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Return the matrix the trees read, made as the model makes it."""
    parameters = bundle.forecaster.forecasters[HORIZON].parameters()
    scale = HarScale.from_parameters(parameters["scale"])
    head = QuantileHead(job.model.head, panel.units, SIDES, (), 1)
    return head.design(panel.frame, scale.predict(panel.frame))


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the smallest CPU time of some runs."""
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


if __name__ == "__main__":
    main()
