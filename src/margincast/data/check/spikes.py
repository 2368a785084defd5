"""Prices that stick out of their neighbours: an error of the feed sets a margin as a crash does.

A close is a spike if it lies far from the closes before and from those after it, on the same side,
while these agree with each other. A crash does not come back, so it is none; nor is it one where
the whole market is wild, because far is measured by the moves around it.
"""

from datetime import timedelta

import polars as pl

from margincast.data.check.contract import StoredTable
from margincast.data.check.coverage import NOT_READ
from margincast.data.check.finding import CheckFinding
from margincast.data.check.tally import Tally
from margincast.data.check.windows import Window

LEVEL_ROWS = 5
"""Rows before, and after, whose median close is the level around a row."""

SCALE_ROWS = 49
"""Rows around a row whose median absolute move is the scale; an error is two of these moves."""

CONTEXT = 30
"""Rows of context that the rolling medians need."""

SPIKE_SCALES = 20.0
"""A spike is this many scales away. Of 29 contracts' hourly bars, 2019 to 2024, no close is this
far, the crashes of those years included."""

SMALLEST_SPIKE = 0.02
"""No spike is a smaller fraction of the price: where prices stand still any move is many scales."""

SPIKE_SPAN = timedelta(minutes=10)
"""Span of a row's ten neighbours in which :data:`SMALLEST_SPIKE` is one; over longer spans prices
move as the root of time, so that the bound of 24 hours is 24 %. Bars have neighbours of one span
everywhere: there the moves around are the measure."""

AGREEMENT = 0.25
"""Levels before and after agree if they differ by at most this share of the spike."""

WICK_SCALES = 20.0
"""A wick is a spike if it is this many median ranges (high over low) of the bars around."""

SMALLEST_WICK = 0.1
"""No wick spike is a smaller fraction of the price."""

REFERENCE_BOUND = 0.05
"""A close farther from mark or index than this fraction is told."""

EXCURSION = "kept: outcomes and volatility take it as real; look at it before you train"
ACTED_ON = ("bars", "book", "trades")
"""Tables from which features, outcomes or margins are computed."""
_CLOSE = pl.col("close").log()


def smallest_spikes(times: pl.Series) -> pl.Series:
    """Fraction of the price that is no spike yet, by how far in time each row's neighbours lie.

    Args:
        times: times of the rows, in order.
    """
    span = times.shift(-LEVEL_ROWS) - times.shift(LEVEL_ROWS)
    ratio = span.dt.total_microseconds() / (SPIKE_SPAN / timedelta(microseconds=1))
    return SMALLEST_SPIKE * ratio.clip(lower_bound=1.0).sqrt()


def spike_moves(close: pl.Series, smallest: pl.Series | None = None) -> pl.Series:
    """Measure how far closes stick out of their neighbours (see the module).

    Args:
        close: prices in the order of time, above zero.
        smallest: fraction of the price that is no spike yet; :data:`SMALLEST_SPIKE` when None.

    Returns:
        The move from the level before, as a fraction of it; null where a close does not stick out.
    """
    frame = pl.DataFrame({"close": close.cast(pl.Float64)}).with_columns(_CLOSE.alias("p"))
    move = pl.col("p").diff().abs()
    level = pl.col("p").rolling_median(LEVEL_ROWS, min_samples=LEVEL_ROWS)
    sides = frame.with_columns(
        level.shift(1).alias("before"),
        level.shift(-LEVEL_ROWS).alias("after"),
        move.rolling_median(SCALE_ROWS, min_samples=LEVEL_ROWS, center=True).alias("scale"),
    )
    up, down = pl.col("p") - pl.col("before"), pl.col("p") - pl.col("after")
    height = pl.min_horizontal(up.abs(), down.abs())
    least = pl.lit(SMALLEST_SPIKE if smallest is None else smallest)
    far = height > pl.max_horizontal(SPIKE_SCALES * pl.col("scale"), least)
    agree = (pl.col("before") - pl.col("after")).abs() <= AGREEMENT * height
    spike = far & agree & (up.sign() == down.sign())
    return sides.select(pl.when(spike).then(up.exp() - 1).alias("move"))["move"]


def without_late_prints(close: pl.Series, moves: pl.Series) -> pl.Series:
    """Take out the moves of rows that only come late: their price was that of the rows before.

    When a price jumps, a trade at the price before it may be written among those after it.

    Args:
        close: prices in the order of time.
        moves: what :func:`spike_moves` says of them.
    """
    frame = pl.DataFrame({"p": close.cast(pl.Float64), "move": moves})
    level = pl.col("p").rolling_median(LEVEL_ROWS, min_samples=LEVEL_ROWS)
    height = (pl.col("p") * pl.col("move") / (1 + pl.col("move"))).abs()
    lags = range(1 + LEVEL_ROWS, CONTEXT - LEVEL_ROWS + 1)
    late = pl.any_horizontal(
        (level.shift(lag) - pl.col("p")).abs() <= AGREEMENT * height for lag in lags
    )
    kept = pl.when(late.fill_null(value=False)).then(None).otherwise("move")
    return frame.select(kept.alias("move"))["move"]


def close_spikes(close: pl.Series) -> pl.Series:
    """Say which closes stick out of their neighbours (see :func:`spike_moves`)."""
    return spike_moves(close).is_not_null()


def wick_moves(bars: pl.DataFrame) -> pl.Series:
    """Measure wicks that lie absurdly far from open and close.

    Returns:
        The move from the nearer of open and close to the high, or to the low where that is
        farther, as a fraction; null where the wick is not absurd.
    """
    top = (pl.col("high") / pl.max_horizontal("open", "close")).log()
    bottom = (pl.min_horizontal("open", "close") / pl.col("low")).log()
    wick = pl.max_horizontal(top, bottom)
    usual = (
        (pl.col("high") / pl.col("low"))
        .log()
        .rolling_median(SCALE_ROWS, min_samples=LEVEL_ROWS, center=True)
    )
    far = wick > pl.max_horizontal(WICK_SCALES * usual, pl.lit(SMALLEST_WICK))
    move = pl.when(top >= bottom).then(top.exp() - 1).otherwise((-bottom).exp() - 1)
    return bars.select(pl.when(far).then(move).alias("move"))["move"]


def wick_spikes(bars: pl.DataFrame) -> pl.Series:
    """Say in which bars the high or low lies absurdly far from open and close."""
    return wick_moves(bars).is_not_null()


class PriceSpikes:
    """Finds closes and wicks that stick out, in bars or in the minutes of other prices.

    Args:
        table: the table.
        minutes_of: what a minute's prices are (``mid``); empty for bars.
    """

    def __init__(self, table: StoredTable, minutes_of: str = "") -> None:
        self.table = table
        action = EXCURSION if table.schema.table in ACTED_ON else NOT_READ
        self.irregular = bool(minutes_of)
        close, wick = "close", "wicks far beyond the bars around (high or low)"
        if minutes_of:
            close = f"last {minutes_of} of a minute"
            wick = f"wicks far beyond the minutes around ({minutes_of})"
        self.closes = Tally(f"price spikes that come back ({close})", action, "warning")
        self.wicks = Tally(wick, action, "warning")

    def add(self, window: Window) -> None:
        """Take a window of bars; ``rows`` is how many rows of the table each stands for."""
        rows = window.rows
        times = window.judged(rows["ts"])
        weights = window.judged(rows["rows"]) if "rows" in rows.columns else None
        moves = spike_moves(rows["close"], smallest_spikes(rows["ts"]) if self.irregular else None)
        shown = spike_texts(rows["close"], moves)
        self.closes.add_moves(times, window.judged(moves), window.judged(shown), weights)
        moves = wick_moves(rows)
        shown = rows.select(
            pl.when(moves > 0)
            .then(pl.format("high {} at open {} close {}", "high", "open", "close"))
            .otherwise(pl.format("low {} at open {} close {}", "low", "open", "close"))
            .alias("text")
        )["text"]
        self.wicks.add_moves(times, window.judged(moves), window.judged(shown), weights)

    def findings(self) -> list[CheckFinding]:
        """Say what was found."""
        rows = self.table.rows
        return [self.closes.finding(self.table, rows), self.wicks.finding(self.table, rows)]


def spike_texts(close: pl.Series, moves: pl.Series) -> pl.Series:
    """Write what stands in each row and the level before it; null where nothing sticks out."""
    price = close.cast(pl.Float64)
    level = (price / (1 + moves)).round_sig_figs(6)
    return pl.select(pl.format("{} after {}", price, level).alias("text"))["text"]


class ReferenceDeviation:
    """Finds closes far from the mark or index price of the same moment."""

    def __init__(self, table: StoredTable, others: dict[str, StoredTable]) -> None:
        self.table, self.others = table, others
        self.tallies: dict[str, Tally] = {}
        self.compared: dict[str, int] = {}

    def add(self, block: pl.DataFrame) -> None:
        """Take a block of bars, with ``mark_close`` or ``index_close`` where it has them."""
        for kind in ("mark", "index"):
            column = f"{kind}_close"
            if column in block.columns:
                self._compare(kind, block, block[column].cast(pl.Float64))
            elif kind in self.others:
                first, last = block["ts"][0], block["ts"][-1]
                other = self.others[kind].between(first, last, ("ts", "close"))
                if not other.is_empty():
                    joined = block.select("ts").join(other, on="ts", how="left")
                    self._compare(kind, block, joined["close"].cast(pl.Float64))

    def findings(self) -> list[CheckFinding]:
        """Say what was found."""
        return [
            tally.finding(self.table, self.compared[kind]) for kind, tally in self.tallies.items()
        ]

    def _compare(self, kind: str, block: pl.DataFrame, reference: pl.Series) -> None:
        tally = self.tallies.setdefault(
            kind,
            Tally(
                f"close more than {REFERENCE_BOUND:.0%} from the {kind} price",
                EXCURSION,
                "warning",
            ),
        )
        self.compared[kind] = self.compared.get(kind, 0) + len(reference.drop_nulls())
        close = block["close"].cast(pl.Float64)
        away = close / reference - 1
        far = away.abs() > REFERENCE_BOUND
        shown = pl.select(pl.format("{} against {}", close, reference).alias("text"))["text"]
        moves = pl.select(pl.when(far).then(away).alias("move"))["move"]
        tally.add_moves(block["ts"], moves, shown)
