"""Decision prices of every contract: what models with a memory of their own returns read.

GARCH filters and CAViaR react to returns between decisions alone, whatever features there are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.types import FloatArray

MICROSECONDS_PER_HOUR = 3_600_000_000


@dataclass(frozen=True)
class ContractCloses:
    """Decisions of one contract whose close is known, in order of time.

    Attributes:
        rows: their rows in the frame, shape (n,).
        decided: decision times, microseconds since 1970, shape (n,).
        close: decision prices, positive, shape (n,).
    """

    rows: npt.NDArray[np.intp]
    decided: npt.NDArray[np.int64]
    close: FloatArray

    def after(self, decided: int, close: float) -> "ContractCloses":
        """Put an earlier decision, which is no row of the frame, before the first one."""
        return ContractCloses(
            self.rows, np.append(decided, self.decided), np.append(close, self.close)
        )


def contract_closes(frame: pd.DataFrame) -> Iterator[tuple[str, ContractCloses]]:
    """Yield the known decision prices of every contract that has any.

    Args:
        frame: decisions with ``symbol``, ``ts`` and ``close``, sorted by ``ts``.
    """
    close = frame["close"].to_numpy(np.float64)
    naive = frame["ts"].dt.tz_localize(None)
    decided = naive.to_numpy(dtype="datetime64[us]").astype(np.int64)
    known = np.isfinite(close) & (close > 0)
    names, codes = np.unique(frame["symbol"].to_numpy(dtype=str), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    cuts = np.searchsorted(codes[order], np.arange(1, len(names)))
    for name, rows in zip(names, np.split(order, cuts), strict=True):
        kept = rows[known[rows]]
        if len(kept):
            yield str(name), ContractCloses(kept, decided[kept], close[kept])


def most_frequent_step(contracts: Iterable[ContractCloses]) -> int:
    """Return the most frequent time between decisions, microseconds (an hour if there is none)."""
    spacings = np.concatenate([np.empty(0, np.int64), *(np.diff(one.decided) for one in contracts)])
    values, counts = np.unique(spacings, return_counts=True)
    return int(values[np.argmax(counts)]) if len(values) else MICROSECONDS_PER_HOUR
