"""What all trials share, made once: folds with their scale fitted and their features binned.

Time before the test period is cut in two. The later part (``tuning.held_out_share``) no trial sees.
Of the earlier part the later half is cut into ``tuning.folds`` blocks; each is forecast from what
lay before it, as at a refit of the walk-forward: a row trains for a block only if its outcome was
known an embargo before the block starts (Lopez de Prado 2018, chapter 7).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeAlias

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.errors import InputError, InsufficientHistoryError
from margincast.core.time import add_step
from margincast.core.types import BoolArray, FloatArray, Side
from margincast.models.head import QuantileHead
from margincast.models.protocol import Panel, Unit
from margincast.models.scale import HarScale
from margincast.scoring.pinball import pinball_loss
from margincast.specs.training import TrainingJob

Instant64: TypeAlias = "np.datetime64[datetime]"
"""A point in time, UTC, in microseconds."""
ONE_DAY = timedelta(days=1)


@dataclass
class PreparedFold:
    """One horizon's rows to learn from and rows to forecast, ready for LightGBM.

    Attributes:
        units: feature columns and their units.
        train: training matrix, shape (m, features + 1).
        train_scale: conditional scale, shape (m,).
        train_outcomes: adverse excursions per side, shape (m,).
        test: matrix of the decisions to forecast, shape (n, features + 1).
        test_scale: conditional scale, shape (n,).
        test_outcomes: adverse excursions per side, shape (n,).
        day: day of each test decision, shape (n,).
        contract: number of each test decision's contract, shape (n,).
        day_before: row of the same contract one day earlier, -1 where there is none, shape (n,).
        reference_loss: mean pinball loss of the reference, shape (sides, levels).
        reference_margin: its mean forecast, shape (sides, levels).

    The reference is the scale times one quantile of the standardised training outcomes: what is
    forecast without any tree. Losses relative to it are comparable over horizons, sides and levels.
    """

    units: dict[str, Unit]
    train: npt.NDArray[np.float32]
    train_scale: FloatArray
    train_outcomes: dict[Side, FloatArray]
    test: npt.NDArray[np.float32]
    test_scale: FloatArray
    test_outcomes: dict[Side, FloatArray]
    day: npt.NDArray[np.datetime64]
    contract: npt.NDArray[np.intp]
    day_before: npt.NDArray[np.intp]
    reference_loss: FloatArray
    reference_margin: FloatArray
    _bins: lgb.Dataset | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def forecast(self, head: QuantileHead) -> FloatArray:
        """Train every side and level on the shared bins and forecast, shape (n, sides, levels)."""
        result = np.empty((len(self.test), len(head.sides), len(head.levels)))
        weight = self.train_scale / self.train_scale.mean()
        # labels are swapped on one dataset, so only one thread of a process may train on it
        with self._lock:
            if self._bins is None:
                self._bins = head.bins(self.train)
            for i, side in enumerate(head.sides):
                label = self.train_outcomes[side] / self.train_scale
                for j, level in enumerate(head.levels):
                    booster = head.train(self._bins, label, weight, level)
                    result[:, i, j] = np.asarray(
                        booster.predict(self.test, num_threads=head.threads)
                    )
        return np.maximum(result, 0.0) * self.test_scale[:, None, None]

    def __getstate__(self) -> dict[str, Any]:
        """Bins are built anew where a fold arrives: once a process."""
        return {**self.__dict__, "_bins": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


Step = tuple[PreparedFold, ...]
"""The same stretch of time at every horizon."""


@dataclass(frozen=True)
class StudyFolds:
    """What a study works on.

    Attributes:
        steps: one a block, in time; a trial may be given up between two of them.
        held_out: the stretch no trial sees; None without one.
        sides: sides, in the order of all arrays.
        levels: levels of the head, likewise.
    """

    steps: tuple[Step, ...]
    held_out: Step | None
    sides: tuple[Side, ...]
    levels: tuple[float, ...]


def prepare_folds(
    job: TrainingJob, panels: Sequence[Panel], levels: tuple[float, ...]
) -> StudyFolds:
    """Fit scales, build training matrices and reference losses of every fold.

    Args:
        job: the training spec.
        panels: labelled decisions before the test period, a panel a horizon.
        levels: levels the head is trained at.

    Raises:
        InputError: too little history for so many folds, or nothing to score in one.
    """
    tuning = job.tuning
    thinned = [panel.thinned(job.model.stride, job.model.minimum_rows) for panel in panels]
    decided = thinned[0].decided
    edges = study_edges(decided, tuning.folds, tuning.held_out_share)
    made = [
        tuple(_fold(job, panel, levels, start, end, known_by) for panel in thinned)
        for start, end, known_by in study_spans(edges, tuning.folds)
    ]
    held_out = made.pop() if tuning.held_out_share else None
    if "procyclicality" in tuning.objectives:
        _require_days(made)
    return StudyFolds(tuple(made), held_out, job.target.sides, levels)


def study_edges(
    decided: npt.NDArray[np.datetime64], folds: int, held_out_share: float
) -> list[Instant64]:
    """Return the starts of the blocks and the end of the last one, in time.

    Args:
        decided: decision times, shape (n,), sorted.
        folds: blocks of the study's later half.
        held_out_share: of the rows, taken from the end; its stretch follows the blocks.

    Raises:
        InsufficientHistoryError: blocks would be empty.
    """
    seen = round(len(decided) * (1 - held_out_share))
    starts = [decided[row] for row in np.linspace(seen // 2, seen, folds + 1).astype(int)[:-1]]
    if held_out_share and seen < len(decided):
        starts.append(decided[seen])
    end = decided[-1] + np.timedelta64(1, "us")
    edges = [*starts, end]
    if len(set(edges)) < folds + 1 + bool(held_out_share):
        raise InsufficientHistoryError(
            f"{len(decided):,} decisions before backtest.start are too few for {folds} folds of "
            "tuning and a held-out stretch; use more history or fewer tuning.folds"
        )
    return edges


def study_spans(
    edges: Sequence[Instant64], folds: int
) -> list[tuple[Instant64, Instant64, Instant64]]:
    """Return start and end of every block and the time by which its outcomes must be known.

    What reaches into the held-out stretch is not scored in the study; the held-out stretch itself
    is scored as far as there are outcomes.
    """
    endless = np.datetime64("9999-12-31", "us")
    return [
        (start, end, edges[folds] if block < folds else endless)
        for block, (start, end) in enumerate(pairwise(edges))
    ]


def fold_rows(
    panel: Panel,
    start: Instant64,
    end: Instant64,
    known_by: Instant64,
    *,
    embargo: timedelta,
    window: str,
) -> tuple[BoolArray, BoolArray]:
    """Return the rows to learn from and the rows to forecast, each of shape (n,).

    Args:
        panel: n labelled decisions.
        start: of the block; outcomes to learn from are known an embargo before.
        end: of the block, exclusive.
        known_by: outcomes that are scored are known by then.
        embargo: see above.
        window: longest history to learn from, a duration or calendar step.
    """
    decided = panel.decided
    instant = start.astype("datetime64[us]").item().replace(tzinfo=UTC)
    oldest = np.datetime64(add_step(instant, window, -1).replace(tzinfo=None), "us")
    training = (panel.label_end <= start - np.timedelta64(embargo)) & (decided >= oldest)
    inside = (decided >= start) & (decided < end) & (panel.label_end <= known_by)
    return training, inside


def _fold(  # noqa: PLR0917  # a span is three instants
    job: TrainingJob,
    panel: Panel,
    levels: tuple[float, ...],
    start: Instant64,
    end: Instant64,
    known_by: Instant64,
) -> PreparedFold:
    training, inside = fold_rows(
        panel, start, end, known_by, embargo=job.backtest.embargo, window=job.model.window
    )
    where = f"tuning fold {start.astype('datetime64[m]')} to {end.astype('datetime64[m]')}"
    if not training.any() or not inside.any():
        raise InsufficientHistoryError(
            f"{where}: {int(training.sum()):,} decisions to learn from and {int(inside.sum()):,} "
            "to forecast; use more history before backtest.start or fewer tuning.folds"
        )
    chosen = job.model.scale
    scale = HarScale(chosen.columns, chosen.seasonal_harmonics, chosen.ridge)
    train, test = panel.rows(training), panel.rows(inside)
    scale.fit(train.frame, train.log_range)
    train_scale, test_scale = scale.predict(train.frame), scale.predict(test.frame)
    known, asked = np.isfinite(train_scale), np.isfinite(test_scale)
    train, test = train.rows(known), test.rows(asked)
    train_scale, test_scale = train_scale[known], test_scale[asked]
    head = QuantileHead(job.model.head, panel.units, job.target.sides, levels, threads=1)
    reference = _reference(train, train_scale, test_scale, head)
    losses = np.array(
        [
            [
                pinball_loss(test.outcomes[side], reference[:, i, j], level).mean()
                for j, level in enumerate(levels)
            ]
            for i, side in enumerate(head.sides)
        ]
    )
    if not (losses > 0).all():
        raise InputError(
            f"{where}: every outcome and forecast of a side is 0, there is nothing to score; use "
            "more history before backtest.start or fewer tuning.folds"
        )
    contract, _ = pd.factorize(test.frame["symbol"])
    return PreparedFold(
        units=dict(panel.units),
        train=head.design(train.frame, train_scale),
        train_scale=train_scale,
        train_outcomes=dict(train.outcomes),
        test=head.design(test.frame, test_scale),
        test_scale=test_scale,
        test_outcomes=dict(test.outcomes),
        day=test.decided.astype("datetime64[D]"),
        contract=np.asarray(contract, dtype=np.intp),
        day_before=_day_before(test.decided, np.asarray(contract, dtype=np.intp)),
        reference_loss=losses,
        reference_margin=reference.mean(axis=0),
    )


def _reference(
    train: Panel, train_scale: FloatArray, test_scale: FloatArray, head: QuantileHead
) -> FloatArray:
    """Scale times the quantile of standardised outcomes that minimises the raw pinball loss."""
    quantiles = np.array(
        [
            np.quantile(
                train.outcomes[side] / train_scale,
                head.levels,
                weights=train_scale,
                method="inverted_cdf",
            )
            for side in head.sides
        ]
    )
    return np.asarray(test_scale[:, None, None] * quantiles)


def _day_before(
    decided: npt.NDArray[np.datetime64], contract: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Row of the same contract a day earlier, or up to another day before that; else -1."""
    rows = pd.DataFrame({"ts": decided, "contract": contract, "row": np.arange(len(decided))})
    found = pd.merge_asof(
        rows.assign(ts=rows["ts"] - ONE_DAY)[["ts", "contract"]],
        rows,
        on="ts",
        by="contract",
        tolerance=pd.Timedelta(ONE_DAY),
    )
    return found["row"].fillna(-1).to_numpy(dtype=np.intp)


def _require_days(steps: Sequence[Step]) -> None:
    if not any((fold.day_before >= 0).any() for step in steps for fold in step):
        raise InputError(
            "tuning.objectives names procyclicality, the largest rise of a day, but no fold of "
            "tuning holds two decisions of a contract a day apart; use more history, fewer "
            "tuning.folds, or other objectives"
        )
