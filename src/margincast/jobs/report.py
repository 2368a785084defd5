"""``margincast report``: validate forecasts that somebody else's model made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from margincast.backtest.battery import Series
from margincast.backtest.evaluation import Evaluation, evaluate
from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.replay import Replay
from margincast.backtest.report import ReportFacts, write_report
from margincast.backtest.submitted import Submitted, join_outcomes, models_of, read_submitted
from margincast.backtest.validation import Validation, checklist_of, validate, write_validation
from margincast.core.digest import digest_of_file
from margincast.core.errors import InputError, did_you_mean
from margincast.core.time import format_minutes
from margincast.data.bars import interval_of, read_bars
from margincast.jobs.console import output, progress, say
from margincast.jobs.tables import model_table


@dataclass(frozen=True)
class Judged:
    """One horizon's figures and where they were written."""

    evaluation: Evaluation
    validation: Validation
    page: Path


def run(
    forecasts: Path,
    bars: Sequence[str],
    out: Path | None,
    *,
    subject: str | None = None,
    against: Sequence[str] = (),
    terminal: bool = False,
) -> dict[int, Judged]:
    """Judge a table of forecasts on bars; write a report, its record and its tables a horizon.

    Args:
        forecasts: see :func:`~margincast.backtest.submitted.read_submitted`.
        bars: folders or files of bars; earlier ones keep a contract's plain name.
        out: folder to write to; ``out/report`` if not given.
        subject: model on trial; the table's first if not given.
        against: models to compare with, the reference first; all others if none is named.
        terminal: outcomes are end points of the horizon instead of extremes of its path.

    Raises:
        InputError: forecasts or bars that cannot be judged; says why.
    """
    folder = out or Path("out") / "report"
    for entry in bars:
        if not Path(entry).exists():
            raise InputError(f"--bars {entry} does not exist; give a folder or file of bars")
    say(f"reading {forecasts}")
    table = read_submitted(forecasts, [subject, *against] if subject and against else ())
    interval = interval_of(Path(), bars)
    read = read_bars(Path(), list(bars), (), interval)
    submitted = join_outcomes(table, read, kind="terminal" if terminal else "path")
    submitted = replace(submitted, findings=(*read.findings, *submitted.findings))
    models = models_of(submitted.replays)
    chosen = _known(subject or models[0], models)
    reference = _known(against[0], models) if against else _first_other(chosen, models)
    for minutes, replay in submitted.replays.items():
        for name in (chosen, reference):
            _known(name, list(replay.forecasts), f" over {format_minutes(minutes)}")
    judged = {}
    for minutes, replay in submitted.replays.items():
        name = "report.html" if len(submitted.replays) == 1 else f"report-{minutes}m.html"
        judged[minutes] = _judge(
            submitted,
            replay,
            minutes,
            subject=chosen,
            reference=reference,
            page=folder / name,
            source=forecasts,
            outcomes="at the end of" if terminal else "along",
        )
    return judged


def _judge(
    submitted: Submitted,
    replay: Replay,
    minutes: int,
    *,
    subject: str,
    reference: str,
    page: Path,
    source: Path,
    outcomes: str,
) -> Judged:
    horizon = timedelta(minutes=minutes)
    evaluation = evaluate(
        replay,
        reference,
        horizon=horizon,
        spacing=submitted.spacing,
        first_decisions=submitted.first_decisions,
        subject=subject,
    )
    levels = tuple(sorted({cell.level for cell in evaluation.cells}))
    output.print(model_table(evaluation, levels, f"{format_minutes(minutes)} horizon, "))
    contracts = evaluation.contracts["symbol"].nunique()
    sides = len(next(iter(replay.forecasts.values())).sides)
    with progress("tests", contracts * sides) as counter:

        def count(one: Series) -> None:
            counter.advance(f"{one.symbol} {one.side}", quiet=True)

        found = validate(
            replay,
            subject,
            reference,
            horizon=horizon,
            monte_carlo=SimulatedExceedances(),
            on_series=count,
        )
    decided = replay.panel.decided[replay.panel.labelled]
    period = (_moment(decided.min()), _moment(decided.max()) + submitted.spacing)
    facts = ReportFacts(
        job=f"{subject}, {format_minutes(minutes)} horizon",
        description=f"forecasts of {source.name}, outcomes {outcomes} the horizon, from bars",
        horizon_minutes=minutes,
        test_period=period,
        findings=submitted.findings,
        digests={
            "forecasts": digest_of_file(source),
            "margincast": version("margincast"),
        },
        notes=(
            (
                "The forecasts were made elsewhere: nothing here shows that they were made before "
                "their outcomes were known."
            ),
        ),
        validation=found,
        checklist=checklist_of(evaluation, found, horizon, period),
    )
    write_report(page, evaluation, replay, facts)
    write_validation(page.with_suffix(""), evaluation, found, facts.checklist)
    output.print(f"report: {page}", soft_wrap=True)
    return Judged(evaluation, found, page)


def _known(name: str, models: Sequence[str], where: str = "") -> str:
    if name not in models:
        raise InputError(
            f"no forecast of {name!r}{where}{did_you_mean(name, models)}; there are "
            f"{', '.join(models)}"
        )
    return name


def _first_other(subject: str, models: Sequence[str]) -> str:
    """Return the first other model; a model alone is its own reference."""
    return next((name for name in models if name != subject), subject)


def _moment(instant: object) -> datetime:
    return datetime.fromisoformat(str(instant)).replace(tzinfo=UTC)
