"""A replay fits each fold once, on what was known before it, and continues where it stopped."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from margincast.backtest.replay import Replay, replay, walk_forward_folds
from margincast.core.errors import InsufficientHistoryError
from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.models.catalogue import make_forecaster
from margincast.models.horizons import horizon_crossings, rearranged
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from margincast.training.execution.local import LocalExecution
from margincast.training.workload import Workload, build_workload

WORKSPACE = Path(__file__).resolve().parents[2]
MODELS = ("static", "ewma_fhs")
OVERRIDES = (
    "target.levels=[0.9, 0.95]",
    "target.stride=10",
    "model.head.rounds=3",
    "model.tail.threshold_level=0.8",
    "model.tail.from_level=0.95",
    "model.calibration.folds=3",
    "backtest.start=2026-01-04",
    "backtest.end=2026-01-05",
    "backtest.refit_every=1d",
)


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    parameters = MarketParameters(contracts=select_contracts(["SIM-BTC", "SIM-ALT"]))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    write_market(simulate_market(parameters, days=5, seed=2, start=start), folder)
    return folder


def workload_of(market: Path, *overrides: str) -> Workload:
    job = load_spec(WORKSPACE / "training" / "demo.toml", TrainingJob, (*OVERRIDES, *overrides))
    return build_workload(job, WORKSPACE, market)


@pytest.fixture(scope="module")
def workload(market) -> Workload:
    return workload_of(market)


def replayed(workload: Workload, models: Sequence[str], **options: Any) -> Replay:
    """Replay a workload of one horizon."""
    (made,) = replay(workload, models, execution=LocalExecution(1), **options).values()
    return made


def files_in(store: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each stored fold: one that was fitted again is a new file."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in store.iterdir()}


def test_forecasts_are_those_of_a_model_fitted_on_each_fold(workload, tmp_path):
    made = replayed(workload, (*MODELS, "margincast"), store=tmp_path)
    job, panel = workload.job, workload.panels[30]
    assert len(made.folds) == 2
    assert set(made.forecasts) == {*MODELS, "margincast"}
    for name, forecast in made.forecasts.items():
        parts = []
        for fold in walk_forward_folds(job, panel):
            model = make_forecaster(
                name, job.model, job.target.sides, job.target.levels,
                overlap=workload.overlap(30), threads=1,
            ).fit(panel.rows(fold.training))  # fmt: skip
            end = np.datetime64(fold.end.replace(tzinfo=None), "us")
            since = (panel.decided > panel.decided[fold.training].max()) & (panel.decided < end)
            parts.append(model.predict(panel.rows(since)).rows(fold.test[since]))
        np.testing.assert_array_equal(
            forecast.quantiles, np.concatenate([part.quantiles for part in parts])
        )
        if forecast.expected_shortfall is not None:
            np.testing.assert_array_equal(
                forecast.expected_shortfall,
                np.concatenate([part.expected_shortfall for part in parts]),
            )


def test_every_decision_of_the_test_period_is_forecast_in_the_fold_it_lies_in(workload, tmp_path):
    made = replayed(workload, MODELS, store=tmp_path)
    ts = workload.frame["ts"]
    inside = (ts >= workload.job.backtest.start) & (ts < workload.job.backtest.end)
    expected = workload.frame[inside].reset_index(drop=True)
    assert made.panel.frame.equals(expected)
    starts = np.array([np.datetime64(f.start.replace(tzinfo=None), "us") for f in made.folds])
    assert (starts[made.fold_of] <= made.panel.decided).all()
    assert (made.panel.decided < starts[made.fold_of] + np.timedelta64(1, "D")).all()


def test_decisions_without_an_outcome_yet_are_forecast_too(workload, tmp_path):
    made = replayed(workload, MODELS, store=tmp_path)
    unlabelled = ~made.panel.labelled
    # the windows of 23:40 and 23:50 end after the data, of two contracts
    assert unlabelled.sum() == 2 * 2
    for forecast in made.forecasts.values():
        assert np.isfinite(forecast.quantiles[unlabelled]).all()


def test_no_fold_learns_from_an_outcome_not_known_an_embargo_before_it(workload):
    panel = workload.panels[30]
    for fold in walk_forward_folds(workload.job, panel):
        limit = np.datetime64((fold.start - workload.job.backtest.embargo).replace(tzinfo=None))
        known = panel.label_end[fold.training]
        assert known.max() <= limit
        assert known.max() > limit - np.timedelta64(timedelta(minutes=10))


def test_an_interrupted_replay_continues_with_what_it_had(workload, tmp_path):
    def interrupt(_model: str, _minutes: int, _fold: object) -> None:
        raise KeyboardInterrupt

    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        replayed(workload, MODELS, store=store, on_fold=interrupt)
    kept = files_in(store)
    assert len(kept) == 1
    continued = replayed(workload, MODELS, store=store)
    assert kept.items() <= files_in(store).items()
    fresh = replayed(workload, MODELS, store=tmp_path / "fresh")
    for name in MODELS:
        np.testing.assert_array_equal(
            continued.forecasts[name].quantiles, fresh.forecasts[name].quantiles
        )


def test_a_finished_replay_is_read_and_not_fitted_again(workload, tmp_path):
    first = replayed(workload, MODELS, store=tmp_path)
    before, seen = files_in(tmp_path), []
    second = replayed(
        workload, MODELS, store=tmp_path,
        on_fold=lambda name, minutes, fold: seen.append((name, minutes, fold.start.day)),
    )  # fmt: skip
    assert files_in(tmp_path) == before
    assert seen == [(name, 30, day) for day in (4, 5) for name in MODELS]
    for name in MODELS:
        np.testing.assert_array_equal(
            first.forecasts[name].quantiles, second.forecasts[name].quantiles
        )


def test_a_damaged_fold_is_fitted_again(workload, tmp_path):
    first = replayed(workload, MODELS, store=tmp_path)
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        content = path.read_bytes()
        path.write_bytes([b"", content[: len(content) // 2], b"PK" + bytes(99), content][number])
    second = replayed(workload, MODELS, store=tmp_path)
    for name in MODELS:
        np.testing.assert_array_equal(
            first.forecasts[name].quantiles, second.forecasts[name].quantiles
        )


@pytest.mark.parametrize(
    "override",
    [
        "model.peers.history=2d",
        "model.head.rounds=4",
        "target.horizons=20m",
        "target.levels=[0.9, 0.96]",
        "backtest.embargo=1h",
        "backtest.start=2026-01-04T12:00:00",
        "data.symbols=SIM-BTC",
        "data.book_known_after=1m",
    ],
)
def test_folds_of_another_spec_are_not_taken(workload, market, tmp_path, override):
    replayed(workload, MODELS, store=tmp_path)
    replayed(workload_of(market, override), MODELS, store=tmp_path)
    assert len(files_in(tmp_path)) == 2 * len(MODELS) * 2


def test_folds_of_another_feature_set_are_not_taken(workload, market, tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    text = (WORKSPACE / "features" / "demo-1m.toml").read_text()
    assert text.count('"1d"') > 1
    (folder / "demo-1m.toml").write_text(text.replace('warm_up = "1d"', 'warm_up = "2d"'))
    store = tmp_path / "store"
    replayed(workload, MODELS, store=store)
    other = build_workload(workload.job, tmp_path, market)
    replayed(other, MODELS, store=store)
    assert len(files_in(store)) == 2 * len(MODELS) * 2


def test_folds_of_other_data_are_not_taken(workload, market, tmp_path):
    other = tmp_path / "market"
    start = datetime(2026, 1, 1, tzinfo=UTC)
    contracts = select_contracts(["SIM-BTC", "SIM-ALT"])
    parameters = MarketParameters(contracts=contracts)
    write_market(simulate_market(parameters, days=5, seed=3, start=start), other)
    store = tmp_path / "store"
    first = replayed(workload, MODELS, store=store)
    second = replayed(workload_of(other), MODELS, store=store)
    assert len(files_in(store)) == 8
    for name in MODELS:
        assert not np.array_equal(first.forecasts[name].quantiles, second.forecasts[name].quantiles)


def test_what_shapes_no_forecast_does_not_cost_a_fit(workload, market, tmp_path):
    replayed(workload, MODELS, store=tmp_path)
    before = files_in(tmp_path)
    other = workload_of(
        market, "gate.pinball_ratio_max=0.5", "tracking.experiment=other", "tuning.trials=9"
    )
    replayed(other, MODELS, store=tmp_path)
    assert files_in(tmp_path) == before


def test_too_little_history_names_model_refit_and_need(market, tmp_path):
    short = workload_of(market, "target.levels=[0.9, 0.999]", "model.tail.from_level=0.9995")
    store = tmp_path / "store"
    with pytest.raises(InsufficientHistoryError, match=r"margincast, refit of 2026-01-04.*0\.999"):
        replayed(short, ("margincast",), store=store)
    assert not store.exists()


# Several horizons


@pytest.fixture(scope="module")
def several(market) -> Workload:
    return workload_of(market, "target.horizons=[30m, 2h]")


def test_a_horizon_added_later_costs_no_other_a_fit(workload, several, tmp_path):
    alone = replayed(workload, MODELS, store=tmp_path)
    before, seen = files_in(tmp_path), []
    both = replay(
        several, MODELS, execution=LocalExecution(1), store=tmp_path,
        on_fold=lambda name, minutes, fold: seen.append((minutes, name, fold.start.day)),
    )  # fmt: skip
    assert list(both) == [30, 120]
    after = files_in(tmp_path)
    assert before.items() <= after.items()
    assert len(after) == 2 * len(before)
    assert sorted(seen) == [
        (minutes, name, day) for minutes in (30, 120) for name in sorted(MODELS) for day in (4, 5)
    ]
    assert both[30].panel.frame.equals(alone.panel.frame)
    np.testing.assert_array_equal(both[30].fold_of, both[120].fold_of)


def test_every_horizon_learns_from_what_its_own_labels_allow(several):
    limits = [
        {
            fold.start: panel.decided[fold.training].max()
            for fold in walk_forward_folds(several.job, panel)
        }
        for panel in several.panels.values()
    ]
    for start, short in limits[0].items():
        assert short - limits[1][start] == np.timedelta64(90, "m")


def test_what_is_handed_back_is_in_order_between_horizons(several, market, tmp_path):
    both = replay(several, MODELS, execution=LocalExecution(1), store=tmp_path)
    before = files_in(tmp_path)
    single = {
        minutes: replayed(
            workload_of(market, f"target.horizons={minutes}m"), MODELS, store=tmp_path
        )
        for minutes in both
    }
    for name in MODELS:
        served = {minutes: made.forecasts[name] for minutes, made in both.items()}
        fitted = {minutes: made.forecasts[name] for minutes, made in single.items()}
        assert horizon_crossings(served) == 0
        for minutes, expected in rearranged(fitted).items():
            np.testing.assert_array_equal(served[minutes].quantiles, expected.quantiles)
    assert files_in(tmp_path) == before


def test_end_points_are_left_as_they_are(market, tmp_path):
    terminal = "target.kind=terminal"
    both = replay(
        workload_of(market, "target.horizons=[30m, 2h]", terminal),
        ("static",), execution=LocalExecution(1), store=tmp_path,
    )  # fmt: skip
    before = files_in(tmp_path)
    for minutes, made in both.items():
        alone = replayed(
            workload_of(market, f"target.horizons={minutes}m", terminal),
            ("static",),
            store=tmp_path,
        )
        np.testing.assert_array_equal(
            made.forecasts["static"].quantiles, alone.forecasts["static"].quantiles
        )
    assert files_in(tmp_path) == before
