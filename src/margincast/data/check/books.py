"""Books as they were received: what closing a position would have met, and whether it was real.

Counts what the rules of :mod:`margincast.data.book` will meet on reading, in the order in which
they are applied, and what only a person can judge: a book that stands still.
"""

from datetime import datetime

import polars as pl

from margincast.data.check.contract import StoredTable
from margincast.data.check.coverage import NOT_READ
from margincast.data.check.finding import CheckFinding
from margincast.data.check.holes import seconds_text
from margincast.data.check.runs import Runs
from margincast.data.check.tally import Tally
from margincast.data.quality import Severity

FROZEN_SNAPSHOTS = 60
"""Equal snapshots in a row from which a book is called frozen."""

_SIDES = ("bid", "ask")
_FAULTS: dict[str, tuple[str, str, Severity]] = {
    "invalid": ("is_valid not true", "dropped", "warning"),
    "empty": ("empty side (best price or size missing or not above 0)", "dropped", "warning"),
    "disordered": ("levels not best first", "dropped", "warning"),
    "crossed": ("crossed (best bid > best ask)", "dropped", "warning"),
    "locked": (
        "locked (best bid = best ask)",
        "kept: the mid is well defined, the spread is 0",
        "warning",
    ),
    "short": ("deeper levels missing", "kept: these levels are null", "info"),
}
_HOUR = "hour"


class Books:
    """Counts faults of books, and sums spread and depth by hour."""

    def __init__(self, table: StoredTable) -> None:
        self.table = table
        read = self._read = table.schema.table == "book"
        self.tallies = {
            kind: Tally(what, action if read else NOT_READ, severity)
            for kind, (what, action, severity) in _FAULTS.items()
        }
        self.repeated = Tally(
            "several snapshots of one time",
            "known together: one is kept, the last in the store; known apart: each from its arrival"
            if read
            else NOT_READ,
        )
        self.equal = Runs(FROZEN_SNAPSHOTS - 1)
        self._hours: list[pl.DataFrame] = []
        self._last: pl.DataFrame | None = None
        self._last_time: datetime | None = None

    def add(self, block: pl.DataFrame) -> pl.DataFrame:
        """Take a block of snapshots and return what is to be judged of the usable ones.

        Returns:
            ``ts``; ``price``, the mid; ``size``, all sizes of both sides; and of each side
            (``bid_``, ``ask_``) the sum (``total``) and the ``largest`` of its sizes.
        """
        levels = _levels(block)
        fates = _judged(block, levels)
        times = block["ts"]
        best = fates.select(
            pl.concat_str(
                pl.col("bid_price_0", "ask_price_0").cast(pl.String).fill_null("nothing"),
                separator=" / ",
            ).alias("best")
        )["best"]
        for kind, tally in self.tallies.items():
            flagged = fates["short"] if kind == "short" else fates["fate"] == kind
            tally.add(times, flagged, best)
        self.repeated.add(times, times == times.shift(1, fill_value=self._last_time), best)
        self._last_time = times[-1]
        self._add_equal(block, levels)
        self._hours.append(_by_hour(fates, levels))
        return _usable(fates, levels)

    def findings(self) -> list[CheckFinding]:
        """Say what was found."""
        rows = self.table.rows
        findings = [tally.finding(self.table, rows) for tally in self.tallies.values()]
        findings.append(self.repeated.finding(self.table, rows))
        equal = Tally(
            "snapshots equal to the one before",
            "kept: a quiet book looks like that" if self._read else NOT_READ,
        )
        equal.count = self.equal.flagged
        findings.append(equal.finding(self.table, rows))
        frozen = self.equal.all_runs()
        if frozen:
            tally = Tally(
                f"frozen: {FROZEN_SNAPSHOTS} equal snapshots in a row, and more",
                "kept: look at it; a feed that hangs shows a book that is not there"
                if self._read
                else NOT_READ,
                "warning",
                kind="frozen",
            )
            for run in sorted(frozen, key=lambda run: (-run.rows, run.first)):
                tally.note(run.first, f"{run.rows + 1} for {seconds_text(run.last - run.first)}")
            tally.count = sum(run.rows for run in frozen)
            tally.first, tally.last = frozen[0].first, frozen[-1].last
            findings.append(tally.finding(self.table, rows))
        return findings

    @property
    def locked_share(self) -> float:
        """Share of the snapshots that are locked."""
        return self.tallies["locked"].count / max(self.table.rows, 1)

    def by_hour(self) -> pl.DataFrame:
        """Per hour: snapshots, share locked, mean spread (bps) and mean depth (USD, both sides).

        Spread and depth are those of usable snapshots.
        """
        usable = pl.col("usable").sum()
        return (
            pl.concat(self._hours)
            .group_by(_HOUR, maintain_order=True)
            .agg(
                pl.col("snapshots").sum(),
                (pl.col("locked").sum() / pl.col("snapshots").sum()).alias("locked_share"),
                (pl.col("spread_bps").sum() / usable).alias("spread_bps"),
                (pl.col("depth_usd").sum() / usable).alias("depth_usd"),
            )
            .sort(_HOUR)
        )

    def _add_equal(self, block: pl.DataFrame, levels: int) -> None:
        names = [name for name in _columns(levels) if name in block.columns]
        own = block.select("ts", *names)
        joined = own
        if self._last is not None and self._last.columns == own.columns:
            joined = pl.concat([self._last, own], how="vertical_relaxed")
        same = joined.select(
            pl.all_horizontal(
                pl.col(name).eq_missing(pl.col(name).shift(1)) for name in names
            ).alias("same")
        )["same"]
        same = same.tail(len(own)).clone()
        if len(joined) == len(own):
            same[0] = False
        self._last = own.tail(1)
        self.equal.add(own["ts"], same, own["bid_price_0"].cast(pl.Float64).fill_null(0.0))


def _levels(block: pl.DataFrame) -> int:
    numbers = [
        int(name.rpartition("_")[2]) for name in block.columns if name.startswith("bid_price_")
    ]
    return max(numbers) + 1


def _columns(levels: int) -> list[str]:
    return [
        f"{side}_{what}_{level}"
        for level in range(levels)
        for side in _SIDES
        for what in ("price", "size")
    ]


def _judged(block: pl.DataFrame, levels: int) -> pl.DataFrame:
    """Null the levels that hold nothing and say which rule of the book each row meets first."""
    emptied = block.with_columns(
        pl.when(_there(side, level))
        .then(pl.col(f"{side}_{what}_{level}").cast(pl.Float64))
        .alias(f"{side}_{what}_{level}")
        for side in _SIDES
        for level in range(levels)
        for what in ("price", "size")
    )
    bid, ask = pl.col("bid_price_0"), pl.col("ask_price_0")
    worse = [
        rule
        for level in range(1, levels)
        for rule in (
            pl.col(f"bid_price_{level}") > pl.col(f"bid_price_{level - 1}"),
            pl.col(f"ask_price_{level}") < pl.col(f"ask_price_{level - 1}"),
        )
    ]
    invalid = (
        ~pl.col("is_valid").fill_null(value=False)
        if "is_valid" in block.columns
        else pl.lit(value=False)
    )
    fate = (
        pl.when(invalid).then(pl.lit("invalid"))
        .when(bid.is_null() | ask.is_null()).then(pl.lit("empty"))
        .when(pl.any_horizontal(pl.lit(value=False), *worse)).then(pl.lit("disordered"))
        .when(bid > ask).then(pl.lit("crossed"))
        .when(bid == ask).then(pl.lit("locked"))
        .otherwise(pl.lit("good"))
        .alias("fate")
    )  # fmt: skip  # one rule a line, as in the table of margincast.data.book
    missing = pl.any_horizontal(
        pl.col(f"{side}_price_{level}").is_null() for side in _SIDES for level in range(levels)
    )
    return emptied.with_columns(fate).with_columns(
        (missing & pl.col("fate").is_in(["good", "locked"])).alias("short")
    )


def _there(side: str, level: int) -> pl.Expr:
    price, size = pl.col(f"{side}_price_{level}"), pl.col(f"{side}_size_{level}")
    return price.is_finite() & (price > 0) & size.is_finite() & (size > 0)


def _usable(fates: pl.DataFrame, levels: int) -> pl.DataFrame:
    sizes = {
        side: [pl.col(f"{side}_size_{level}").cast(pl.Float64) for level in range(levels)]
        for side in _SIDES
    }
    return fates.filter(pl.col("fate").is_in(["good", "locked"])).select(
        "ts",
        ((pl.col("bid_price_0") + pl.col("ask_price_0")) / 2).alias("price"),
        pl.sum_horizontal(*sizes["bid"], *sizes["ask"]).alias("size"),
        *(pl.sum_horizontal(sizes[side]).alias(f"{side}_total") for side in _SIDES),
        *(pl.max_horizontal(sizes[side]).alias(f"{side}_largest") for side in _SIDES),
    )


def _by_hour(fates: pl.DataFrame, levels: int) -> pl.DataFrame:
    bid, ask = pl.col("bid_price_0"), pl.col("ask_price_0")
    usable = pl.col("fate").is_in(["good", "locked"])
    depth = pl.sum_horizontal(
        pl.col(f"{side}_price_{level}") * pl.col(f"{side}_size_{level}")
        for side in _SIDES
        for level in range(levels)
    )
    return (
        fates.select(
            pl.col("ts").dt.truncate("1h").alias(_HOUR),
            usable.alias("usable"),
            (pl.col("fate") == "locked").alias("locked"),
            pl.when(usable).then((ask - bid) / ((ask + bid) / 2) * 1e4).alias("spread_bps"),
            pl.when(usable).then(depth).alias("depth_usd"),
        )
        .group_by(_HOUR, maintain_order=True)
        .agg(
            pl.len().alias("snapshots"),
            pl.col("usable", "locked").sum(),
            pl.col("spread_bps", "depth_usd").sum(),
        )
    )
