"""Walk-forward folds: what a model may have known when it forecast a stretch of test time.

A training label whose horizon reaches into the test period would leak the very move to be
forecast, so rows are purged by their own label's span and an embargo is kept
(Lopez de Prado 2018, chapter 7).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.time import add_step, steps_between
from margincast.core.types import BoolArray


@dataclass(frozen=True)
class Fold:
    """One refit and the test decisions it serves.

    Attributes:
        start: first instant of the test span; the model is fitted as of then.
        end: exclusive end of the test span.
        training: rows to learn from, shape (n,).
        test: rows to forecast, shape (n,).
    """

    start: datetime
    end: datetime
    training: BoolArray
    test: BoolArray


def walk_forward(
    decided: npt.NDArray[np.datetime64],
    label_end: npt.NDArray[np.datetime64],
    labelled: BoolArray,
    *,
    start: datetime,
    end: datetime,
    refit_every: str,
    embargo: timedelta,
    window: str,
) -> list[Fold]:
    """Cut ``[start, end)`` into refit spans and say which rows each may learn from.

    A row trains a fold if its label was known ``embargo`` before the fold starts and it was
    decided within ``window`` before it.

    Args:
        decided: decision times, shape (n,), UTC.
        label_end: times at which labels became known, shape (n,).
        labelled: rows with an outcome, shape (n,).
        start: first test decision allowed.
        end: exclusive end of the test period.
        refit_every: duration or calendar step.
        embargo: positive.
        window: longest history, duration or calendar step.

    Raises:
        InputError: no decision lies in the test period.
    """
    if len(decided) == 0 or not ((decided >= _np(start)) & (decided < _np(end))).any():
        held = f"{decided.min()} to {decided.max()}" if len(decided) else "nothing"
        raise InputError(
            f"no decision lies in the test period {start:%F %H:%M} to {end:%F %H:%M}; the data "
            f"holds decisions from {held}: change backtest.start and backtest.end, or the data"
        )
    folds = []
    for left, right in steps_between(start, end, refit_every):
        test = (decided >= _np(left)) & (decided < _np(right))
        if not test.any():
            continue
        training = labelled & (label_end <= _np(left - embargo))
        training &= decided >= _np(add_step(left, window, -1))
        folds.append(Fold(left, right, training, test))
    return folds


def _np(instant: datetime) -> np.datetime64:
    return np.datetime64(instant.replace(tzinfo=None), "us")
