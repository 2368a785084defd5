"""Forecasts of a thousand contracts turned into margin levels, all rows at once.

Budget: 1,000 contracts x 20 tiers x 2 sides, from forecasts to the table, in 1 s on one thread;
with everything a policy remembers, and with order books walked. Beside it stands the arithmetic of
one row at a time, for a share of the contracts: the ratio hangs less on the machine than seconds.

Run: ``OMP_NUM_THREADS=1 python -m benchmarks.margin_levels``
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from margincast.margin.background import Background
from margincast.margin.chain import Inputs, Memory, advance
from margincast.margin.levels import costs_of, margin_levels
from margincast.margin.liquidation_cost import Book
from margincast.margin.notice import InForce
from margincast.margin.parameters import Parameters
from margincast.margin.rounding import exact, round_up
from margincast.margin.tier_rows import TierRows, tier_rows
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule, Brackets, ContractBrackets, Tier
from margincast.specs.serving import MarginPolicy

BUDGET_SECONDS = 1.0
ALONE = 50
"""Contracts whose rows are made one at a time."""
SERVING = Path(__file__).resolve().parents[1] / "serving"
SIDES = ("long", "short")


def main() -> None:
    """Time the tables of a policy with memory and of one that walks books."""
    parser = argparse.ArgumentParser(description="forecasts to margin levels")
    parser.add_argument("--contracts", type=int, default=1000)
    parser.add_argument("--tiers", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(8)
    symbols = [f"C{number:04}USDT" for number in range(arguments.contracts)]
    schedule = schedule_of(symbols, arguments.tiers, rng)
    forecasts = {side: rng.lognormal(-3.0, 0.6, len(symbols)) for side in SIDES}
    age = np.zeros(len(symbols), dtype="timedelta64[us]")
    books = {symbol: book_of(rng) for symbol in symbols}
    for name in ("perp-8h", "demo"):
        policy = load_spec(SERVING / f"{name}.toml", MarginPolicy, ["limits.multiplier_cap=1000"])
        rows = tier_rows(symbols, schedule, policy)
        background = background_of(rows, rng)

        def made(policy: MarginPolicy = policy, background: Background = background) -> None:
            own = tier_rows(symbols, schedule, policy)
            margin_levels(own, forecasts, policy, data_age=age, books=books, background=background)

        def alone(policy: MarginPolicy = policy) -> None:
            few = {symbol: books[symbol] for symbol in symbols[:ALONE]}
            one_at_a_time(tier_rows(symbols[:ALONE], schedule, policy), forecasts, policy, few)

        together = seconds(made, arguments.repeats)
        slow = seconds(alone, 1) * len(symbols) / ALONE
        verdict = "kept" if together <= BUDGET_SECONDS else "NOT kept"
        print(
            f"{name}: {len(rows):,} levels in {together:.2f} s, budget {BUDGET_SECONDS:g} s: "
            f"{verdict}; one row at a time, without words and table, {slow / together:.0f} times "
            "as long"
        )


def schedule_of(symbols: list[str], tiers: int, rng: np.random.Generator) -> BaseSchedule:
    """Return brackets of which a fifth of the contracts have some of their own."""
    tables = []
    for _ in range(max(1, len(symbols) // 5)):
        caps = np.cumsum(rng.integers(1, 1_000, tiers)) * 5_000
        rates = np.sort(rng.choice(np.arange(8, 900), tiers, replace=False)) / 2_000
        floors = [0, *caps[:-1].tolist()]
        tables.append(
            tuple(
                Tier(floor_usd=low, cap_usd=high, mmr=rate, imr=2 * rate)
                for low, high, rate in zip(floors, caps.tolist(), rates.tolist(), strict=True)
            )
        )
    named = [
        ContractBrackets(tiers=table, symbols=tuple(symbols[number :: len(tables)]))
        for number, table in enumerate(tables)
    ]
    return BaseSchedule(
        name="benchmark",
        description="drawn at random",
        brackets=tuple(named),
        default=Brackets(tiers=tables[0]),
    )


def book_of(rng: np.random.Generator) -> Book:
    """Return twenty levels around 100."""
    gaps, sizes = rng.exponential(0.01, (2, 20)), rng.exponential(1e3, (2, 20))
    away = np.cumsum(gaps, axis=1)
    return Book(100.0 - away[0], sizes[0], 100.0 + away[1], sizes[1])


def background_of(rows: TierRows, rng: np.random.Generator) -> Background:
    """Return an hour's memory and history of every row."""
    at = np.datetime64("2024-05-01T12:00", "us")
    before = at - np.timedelta64(1, "h")
    rates = np.maximum(rows.base_mmr, 0.05 * rng.lognormal(0.0, 0.3, len(rows)))
    memory = Memory(
        before,
        np.ones(len(rows)),
        rates,
        np.full(len(rows), before),
        rates,
        tuple((before - hour * np.timedelta64(1, "h"), rates) for hour in range(24, -1, -1)),
    )
    in_force = InForce(rates, ())
    long_run, stressed = np.full(len(rows), 0.05), np.full(len(rows), 0.2)
    unknown = np.full(len(rows), np.nan)
    return Background(at, memory, in_force, long_run, stressed, unknown)


def one_at_a_time(
    rows: TierRows,
    forecasts: dict[str, np.ndarray],
    policy: MarginPolicy,
    books: dict[str, Book],
) -> None:
    """Make the MMR, IMR and maintenance amount of one row after another."""
    numbers = Parameters.of(policy)
    costs, _ = costs_of(rows, policy, books)
    unknown = np.array([np.nan])
    amount, before = exact(0.0), exact(0.0)
    for row in range(len(rows)):
        forecast = forecasts[SIDES[rows.side[row]]][rows.contract[row] : rows.contract[row] + 1]
        inputs = Inputs(
            forecast, costs[row : row + 1], rows.base_mmr[row : row + 1], unknown, unknown
        )
        _, chain = advance(Memory.blank(1), inputs, np.datetime64(0, "us"), numbers)
        rate = exact(chain.mmr[0])
        wanted = max(exact(policy.initial.imr_over_mmr) * rate, exact(rows.base_imr[row]))
        round_up(min(wanted, exact(1.0)), policy.rounding.imr_step)
        amount = exact(0.0) if rows.first[row] else amount
        amount += exact(rows.floor_usd[row]) * (rate - before)
        before = rate


def seconds(work: Callable[[], None], repeats: int) -> float:
    """Return the smallest CPU time of some runs."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


if __name__ == "__main__":
    main()
