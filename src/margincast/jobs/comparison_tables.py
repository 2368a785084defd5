"""Runs side by side on a terminal: who loses less, by how much, and is that more than chance."""

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.core.time import format_minutes
from margincast.jobs.comparison import Compared, Comparison, labels
from margincast.jobs.console import output, say
from margincast.jobs.headline import PRIMARY_METRIC
from margincast.training.tracking.recorded import RecordedRun

MOST_LEVELS = 3
"""Levels shown on the screen; ``--json`` holds all."""
MOST_COLUMNS = 4
"""Runs whose metrics fit beside each other; of more, ``--json`` holds them."""
_SIGNS = {"better": "[green]better[/]", "worse": "[red]worse[/]"}


def print_comparison(comparison: Comparison) -> None:
    """Print losses on shared decisions, recorded metrics, and what differs in the specs."""
    compared = [one for one in comparison.others if one.found is not None]
    for minutes in sorted({d.horizon_minutes for one in compared for d in one.differences}):
        output.print(_losses_table(comparison, compared, minutes))
    for one in comparison.others:
        if one.found is not None:
            _say_what_was_left_out(one)
        else:
            say(f"{one.run.label}: {one.reason}")
    runs = [comparison.against, *(one.run for one in comparison.others)]
    if len(runs) <= MOST_COLUMNS:
        output.print(_metrics_table(comparison, runs))
        if comparison.specs:
            output.print(_specs_table(comparison, runs))
    elif comparison.specs:
        say(f"the jobs' specs differ in {', '.join(comparison.specs)}; --json says how")
    if not comparison.specs:
        output.print("one spec, and the same data, for all of them")


def _losses_table(comparison: Comparison, compared: list[Compared], minutes: int) -> Table:
    assert comparison.losses is not None
    own = comparison.losses.query("horizon_minutes == @minutes")
    levels = sorted(float(level) for level in own["level"].unique())[:MOST_LEVELS]
    named = labels(comparison)
    against = named[comparison.against.run_id]
    table = Table(
        title=f"{format_minutes(minutes)} horizon: pinball loss against {against}",
        box=SIMPLE_HEAD,
        caption="difference of the mean pinball loss on the decisions both were asked, over all "
        "levels and at each, with its standard error; p: Diebold-Mariano on days, adjusted over "
        "the runs (Benjamini-Hochberg). exceeded: observed over nominal exceedances on the same "
        "decisions, in brackets those of the run compared with.",
    )
    table.add_column("run", overflow="fold", min_width=18)
    for heading in ("loss", "p", "verdict"):
        table.add_column(heading, justify="right", no_wrap=True)
    for level in levels:
        table.add_column(f"loss {level:g}", justify="right", no_wrap=True)
        table.add_column(f"exceeded {level:g}", justify="right", no_wrap=True)
    table.add_column("days", justify="right", no_wrap=True)
    for one in compared:
        row = _row(one, minutes, levels)
        if row:
            table.add_row(named[one.run.run_id], *row)
    return table


def _row(one: Compared, minutes: int, levels: list[float]) -> list[str]:
    assert one.found is not None
    numbers = {
        difference.level: number
        for number, difference in enumerate(one.differences)
        if difference.horizon_minutes == minutes
    }
    if not numbers:
        return []
    together = one.differences[numbers[None]]
    verdict = one.verdict(numbers[None])
    row = [
        f"{together.difference:+.1%} \N{PLUS-MINUS SIGN}{together.standard_error:.1%}",
        f"{one.adjusted_p[numbers[None]]:.3f}",
        _SIGNS.get(verdict, verdict),
    ]
    rows = one.found.rows.query("horizon_minutes == @minutes")
    for level in levels:
        if level not in numbers:
            row += ["-", "-"]
            continue
        at_level = one.differences[numbers[level]]
        row.append(f"{at_level.difference:+.1%}")
        cell = rows.query("level == @level")
        first, second = (_exceeded(cell, level, which) for which in ("first", "second"))
        row.append(f"{first:.2f}x ({second:.2f}x)")
    return [*row, f"{together.days:,}"]


def _exceeded(cell: pd.DataFrame, level: float, which: str) -> float:
    return float(cell[f"exceedances_{which}"].sum() / cell["decisions"].sum() / (1.0 - level))


def _say_what_was_left_out(one: Compared) -> None:
    assert one.found is not None
    shared = one.found.shared
    reasons = [f"{reason}: {count:,}" for reason, count in shared.left_out.items() if count]
    if reasons:
        say(
            f"{one.run.label}: {shared.contract_days:,} days of a contract compared "
            f"({shared.first_day:%F} to {shared.last_day:%F}, {len(shared.contracts)} contracts); "
            f"left out: {', '.join(reasons)} (the first is this run)"
        )


def _metrics_table(comparison: Comparison, runs: list[RecordedRun]) -> Table:
    table = Table(
        title="As recorded, each on the decisions of its own job",
        box=SIMPLE_HEAD,
        caption="in brackets the difference to the first column",
    )
    table.add_column("metric", no_wrap=True)
    for run in runs:
        table.add_column(labels(comparison)[run.run_id], justify="right", overflow="fold")
    base = runs[0]
    known = {name for run in runs for name in run.metrics}
    for name in sorted(known, key=lambda name: (name != PRIMARY_METRIC, name)):
        table.add_row(name, *(_metric(run, base, name) for run in runs))
    return table


def _metric(run: RecordedRun, base: RecordedRun, name: str) -> str:
    if name not in run.metrics:
        return "-"
    value = f"{run.metrics[name]:.5g}"
    if run is base or name not in base.metrics:
        return value
    return f"{value} ({run.metrics[name] - base.metrics[name]:+.3g})"


def _specs_table(comparison: Comparison, runs: list[RecordedRun]) -> Table:
    table = Table(title="What the jobs were made from, where they differ", box=SIMPLE_HEAD)
    table.add_column("key", no_wrap=True)
    for run in runs:
        table.add_column(labels(comparison)[run.run_id], overflow="fold")
    for key, texts in comparison.specs.items():
        shown = [texts[run.run_id] or "-" for run in runs]
        # a digest says no more than that something differs
        table.add_row(key, *(text[:12] if key.startswith("digest.") else text for text in shown))
    return table
