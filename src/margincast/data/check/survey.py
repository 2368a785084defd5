"""Survey a store: every check of every contract's table, and of contracts against each other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from margincast.data.bars import PRICES
from margincast.data.check import sizes, spikes, units
from margincast.data.check.books import Books
from margincast.data.check.contract import StoredTable, stored_tables
from margincast.data.check.coverage import (
    SPORADIC,
    Coverage,
    Step,
    cover,
    coverage_findings,
    usual_step,
)
from margincast.data.check.finding import CheckFinding
from margincast.data.check.funding import FundingRates
from margincast.data.check.manifest import manifest_findings
from margincast.data.check.price_level import PriceLevel
from margincast.data.check.roster import at_several_venues, ends_early
from margincast.data.check.runs import Run
from margincast.data.check.sizes import AbsurdDepth, AbsurdSizes
from margincast.data.check.spikes import PriceSpikes, ReferenceDeviation
from margincast.data.check.stale import StaleBars
from margincast.data.check.tally import Tally
from margincast.data.check.time_zones import HourlyCloses, HourlyPrices
from margincast.data.check.trades import Trades
from margincast.data.check.twins import twin_findings
from margincast.data.check.units import Ticks, UnitChanges
from margincast.data.check.windows import windows
from margincast.data.quality import SEVERITIES
from margincast.data.store import Store

REFUSED = "refused: reading these bars stops here; ingest them with the right times"

BAR_TABLES = ("bars", "mark_bars", "index_bars", "implied_vol")
"""Tables of positive prices over intervals; a premium or an open interest is no price."""


@dataclass(frozen=True)
class TableSurvey:
    """What was found in one contract's table.

    Attributes:
        table: the table.
        coverage: what of it is there.
        findings: what was found, also of nothing.
        hourly: last price of each hour, where the table has prices.
        books: per hour locked share, spread and depth, for books.
        stale: stale stretches, for bars.
        stale_since: time from which bars are stale to the end.
        locked_share: share of locked snapshots, for books.
    """

    table: StoredTable
    coverage: Coverage
    findings: tuple[CheckFinding, ...]
    hourly: dict[str, HourlyPrices] = field(default_factory=dict)
    books: pl.DataFrame | None = None
    stale: tuple[Run, ...] = ()
    stale_since: datetime | None = None
    locked_share: float | None = None


@dataclass(frozen=True)
class Survey:
    """What was found in a store.

    Attributes:
        tables: per contract and table.
        findings: those that found something, those that harm most first.
        sources: number of sources in the manifest.
    """

    tables: tuple[TableSurvey, ...]
    findings: tuple[CheckFinding, ...]
    sources: int


def survey_store(
    store: Store,
    finished: Callable[[str], None] = lambda _name: None,
) -> Survey:
    """Check everything a store holds; the store is only read.

    Args:
        store: the store.
        finished: told the name of each table when it is done.

    Raises:
        InputError: a part or a manifest record cannot be read.
    """
    records = store.records()
    tables = stored_tables(store)
    surveys = []
    for table in tables:
        surveys.append(survey_table(table, tables))
        finished(table.name)
    findings = [
        *manifest_findings(records.values()),
        *(finding for one in surveys for finding in one.findings),
        *twin_findings([(one.table, one.hourly) for one in surveys]),
        *ends_early([(one.table, one.coverage) for one in surveys]),
        *at_several_venues(tables),
    ]
    return Survey(tuple(surveys), tuple(ranked(findings)), len(records))


def ranked(findings: Sequence[CheckFinding]) -> list[CheckFinding]:
    """Keep the findings that found something, those that harm most first.

    By severity, then by the size of the worst move of a price, then by the share of the rows.
    """
    return sorted(
        (finding for finding in findings if finding.count > 0),
        key=lambda one: (
            SEVERITIES.index(one.severity),
            -abs(one.worst_move or 0.0),
            -one.count / max(one.total, 1),
            one.table,
            one.venue,
            one.symbol,
            one.what,
        ),
    )


def survey_table(table: StoredTable, others: Sequence[StoredTable] = ()) -> TableSurvey:
    """Run the checks of one contract's table.

    Args:
        table: the table.
        others: all tables of the store; mark and index prices are looked up in them.
    """
    interval = table.interval
    name = table.schema.table
    step = None if interval is None else Step(interval, regular=True)
    if interval is None and name not in SPORADIC:
        step = usual_step(table.blocks(["ts"]), events=table.schema.events)
    coverage = cover(table.blocks(["ts"]), step)
    findings = coverage_findings(table, coverage)
    if name in BAR_TABLES:
        return _bars(table, others, coverage, findings)
    if name in ("book", "quotes"):
        return _books(table, coverage, findings)
    if name in ("trades", "aggregate_trades", "liquidations"):
        return _trades(table, coverage, findings)
    if name == "funding":
        rates = FundingRates(table)
        for block in table.blocks(["ts", "funding_rate"]):
            rates.add(block)
        findings += rates.findings()
    if interval is not None:
        findings.append(off_grid(table, interval))
    return TableSurvey(table, coverage, tuple(findings))


def off_grid(table: StoredTable, interval: timedelta) -> CheckFinding:
    """Find rows that do not open on the grid of their interval."""
    tally = Tally(f"open off the grid of {table.table.rpartition('_')[2]}", REFUSED, "fault")
    for block in table.blocks(["ts"]):
        times = block["ts"]
        tally.add(times, times.dt.truncate(interval) != times, times)
    return tally.finding(table, table.rows)


def _bars(
    table: StoredTable,
    others: Sequence[StoredTable],
    coverage: Coverage,
    findings: list[CheckFinding],
) -> TableSurvey:
    assert table.interval is not None
    stale, prices, changes = StaleBars(table), PriceSpikes(table), UnitChanges(table)
    volume = AbsurdSizes(table, "volume")
    ticks = Ticks(PRICES, "1mo")
    reference = ReferenceDeviation(table, _references(table, others))
    closes = {"": HourlyCloses(pl.col("close"), pl.col("low"), pl.col("high"))}
    columns = ["ts", *PRICES, "volume", "mark_close", "index_close"]
    context = max(spikes.CONTEXT, sizes.CONTEXT, units.CONTEXT)

    def seen() -> Iterator[pl.DataFrame]:
        for block in table.blocks(columns):
            stale.add(block)
            ticks.add(block)
            reference.add(block)
            closes[""].add(block)
            for kind in ("mark_close", "index_close"):
                if kind in block.columns:
                    closes.setdefault(kind, HourlyCloses(pl.col(kind))).add(block)
            yield block

    for window in windows(seen(), context):
        prices.add(window)
        changes.add(window)
        volume.add(window)
    findings += [
        *stale.findings(),
        *prices.findings(),
        *changes.findings(),
        ticks.finding(table),
        *volume.findings(),
        *reference.findings(),
        off_grid(table, table.interval),
    ]
    hourly = {kind: one.prices() for kind, one in closes.items()}
    if table.interval > timedelta(hours=1):
        hourly = {}
    return TableSurvey(
        table,
        coverage,
        tuple(findings),
        hourly,
        stale=tuple(stale.stretches()),
        stale_since=stale.since(),
    )


def _references(table: StoredTable, others: Sequence[StoredTable]) -> dict[str, StoredTable]:
    if table.schema.table != "bars":
        return {}
    suffix = table.table.rpartition("_")[2]
    wanted = {f"{kind}_bars_{suffix}": kind for kind in ("mark", "index")}
    return {
        wanted[other.table]: other
        for other in others
        if other.table in wanted and (other.venue, other.symbol) == (table.venue, table.symbol)
    }


def _books(table: StoredTable, coverage: Coverage, findings: list[CheckFinding]) -> TableSurvey:
    books, level, depth = Books(table), PriceLevel(table, "mid"), AbsurdDepth(table)
    mids = HourlyCloses(pl.col("price"))

    def seen() -> Iterator[pl.DataFrame]:
        for block in table.blocks():
            usable = books.add(block)
            level.add(usable)
            mids.add(usable)
            yield usable

    for window in windows(seen(), sizes.CONTEXT):
        depth.add(window)
    findings += [*books.findings(), *level.findings(), *depth.findings()]
    return TableSurvey(
        table,
        coverage,
        tuple(findings),
        {"": mids.prices()},
        books=books.by_hour(),
        locked_share=books.locked_share,
    )


def _trades(table: StoredTable, coverage: Coverage, findings: list[CheckFinding]) -> TableSurvey:
    trades, ticks, size = Trades(table), Ticks(("price",), "1d"), AbsurdSizes(table, "size")
    level, closes = PriceLevel(table, "price"), HourlyCloses(pl.col("price"))

    def seen() -> Iterator[pl.DataFrame]:
        for block in table.blocks():
            trades.add(block)
            ticks.add(block)
            level.add(block)
            closes.add(block)
            yield block.select("ts", "size")

    for window in windows(seen(), sizes.CONTEXT):
        size.add(window)
    findings += [
        *trades.findings(),
        *level.findings(),
        ticks.finding(table),
        *size.findings(),
    ]
    return TableSurvey(table, coverage, tuple(findings), {"": closes.prices()})


def whole_span(survey: Survey) -> tuple[datetime, datetime]:
    """First and last time of all tables."""
    return (
        min(one.table.first for one in survey.tables),
        max(one.table.last for one in survey.tables),
    )
