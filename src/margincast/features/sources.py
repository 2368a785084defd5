"""Everything features are built from, read and checked: what was known of the market, and when."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from margincast.core.digest import digest_of
from margincast.core.errors import InputError
from margincast.data.bars import BarTable
from margincast.data.book import BookTable
from margincast.data.formats.source import Stamp, stamp_of
from margincast.data.states import StateTable
from margincast.data.trades import TradeTable


@dataclass(frozen=True)
class Origin:
    """The files that one contract's rows of a table are read from, as they were when digested.

    Attributes:
        digests: SHA-256 of each file's content, in the order they are read.
        stamps: of the files, taken before their digests.
        reading: what else the rows hang on: which rows of the files, and from when they are known.
    """

    digests: tuple[str, ...]
    stamps: tuple[Stamp, ...]
    reading: str

    def digest(self) -> str:
        """SHA-256 that stands for the rows."""
        return digest_of({"files": self.digests, "reading": self.reading})

    def is_unchanged(self) -> bool:
        """Say whether no file was written again since its digest was taken."""
        try:
            return all(stamp_of(stamp.path) == stamp for stamp in self.stamps)
        except InputError:
            return False


@dataclass(frozen=True)
class Sources:
    """Market data of a feature set.

    Attributes:
        bars: regular bars, on the feature set's grid.
        books: order books; None without any.
        trades: trades; None without any.
        states: by name of the table (``funding``, ``open_interest``, ``liquidations``,
            ``implied_vol``, ``options``), those that were read.
        origins: by table and contract, where rows come from; those of books and trades are read
            lazily, and what is built of them is kept only where this is known.
    """

    bars: BarTable
    books: BookTable | None = None
    trades: TradeTable | None = None
    states: Mapping[str, StateTable] = field(default_factory=dict)
    origins: Mapping[str, Mapping[str, Origin]] = field(default_factory=dict)

    def bars_to_the_end(self, symbol: str) -> pl.DataFrame:
        """Regular bars of a contract, with missing ones up to the last bar of any contract.

        Whether bars go on after a contract's last one is not known before they do: what others see
        of the leader must not hang on that.
        """
        frame = self.bars.frames[symbol]
        last = max(other["ts"][-1] for other in self.bars.frames.values())
        if frame["ts"][-1] == last:
            return frame
        missing = pl.datetime_range(
            frame["ts"][-1] + self.bars.interval,
            last,
            self.bars.interval,
            time_unit="us",
            eager=True,
        )
        more = pl.DataFrame({"ts": missing, "symbol": [symbol] * len(missing)})
        return pl.concat([frame, more], how="diagonal_relaxed", rechunk=True)
