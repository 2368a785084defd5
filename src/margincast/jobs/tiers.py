"""``margincast tiers``: a base schedule whose brackets follow what closing each notional costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from textwrap import wrap

import numpy as np
import polars as pl

from margincast import __version__
from margincast.core.errors import InputError
from margincast.core.types import SIDES
from margincast.data.bars import BarTable, read_bars
from margincast.data.book import BookTable, read_books
from margincast.data.mid_bars import mid_bars
from margincast.data.writing import write_text
from margincast.jobs.books import books_at
from margincast.jobs.console import output, say
from margincast.jobs.moment import moment_of
from margincast.jobs.setting import NO_CACHE, Setting
from margincast.jobs.simulated_data import data_root
from margincast.jobs.tier_tables import summary_of, tier_table
from margincast.margin.curve import BaseRates, margin_curve
from margincast.margin.explanation import percent
from margincast.margin.initial_margin import initial_margin_rates
from margincast.margin.liquidation_cost import Book
from margincast.margin.schedule import require_policy_fits, tiers_for
from margincast.margin.tiers import Choice, MarginCurve, choose_tiers, notionals_usd
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule, ContractBrackets, Tier
from margincast.specs.schedule_file import schedule_toml
from margincast.specs.serving import MarginPolicy
from margincast.specs.training import TrainingJob
from margincast.training.policy_inputs import history_of, references_of

COMMENT_WIDTH = 97


@dataclass(frozen=True)
class Made:
    """The tiers of one contract and what they were made from."""

    symbol: str
    curve: MarginCurve
    choice: Choice
    tiers: tuple[Tier, ...]
    reason: str


def run(
    spec: Path,
    data: Path | None,
    out: Path,
    overrides: Sequence[str],
    *,
    job: Path | None = None,
    at: str | None = None,
    previous: Path | None = None,
    rate: float | None = None,
) -> list[Made]:
    """Make the tiers of every contract with an order book and write them as a base schedule.

    Args:
        spec: the margin policy, with ``[tiers]`` and ``[liquidation.book]``.
        data: folder that data paths start at.
        out: the TOML file to write; it must not be there yet.
        overrides: ``section.key=value`` texts; those of ``data.*`` change where the training job
            says its data lies, the others change the policy.
        job: training job whose ``[data]`` is read; when absent, the one of the policy's model.
        at: moment of use; the newest book's when absent.
        previous: base schedule in force, whose edges stand while they are good.
        rate: long-run rate of every contract; from its bars and ``[long_run]`` when absent.

    Raises:
        InputError: policy, job, data or rates cannot be used, or ``out`` is there.
    """
    if out.exists():
        raise InputError(f"{out} is there; a schedule in force is not overwritten: name another")
    of_data = [text for text in overrides if text.startswith("data.")]
    policy = load_spec(spec, MarginPolicy, [text for text in overrides if text not in of_data])
    _require_sections(policy, rate)
    setting = Setting.of(spec, data, None, "tiers", NO_CACHE)
    trained = load_spec(job or _job_of(policy, setting.workspace), TrainingJob, of_data)
    before = None if previous is None else load_spec(previous, BaseSchedule)
    root = data_root(setting, trained.data)
    books = _books(trained, root)
    moment = _newest(books) if at is None else moment_of(at)
    say(f"{len(books.frames)} contracts with order books, as of {moment:%F %H:%M:%S} UTC")
    if rate is not None:
        rates = dict.fromkeys(books.frames, BaseRates.given(rate))
    else:
        bars = _bars(trained, root, setting.workspace, books)
        rates = _long_run_rates(bars, sorted(books.frames), moment, policy)
    found = books_at(policy, books, moment)
    made = [
        _made(symbol, rates[symbol], found.get(symbol), policy, before)
        for symbol in sorted(books.frames)
    ]
    schedule = BaseSchedule(
        name=out.stem,
        description=f"Tiers that follow the margin curves of policy {policy.name}",
        brackets=tuple(ContractBrackets(symbols=(one.symbol,), tiers=one.tiers) for one in made),
    )
    require_policy_fits(policy, schedule)
    lines = [summary_of(one.symbol, one.choice, policy, one.reason) for one in made]
    head = (
        f"Made by margincast {__version__} from policy {policy.name} (digest "
        f"{policy.digest()[:12]}) and the order books of {moment:%F %H:%M:%S} UTC."
    )
    comment = [row for line in (head, *lines) for row in wrap(line, COMMENT_WIDTH)]
    write_text(out, schedule_toml(schedule, "\n".join(comment)))
    for one, line in zip(made, lines, strict=True):
        output.print(tier_table(one.symbol, one.tiers, one.curve))
        output.print(line)
    output.print(f"base schedule: {out}", soft_wrap=True)
    return made


def _made(
    symbol: str,
    rates: BaseRates,
    book: Book | None,
    policy: MarginPolicy,
    before: BaseSchedule | None,
) -> Made:
    shape = policy.tiers
    assert shape is not None
    named = frozenset() if before is None else before.named
    earlier = None
    if before is not None and (before.default is not None or symbol in named):
        earlier = tuple(tier.cap_usd for tier in tiers_for(before, symbol))
    try:
        curve, reason = margin_curve(notionals_usd(shape), rates, policy, book)
        choice = choose_tiers(curve, shape, policy.rounding.mmr_step, earlier)
    except InputError as error:
        raise InputError(f"{symbol}: {error}") from None
    fit = choice.fit
    mmrs = np.array(fit.rates)
    imrs, _ = initial_margin_rates(mmrs, np.zeros(len(mmrs)), policy)
    tiers = tuple(
        Tier(floor_usd=floor, cap_usd=cap, mmr=mmr, imr=imr)
        for floor, cap, mmr, imr in zip(
            (0.0, *fit.edges_usd[:-1]), fit.edges_usd, fit.rates, imrs.tolist(), strict=True
        )
    )
    return Made(symbol, curve, choice, tiers, f"base rate {_rate_text(rates)}; {reason}")


def _rate_text(rates: BaseRates) -> str:
    return ", ".join(f"{side} {percent(rates.long_run[side])}" for side in SIDES)


def _require_sections(policy: MarginPolicy, rate: float | None) -> None:
    """Refuse a policy that says too little to make tiers from.

    Raises:
        InputError: says which section is missing and what it is for.
    """
    if policy.tiers is None:
        raise InputError(f"policy {policy.name} has no [tiers]: how many, how large, how close")
    if policy.liquidation.book is None:
        raise InputError(
            f"policy {policy.name} has no [liquidation.book]: without the order book every "
            "notional costs the same and one tier is enough"
        )
    if rate is None and policy.long_run is None:
        raise InputError(
            f"policy {policy.name} has no [long_run] that says what margin rests on without a "
            "forecast: add the section, or give a rate with --rate, such as 0.01"
        )


def _job_of(policy: MarginPolicy, workspace: Path) -> Path:
    """Return the training job that registers the policy's model."""
    name = policy.model.registered_model
    jobs = sorted((workspace / "training").glob("*.toml"))
    for path in jobs:
        if load_spec(path, TrainingJob).tracking.registered_model == name:
            return path
    known = ", ".join(path.stem for path in jobs)
    raise InputError(
        f"no training job registers {name!r}, whose [data] says where books lie; name one with "
        f"--job (in {workspace / 'training'}: {known})"
    )


def _books(job: TrainingJob, root: Path) -> BookTable:
    if not job.data.book:
        raise InputError(
            f"training job {job.name} names no data.book, and tiers follow order books; name a job "
            "with --job, or folders with --set data.book=FOLDER --set data.book_known_after=1s"
        )
    assert job.data.book_known_after is not None
    return read_books(root, job.data.book, job.data.symbols, job.data.book_known_after)


def _bars(job: TrainingJob, root: Path, workspace: Path, books: BookTable) -> BarTable:
    interval = load_spec(workspace / job.features.set, FeatureSet).grid.interval
    if job.data.bars:
        return read_bars(root, job.data.bars, job.data.symbols, interval)
    return mid_bars(books, interval)


def _newest(books: BookTable) -> datetime:
    last = [frame.select(pl.col("known_at").last()) for frame in books.frames.values()]
    known: list[datetime] = [frame.item() for frame in pl.collect_all(last)]
    return max(known)


def _long_run_rates(
    bars: BarTable, symbols: list[str], at: datetime, policy: MarginPolicy
) -> dict[str, BaseRates]:
    """Return every contract's rates from the bars known by a moment.

    Raises:
        InputError: there is too little history for any contract.
    """
    moments = np.array([at.astimezone(UTC).replace(tzinfo=None)], dtype="datetime64[us]")
    history = history_of(bars, policy.model.horizon)
    references = references_of(history, symbols, SIDES, moments, policy)
    assert references is not None
    shape = (len(SIDES), len(symbols))
    long_run = references.long_run[0].reshape(shape)
    stressed = references.stressed[0].reshape(shape)
    if np.isnan(long_run).any():
        raise InputError(
            f"bars before {at:%F %H:%M} UTC are too few for a long-run rate at level "
            f"{policy.model.level:g}; give a rate with --rate"
        )
    return {
        symbol: BaseRates(
            dict(zip(SIDES, long_run[:, column].tolist(), strict=True)),
            dict(zip(SIDES, stressed[:, column].tolist(), strict=True)),
        )
        for column, symbol in enumerate(symbols)
    }
