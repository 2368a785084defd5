"""``margincast features build``: a feature set on a folder of market data, as one Parquet file."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from rich.table import Table

from margincast.core.errors import InputError
from margincast.core.execution import Execution
from margincast.data.quality import Finding, found
from margincast.data.writing import write_table
from margincast.features.loading import load_feature_set
from margincast.features.pipeline import FeatureTable, build_features
from margincast.features.sources import Sources
from margincast.features.tables import readings_of
from margincast.jobs.console import output, progress, say
from margincast.jobs.market_folder import choose_data
from margincast.jobs.setting import Setting
from margincast.specs.features import FeatureSet
from margincast.training.market import read_market

MOST_CONTRACTS = 40
"""Contracts that the table on the screen names; all stand in ``features.json``."""

WORST_COLUMNS = 10
"""Columns with most NaN that the screen names."""


def build(
    spec: Path,
    data: Path | None,
    out: Path | None,
    overrides: list[str],
    cache: str | None = None,
    *,
    cluster: str | None = None,
) -> Path:
    """Build a feature set and write ``features.parquet`` and ``features.json``.

    ``--data`` is a folder as :func:`margincast.jobs.market_folder.choose_data` reads it. Tables
    that the set reads and the data does not hold are reported, and their columns are NaN; a
    training job would refuse them. Overrides of ``data.*`` say which entries to read, as in a
    training spec; others change the set. With a Dask cluster its workers, which must see the files
    under the same paths, reduce books and trades.

    Returns:
        The Parquet file.

    Raises:
        InputError: data that is there breaks a rule, or there is nothing to build on.
    """
    named = [text for text in overrides if text.startswith("data.")]
    feature_set = load_feature_set(spec, [text for text in overrides if text not in named])
    setting = Setting.of(spec, data, out, f"features-{feature_set.name}", cache)
    _require_folder(setting.out)
    with setting.on(cluster) as placed:
        return _build(feature_set, placed, named, placed.execution if cluster else None)


def _build(
    feature_set: FeatureSet, setting: Setting, named: list[str], execution: Execution | None
) -> Path:
    """Build and write; ``execution`` as :func:`~margincast.features.pipeline.build_features`."""
    chosen = choose_data(setting.root, feature_set, named)
    market = read_market(chosen, feature_set, setting.root, require_all=False)
    sources = market.sources
    with progress("features", _pieces(feature_set, sources)) as counter:
        table = build_features(feature_set, sources, setting.cache, counter.advance, execution)
    setting.say_what_was_reused()
    findings = found((*market.findings, *table.findings))
    for finding in findings:
        if finding.severity == "warning":
            say(f"{finding.table}, {finding.symbol}: {finding.what}; {finding.action}")
    path = setting.out / "features.parquet"
    write_table(table.frame, path)
    causes = _causes(feature_set, table.findings)
    contracts = _contracts(table)
    record = {
        "feature_set": feature_set.model_dump(mode="json"),
        "feature_set_hash": table.feature_set_hash,
        "data_digest": market.digest,
        "units": dict(table.units),
        "contracts": contracts.to_dict(orient="records"),
        "not_known": causes.to_dict(orient="records"),
        "findings": [finding.as_record() for finding in findings],
    }
    (setting.out / "features.json").write_text(
        json.dumps(record, indent=1) + "\n", encoding="utf-8"
    )
    for shown in (
        _contract_table(contracts),
        _cause_table(feature_set, causes, len(table.frame)),
        _column_table(causes, len(table.frame)),
    ):
        if shown.row_count:
            output.print(shown)
    say(
        f"{len(table.frame):,} decisions x {len(table.units)} features of {len(contracts)} "
        f"contracts; {len(findings)} kinds of irregularity counted in features.json"
    )
    return path


def _require_folder(out: Path) -> None:
    """Refuse an output that cannot be a folder before the long work."""
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{there} is a file; --out takes a folder")


def _pieces(feature_set: FeatureSet, sources: Sources) -> int:
    """Tables of contracts that a build goes through: those of contracts with bars."""
    contracts = sources.bars.frames.keys()
    books = sources.books.frames if sources.books is not None and feature_set.book else {}
    trades = sources.trades.frames if sources.trades is not None and feature_set.trades else {}
    return sum(len(contracts & table.keys()) for table in (sources.bars.frames, books, trades))


def _causes(feature_set: FeatureSet, findings: Iterable[Finding]) -> pd.DataFrame:
    """Features not known: one row a column and cause, with the column's family, most first."""
    readings = readings_of(feature_set)
    rows = [
        (readings[finding.symbol].family, finding.symbol, finding.what, finding.count)
        for finding in findings
        if finding.table == "features" and finding.symbol in readings and finding.count
    ]
    frame = pd.DataFrame(rows, columns=["family", "column", "cause", "count"])
    return frame.sort_values(["count", "column"], ascending=[False, True], ignore_index=True)


def _contracts(table: FeatureTable) -> pd.DataFrame:
    """Decisions of each contract, from when to when, and the share of its features not known."""
    unknown = table.frame[list(table.units)].isna().mean(axis=1).rename("unknown")
    by_contract = table.frame[["symbol", "ts"]].join(unknown).groupby("symbol")
    frame = by_contract.agg(
        decisions=("ts", "size"),
        first=("ts", "min"),
        last=("ts", "max"),
        unknown=("unknown", "mean"),
    ).reset_index()
    return frame.assign(
        **{name: frame[name].map(pd.Timestamp.isoformat) for name in ("first", "last")}
    )


def _contract_table(contracts: pd.DataFrame) -> Table:
    shown = Table(title="Decisions")
    shown.add_column("contract")
    shown.add_column("decisions", justify="right")
    for name in ("first", "last"):
        shown.add_column(f"{name} (UTC)")
    shown.add_column("NaN", justify="right")
    for row in contracts.head(MOST_CONTRACTS).to_dict(orient="records"):
        shown.add_row(
            str(row["symbol"]),
            f"{row['decisions']:,}",
            *(str(row[name])[:16].replace("T", " ") for name in ("first", "last")),
            f"{row['unknown']:.2%}",
        )
    if len(contracts) > MOST_CONTRACTS:
        shown.caption = f"{len(contracts) - MOST_CONTRACTS} more stand in features.json"
    return shown


def _cause_table(feature_set: FeatureSet, causes: pd.DataFrame, decisions: int) -> Table:
    """Share of values not known: a row a family and cause."""
    sizes = Counter(reading.family for reading in readings_of(feature_set).values())
    shown = Table(title="NaN by family and cause")
    for name in ("family", "cause"):
        shown.add_column(name)
    for name in ("columns", "NaN", "of all values"):
        shown.add_column(name, justify="right")
    for family, size in sizes.items():
        of_family = causes[causes["family"] == family]
        values = size * decisions
        total = int(of_family["count"].sum())
        shown.add_row(family, "all", str(size), f"{total:,}", f"{total / values:.3%}", style="bold")
        by_cause = of_family.groupby("cause").agg(
            columns=("column", "nunique"), NaN=("count", "sum")
        )
        for cause, row in by_cause.sort_values("NaN", ascending=False).iterrows():
            share = f"{row['NaN'] / values:.3%}"
            shown.add_row("", str(cause), str(row["columns"]), f"{row['NaN']:,}", share)
    return shown


def _column_table(causes: pd.DataFrame, decisions: int) -> Table:
    """Columns with most values not known, and why."""
    shown = Table(title="Columns with most NaN")
    shown.add_column("column")
    for name in ("NaN", "share"):
        shown.add_column(name, justify="right")
    shown.add_column("main cause")
    total = causes.groupby("column", sort=False)["count"].sum()
    # the rows of a column are sorted, most first
    cause = causes.drop_duplicates("column").set_index("column")["cause"]
    worst = total.sort_values(ascending=False, kind="stable").head(WORST_COLUMNS)
    for column, count in worst.items():
        name = str(column)
        shown.add_row(name, f"{count:,}", f"{count / decisions:.2%}", cause.loc[name])
    return shown
