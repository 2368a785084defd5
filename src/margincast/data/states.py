"""States and flows beside bars: funding, open interest, liquidations, implied volatility, options.

What positions cost to hold, how crowded they are, who is being liquidated and what options say is
to come. Rows are sparse in time; each counts from the moment it could have been known: a row that
covers an interval from the interval's close, any other from its own time, and both from their
arrival (column ``received_at``) where that is later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl

from margincast.core.errors import InputError
from margincast.core.time import format_duration, parse_duration
from margincast.data.files import TableFile, find_table_files, readable
from margincast.data.quality import Finding
from margincast.data.reception import not_received, utc_time
from margincast.data.schemas import (
    FUNDING,
    SCHEMAS,
    Schema,
    check_sorted_unique,
    check_values,
    raise_if,
    require_columns,
    schema_of,
    with_canonical_names,
    with_utc_timestamp,
)

STATE_TABLES = ("funding", "open_interest", "liquidations", "implied_vol", "options")
"""Tables beside bars, books and trades.

Their symbols may be underlyings: they find their contracts, and ``data.symbols`` does not pick
them.
"""

PERCENT = 0.01

LEAST_IMPLIED_VOLATILITY_PERCENT = 5.0
"""An index whose median is lower holds fractions.

Deribit's index of bitcoin closed between 31 and 167 % a year from March 2021 to the end of 2024.
"""

OF_ONE_MARKET: Mapping[str, tuple[str, ...]] = {"open_interest": ("open_interest",)}
"""By table, columns in the unit of one market's volume: coins, thousands of them, contracts.

Beside another market's bars, though of the same underlying, they would be wrong by that unit.
"""

_NOTIONAL = pl.col("price") * pl.col("size")


@dataclass(frozen=True)
class StateTable:
    """Rows of one table for several contracts, or underlyings.

    Attributes:
        frames: per symbol, sorted by ``known_at``: ``ts``, ``known_at`` (UTC; when the row could
            have been known) and the table's values, float64. Rows that cover an interval also
            have ``covers`` (duration): its length, from ``ts`` on.
        findings: what was irregular.
    """

    frames: dict[str, pl.DataFrame]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Form:
    """A form in which a table comes.

    Attributes:
        schema: its columns and their rules.
        values: what is read of it, by name.
        flow: whether rows add up; otherwise the newest stands.
        optional: columns of values that may be absent.
    """

    schema: Schema
    values: Mapping[str, pl.Expr]
    flow: bool = False
    optional: tuple[str, ...] = ()


_FORMS: Mapping[str, tuple[_Form, ...]] = {
    "funding": (_Form(FUNDING, {"funding_rate": pl.col("funding_rate")}),),
    "open_interest": (
        _Form(
            SCHEMAS["open_interest"],
            {
                "open_interest": pl.col("open_interest"),
                "open_interest_usd": pl.col("open_interest_usd"),
            },
            optional=("open_interest_usd",),
        ),
        _Form(SCHEMAS["open_interest_bars"], {"open_interest_usd": pl.col("close")}),
    ),
    "liquidations": (
        # the side is that of the liquidation order: a sell closes a long position
        _Form(
            SCHEMAS["liquidations"],
            {
                "long_liquidated_usd": pl.when(pl.col("side") == "sell")
                .then(_NOTIONAL)
                .otherwise(0),
                "short_liquidated_usd": pl.when(pl.col("side") == "buy")
                .then(_NOTIONAL)
                .otherwise(0),
            },
            flow=True,
        ),
        _Form(
            SCHEMAS["liquidation_totals"],
            {
                "long_liquidated_usd": pl.col("long_usd"),
                "short_liquidated_usd": pl.col("short_usd"),
            },
            flow=True,
        ),
    ),
    "implied_vol": (
        _Form(SCHEMAS["implied_vol"], {"implied_volatility": pl.col("close") * PERCENT}),
    ),
}
"""The forms of every table, by the name a spec's ``[data]`` has for it."""


def read_states(root: Path, entries: Sequence[str], table: str) -> StateTable:
    """Read and check the states of every contract or underlying.

    ==============  ========================================================================
    table           values
    ==============  ========================================================================
    funding         ``funding_rate``, a fraction of the notional paid by longs each funding
    open_interest   ``open_interest``, in the unit of the bars' volume, and
                    ``open_interest_usd``; of bars of its value: the close, USD alone
    liquidations    ``long_liquidated_usd``, ``short_liquidated_usd``: USD of one liquidation,
                    or of all in the interval that the row ``covers``
    implied_vol     ``implied_volatility``, a fraction a year: the close of the index / 100
    ==============  ========================================================================

    A row covers an interval where the table's form says so; its length is that of the store's
    table (``implied_vol_1h``), elsewhere the time between the first two rows that came in.

    Args:
        root: folder that relative entries start at.
        entries: Parquet files, folders of them, or folders of a store.
        table: ``funding``, ``open_interest``, ``liquidations`` or ``implied_vol``.

    Raises:
        InputError: a file, column, value or time breaks a rule; says which, where and what to do.
    """
    files, findings = find_table_files(root, entries, (), table)
    frames = {}
    for file in files:
        with readable(str(file)):
            frames[file.symbol], more = checked_states(file, table)
        findings += more
    return StateTable(frames, tuple(findings))


def older_than_known() -> pl.Expr:
    """Whether a row is older than one known before it, over rows sorted by ``known_at``."""
    return pl.col("ts") < pl.col("ts").cum_max()


def checked_states(file: TableFile, table: str) -> tuple[pl.DataFrame, list[Finding]]:
    """Read one contract's rows and hold them against the schema of their form.

    Returns:
        The frame as in :class:`StateTable`, and what was found.

    Raises:
        InputError: see :func:`read_states`.
    """
    source = str(file)
    scanned = _without_index_name(with_canonical_names(file.scan()), table)
    stored = _stored_table(file)
    form = _form_of(scanned, table, stored, source)
    frame = with_utc_timestamp(scanned, source).collect()
    if frame.is_empty():
        raise InputError(f"{source}: the table has no rows")
    frame = _checked_values(frame, form, source)
    interval = _interval(frame, form, stored, source) if form.schema.covers_interval else None
    frame, disorder = _in_order_of_knowledge(frame, form, interval, source, (table, file.symbol))
    findings = [
        *disorder,
        *([] if interval is None else [_missing(frame["ts"], interval, table, file.symbol)]),
    ]
    values = [value.cast(pl.Float64).alias(name) for name, value in form.values.items()]
    if interval is not None:
        values.append(pl.lit(interval, dtype=pl.Duration("us")).alias("covers"))
    return frame.select("ts", "known_at", *values), findings


def _stored_table(file: TableFile) -> str | None:
    """Name of the table where the file lies in a store, as in ``implied_vol_1h``."""
    return next(
        (part.removeprefix("table=") for part in file.paths[0].parts if part.startswith("table=")),
        None,
    )


def _form_of(frame: pl.LazyFrame, table: str, stored: str | None, source: str) -> _Form:
    forms = _FORMS[table]
    if stored is not None:
        kind = schema_of(stored).table
        matching = [form for form in forms if form.schema.table == kind]
        if not matching:
            raise InputError(
                f"{source} holds the table {stored}; data.{table} reads "
                f"{' or '.join(form.schema.table for form in forms)}: name a folder of those"
            )
        forms = (matching[0],)
    there = set(frame.collect_schema().names())
    # the form that lacks the fewest columns is the one that was meant
    form = min(forms, key=lambda form: len(set(form.schema.required) - there))
    require_columns(frame, form.schema, source)
    return form


def _without_index_name(frame: pl.LazyFrame, table: str) -> pl.LazyFrame:
    """Take the index's name off its bars' columns (``dvol_close``), where there is one alone."""
    names = frame.collect_schema().names()
    parts = ("open", "high", "low", "close")
    prefixes = [
        prefix
        for prefix in (name.removesuffix("close") for name in names if name.endswith("_close"))
        if all(prefix + part in names for part in parts)
    ]
    if table != "implied_vol" or len(prefixes) != 1 or any(part in names for part in parts):
        return frame
    return frame.rename({prefixes[0] + part: part for part in parts})


def _checked_values(frame: pl.DataFrame, form: _Form, source: str) -> pl.DataFrame:
    absent = [name for name in form.optional if name not in frame.columns]
    frame = frame.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in absent)
    check_values(frame, form.schema, source)
    if "side" in form.schema.required:
        frame = frame.with_columns(pl.col("side").cast(pl.String).str.to_lowercase())
        _require_sides(frame, source)
    if "implied_volatility" in form.values:
        middle = frame["close"].cast(pl.Float64).median()
        assert isinstance(middle, float)
        if middle < LEAST_IMPLIED_VOLATILITY_PERCENT:
            raise InputError(
                f"{source}: column 'close' has a median of {middle:g}; an index of implied "
                "volatility is in percent a year (60, not 0.6): multiply fractions by 100"
            )
    return frame


def _require_sides(frame: pl.DataFrame, source: str) -> None:
    bad = ~frame["side"].is_in(["buy", "sell"]).fill_null(value=False)
    if bad.any():
        row = int(bad.arg_max() or 0)
        raise InputError(
            f"{source}: column 'side' holds {frame['side'][row]!r} at row {row} "
            f"({frame['ts'][row]}); allowed is buy or sell, the side of the liquidation order "
            f"({int(bad.sum())} such row(s)); repair or remove these rows"
        )


def _interval(frame: pl.DataFrame, form: _Form, stored: str | None, source: str) -> timedelta:
    """Interval that each row covers.

    Where nothing states it, it is the time between the first two rows that came in: a later row may
    contradict that, and is then refused, but does not change when earlier ones were known.

    Raises:
        InputError: nothing says how long it is, rows cover the same time twice, or times lie off
            the grid that the first two rows make.
    """
    steps = frame["ts"].unique().sort().diff().drop_nulls()
    if stored is not None:
        interval = parse_duration(stored.rpartition("_")[2])
        wrong, rule = steps < interval, "open(s) before the row before has closed"
    else:
        if steps.is_empty():
            raise InputError(
                f"{source}: one row alone does not show how long an interval it covers; give more "
                "rows, or bring the file into a store with 'margincast data ingest'"
            )
        came = [pl.col("ts"), *([_received(frame, source)] if "received_at" in frame else [])]
        first, second = (
            frame.sort(pl.max_horizontal(came), maintain_order=True)["ts"]
            .unique(maintain_order=True)
            .head(2)
        )
        interval = abs(second - first)
        length = steps.dt.total_microseconds()
        wrong = length % (interval // timedelta(microseconds=1)) != 0
        rule = "come(s) no whole number of intervals after the row before"
    if wrong.any():
        raise InputError(
            f"{source}: rows of {form.schema.table} cover {format_duration(interval)} each"
            f"{'' if stored else ', the time between the first two'}, and {int(wrong.sum())} "
            f"{rule}; keep rows of one interval"
            f"{'' if stored else ', or bring the file into a store, which states it'}"
        )
    return interval


def _in_order_of_knowledge(
    frame: pl.DataFrame,
    form: _Form,
    interval: timedelta | None,
    source: str,
    where: tuple[str, str],
) -> tuple[pl.DataFrame, list[Finding]]:
    """Sort rows by when they were known; of states, leave out those older than one known before.

    Raises:
        InputError: states or sums of intervals repeat a time, or run backwards with nothing that
            says in which order they were known.
    """
    arrives = "received_at" in frame.columns
    events = form.schema.events
    if not events and not arrives:
        check_sorted_unique(frame, source)
    if arrives and form.flow and not events:
        ordered = frame.sort("ts")
        repeated = ordered["ts"].diff().dt.total_microseconds() == 0
        raise_if(ordered, repeated, source, "repeats", "keep one row per interval")
    closed = pl.col("ts") if interval is None else pl.col("ts") + interval
    known_at = pl.max_horizontal(closed, _received(frame, source)) if arrives else closed
    frame = frame.with_columns(known_at.alias("known_at"))
    late = frame["known_at"] < frame["known_at"].cum_max()
    findings = [
        Finding(
            *where,
            "known before a row above it",
            int(late.sum()),
            len(frame),
            "sorted by the time they were known",
            frame["ts"].filter(late).min(),  # type: ignore[arg-type] # a time, as ts is
        )
    ]
    if arrives:
        known = "at its own time" + (", that of its interval's close" if interval else "")
        findings.append(not_received(frame, *where, known))
    if form.flow and interval is not None:
        findings.append(_late_sums(frame, interval, where))
    # of rows known at one time the newest comes last, and stands
    frame = frame.sort("known_at", "ts", maintain_order=True)
    if form.flow:
        return frame, findings
    outdated = frame.select(older_than_known()).to_series()
    findings.append(
        Finding(
            *where,
            "arrived after a newer row was known",
            int(outdated.sum()),
            len(frame),
            "left out; the newer row stands",
            frame["ts"].filter(outdated).min(),  # type: ignore[arg-type] # a time, as ts is
        )
    )
    return frame.filter(~outdated), findings


def _received(frame: pl.DataFrame, source: str) -> pl.Expr:
    return utc_time("received_at", frame.schema["received_at"], source)


def _late_sums(frame: pl.DataFrame, interval: timedelta, where: tuple[str, str]) -> Finding:
    late = frame.filter(pl.col("known_at") > pl.col("ts") + interval)["ts"]
    return Finding(
        *where,
        "sums received after their interval's close",
        len(late),
        len(frame),
        "in no bar that had closed by then; what was liquidated in such a bar is not known",
        late.min(),  # type: ignore[arg-type] # a time, as ts is
        severity="warning",
    )


def _missing(ts: pl.Series, interval: timedelta, table: str, symbol: str) -> Finding:
    opens = ts.unique().sort()
    steps = opens.diff()
    gaps = steps > interval
    missing = (steps.filter(gaps) / interval).ceil() - 1
    return Finding(
        table,
        symbol,
        f"missing intervals of {format_duration(interval)}",
        int(missing.sum()),
        len(opens) + int(missing.sum()),
        "nothing is put in their place",
        opens.shift(1).filter(gaps).min(),  # type: ignore[arg-type] # a time, as ts is
    )
