"""What the book of a liquidation's moment costs, forecast by rules that know today's book.

Recorded books, and simulated ones: at decision times a rule says what closing a notional will cost,
and is judged by the cost at every moment of the following horizon: pinball loss relative to the
quantile of the longest window, and share of moments that cost more. The first half of every feed is
where windows and rules are chosen, the second half is the test. Rules:

    today        the book of the decision
    quantile W   quantile of the books of the last W
    in force W   the larger of both: what margincast charges
    ratio W      today's cost times the quantile of (cost within a horizon / cost before it) in W
    smooth W     the same with the mean cost of the last horizon in place of today's

Run: ``python -m benchmarks.horizon_cost --data DIR``; ``--half first`` shows where it was chosen.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from margincast.core.types import FloatArray
from margincast.core.units import BPS
from margincast.data.book import mended_book
from margincast.data.simulated.market import simulate_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.jobs.books import snapshots_of
from margincast.margin.snapshots import walk_books
from margincast.scoring.pinball import pinball_loss

LEAST_RATE = 1.0 * BPS
UNSHOWN_RATE = 200.0 * BPS
LEVELS = (0.95, 0.99)
RULES = ("today", "quantile", "in force", "ratio", "smooth")
SIMULATED, SIMULATED_DAYS = "simulated", 12
STANDX = "book/standx_BTC-USD_book20_1s.parquet"


@dataclass(frozen=True)
class Feed:
    """A recorded feed, and the horizon its length allows to be judged."""

    name: str
    path: str
    """Below the data folder; of the simulated market, the contract."""
    every_seconds: int
    horizon_seconds: int
    windows_seconds: tuple[int, ...]
    notional_usd: tuple[float, ...]


def feeds(data: Path) -> Iterator[Feed]:
    """List the books of a data folder: a day or more in full, minutes with shorter horizons."""
    day = (3_600, 10_800, 43_200)
    yield Feed("StandX BTC-USD", STANDX, 10, 600, day, (1e3, 1e4, 3e4, 1e5, 3e5, 1e6))
    for folder, horizon, windows in (
        ("hyperliquid_as_calibration_2025-09", 60, (300, 600, 900)),
        ("gateio_2025-09", 20, (40, 60)),
    ):
        for path in sorted((data / "book" / folder).glob("orderbooks_*.csv.gz")):
            name = f"{folder.partition('_')[0]} {path.name.split('_')[1].partition('.')[0]}"
            relative = str(path.relative_to(data))
            yield Feed(name, relative, 1, horizon, windows, (1e4, 1e5, 1e6))
    for contract, notional_usd in (("SIM-BTC", (1e5, 1e6, 1e7)), ("SIM-ALT", (1e3, 1e4, 1e5))):
        windows = (10_800, 43_200, 86_400)
        yield Feed(f"{SIMULATED} {contract}", contract, 60, 1_800, windows, notional_usd)


def cost_rates(feed: Feed, data: Path, side: str) -> FloatArray:
    """Return the cost of closing at every moment, a fraction, shape (moments, notionals).

    A moment without a book is NaN.
    """
    path = data / feed.path
    if feed.name.startswith(SIMULATED):
        scanned = simulated_books(feed.path)
    elif path.suffix == ".parquet":
        scanned = pl.scan_parquet(path)
    else:
        moment = (pl.col("timestamp") * 1e6).cast(pl.Int64).cast(pl.Datetime("us", "UTC"))
        scanned = pl.read_csv(path).with_columns(ts=moment).sort("ts").lazy()
    frame, levels, _ = mended_book(scanned, feed.name, str(path), timedelta(0))
    every = timedelta(seconds=feed.every_seconds)
    period = pl.col("known_at").dt.truncate(every).alias("period")
    last = frame.group_by(period, maintain_order=True).last().collect()
    books = snapshots_of(last, levels)
    notional_usd = np.array(feed.notional_usd)
    cost_usd = walk_books(
        books,
        "long" if side == "long" else "short",
        notional_usd,
        least_rate=LEAST_RATE,
        unshown_rate=UNSHOWN_RATE,
    )
    number = (last["period"] - last["period"][0]).dt.total_seconds().to_numpy()
    place = number // feed.every_seconds
    rates = np.full((place[-1] + 1, len(notional_usd)), np.nan)
    rates[place] = cost_usd / notional_usd
    return rates


@cache
def simulated_books(contract: str) -> pl.LazyFrame:
    """Return the books of a contract of the simulated market, in which depth follows volatility."""
    parameters = MarketParameters(contracts=select_contracts([contract]))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    market = simulate_market(parameters, days=SIMULATED_DAYS, seed=1, start=start)
    return market.book.lazy()


def quantile(values: FloatArray, level: float) -> float:
    """Return the smallest value that so large a share of the known ones does not exceed."""
    return float(np.nanquantile(values, level, method="higher"))


def forecasts(
    known: FloatArray, horizon: int, window: int, level: float, stride: int
) -> dict[str, float]:
    """Return what every rule says of one notional, from the costs known at the decision."""
    now = float(known[np.isfinite(known)][-1])
    past = known[-window:]
    starts = np.arange(0, len(past) - horizon, stride)
    following = past[starts[:, None] + np.arange(1, horizon + 1)]
    smooth = np.array([np.nanmean(past[max(0, at + 1 - horizon) : at + 1]) for at in starts])
    own = float(np.nanmean(known[-horizon:]))
    trailing = quantile(past, level)
    most = UNSHOWN_RATE
    return {
        "today": now,
        "quantile": trailing,
        "in force": max(now, trailing),
        "ratio": min(most, now * quantile(following / past[starts][:, None], level)),
        "smooth": min(most, own * quantile(following / smooth[:, None], level)),
    }


def judged(feed: Feed, rates: FloatArray, half: str) -> Iterator[tuple[float, float, int, str]]:
    """Yield level, notional, window in seconds and a line of results."""
    horizon = feed.horizon_seconds // feed.every_seconds
    middle = len(rates) // 2
    longest = max(feed.windows_seconds) // feed.every_seconds
    step = horizon
    if half == "first":
        decisions = range(min(longest, middle // 2), middle - horizon, step)
    else:
        decisions = range(middle, len(rates) - horizon, step)
    for level in LEVELS:
        for column, notional in enumerate(feed.notional_usd):
            found = {}
            for seconds in feed.windows_seconds:
                window = seconds // feed.every_seconds
                stride = max(1, horizon // 6)
                losses, over = np.zeros(len(RULES)), np.zeros(len(RULES))
                count = 0
                for at in decisions:
                    outcome = rates[at + 1 : at + 1 + horizon, column]
                    outcome = outcome[np.isfinite(outcome)]
                    count += len(outcome)
                    said = forecasts(rates[: at + 1, column], horizon, window, level, stride)
                    for number, rule in enumerate(RULES):
                        same = np.full(outcome.shape, said[rule])
                        losses[number] += pinball_loss(outcome, same, level).sum()
                        over[number] += (outcome > said[rule]).sum()
                found[seconds] = losses, over / count
            base = found[max(found)][0][RULES.index("quantile")]
            for seconds, (losses, over) in found.items():
                cells = zip(losses / base, over, strict=True)
                text = "".join(f"{loss:9.2f} {share:6.2%}" for loss, share in cells)
                yield level, notional, seconds, text


def main(report: Callable[[str], None] = print) -> None:
    """Print a line a feed, side, level, notional and window."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--half", choices=("first", "second"), default="second")
    chosen = parser.parse_args()
    report(
        f"{chosen.half} half; each rule: pinball loss over that of the quantile of the longest "
        "window, and moments that cost more"
    )
    for feed in feeds(chosen.data):
        for side in ("long", "short"):
            rates = cost_rates(feed, chosen.data, side)
            days = len(rates) * feed.every_seconds / 86_400
            report(
                f"\n{feed.name}, {side}: {days:.3f} days, {np.isnan(rates[:, 0]).mean():.1%} of "
                f"moments without a book, horizon {feed.horizon_seconds} s"
            )
            report(f"{'level':>5}{'USD':>10}{'window':>8}" + "".join(f"{r:>16}" for r in RULES))
            for level, notional, seconds, text in judged(feed, rates, chosen.half):
                report(f"{level:5.2f}{notional:10,.0f}{seconds:7d}s{text}")


if __name__ == "__main__":
    main()
