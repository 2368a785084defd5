"""How often the monitor's alarm is false, and how long a true one takes.

    python -m benchmarks.alarms
    python -m benchmarks.alarms --forecasts FORECASTS --bars DIR --bars DIR --model margincast

Simulated: 20 contracts, 8 hour horizon, three years of bets (one every nine hours), exceedances
that fall together with a given correlation (Gaussian copula). The e-process of the monitor stands
beside the test everybody would write first: a one-sided binomial test of all exceedances so far at
the same 1 %, looked at after every bet. Its p-values take contracts for independent; both are asked
whether there are more than 1.2 times the promised exceedances. Shown: runs with an alarm within
three years, days until it (median), and alarms before anything changed.

With forecasts of a backtest: the same forecasts scaled down, from when the alarm would have been
raised.
"""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from scipy import stats

from margincast.backtest.submitted import join_outcomes, read_submitted
from margincast.core.types import FloatArray
from margincast.data.bars import interval_of, read_bars
from margincast.serving.monitoring.betting import Evidence
from margincast.serving.monitoring.record import Record, record_of_forecasts
from margincast.serving.monitoring.tally import Rates, Tally, settle

LIMIT = 0.01
MOST = 1.2
CONTRACTS = 20
BET_HOURS = 9
YEAR = 365 * 24 // BET_HOURS
BETS = 3 * YEAR


def shares(
    rate: FloatArray, correlation: float, runs: int, generator: np.random.Generator
) -> FloatArray:
    """Draw the share of contracts exceeded at every bet, shape (bets, runs).

    Args:
        rate: true rate at every bet, shape (bets,).
        correlation: between contracts of one moment.
        runs: simulations.
        generator: of randomness.
    """
    threshold = stats.norm.isf(rate)
    found = np.empty((len(rate), runs))
    for bet, edge in enumerate(threshold):
        together = generator.standard_normal(runs)
        # of given common news each contract exceeds alone
        with np.errstate(divide="ignore"):
            given = stats.norm.sf(
                (edge - np.sqrt(correlation) * together) / np.sqrt(1.0 - correlation)
            )
        found[bet] = generator.binomial(CONTRACTS, given) / CONTRACTS
    return found


def first_alarms(drawn: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """Return the bet of the first alarm of e-process and binomial test; infinity for none."""
    against = np.full(drawn.shape[1], MOST * (1.0 - level))
    evidence = Evidence.none("too many", drawn.shape[1])
    exceeded = np.zeros(drawn.shape[1])
    first = np.full((2, drawn.shape[1]), np.inf)
    for bet, share in enumerate(drawn):
        evidence = evidence.settle(share, against)
        exceeded += share * CONTRACTS
        p_value = stats.binom.sf(exceeded - 1, (bet + 1) * CONTRACTS, against[0])
        for row, alarm in enumerate((evidence.e_values >= 1.0 / LIMIT, p_value <= LIMIT)):
            first[row] = np.where(alarm, np.minimum(first[row], bet), first[row])
    return first[0], first[1]


def simulated(runs: int) -> None:
    """Print false alarms within three years, and delays after a change."""
    print(f"{runs} runs each, {CONTRACTS} contracts; false alarms promised: at most {LIMIT:.0%}")
    print(f"{'level':>6} {'together':>9} {'true rate':>22} {'e-process':>22} {'binomial test':>22}")
    for level in (0.99, 0.9):
        promise = 1.0 - level
        kept = np.full(BETS, MOST * promise)
        good = np.full(BETS, promise)
        later = np.concatenate([good[:YEAR], np.full(BETS - YEAR, 2.0 * promise)])
        at_once = np.full(BETS, 2.0 * promise)
        tripled = np.full(BETS, 3.0 * promise)
        cases = (
            ("1.2 times", kept, 0), ("1 times", good, 0), ("2 times", at_once, 0),
            ("2 times after a year", later, YEAR), ("3 times", tripled, 0),
        )  # fmt: skip
        for correlation in (0.0, 0.3, 0.8):
            for name, rate, change in cases:
                drawn = shares(rate, correlation, runs, np.random.default_rng(1))
                texts = [_told(first, change) for first in first_alarms(drawn, level)]
                print(f"{level:>6g} {correlation:>9g} {name:>22} {texts[0]:>22} {texts[1]:>22}")


def _told(first: FloatArray, change: int) -> str:
    false = np.mean(first < change) if change else np.nan
    days = (first[first >= change] - change + 1) * BET_HOURS / 24
    raised = np.mean(np.isfinite(first))
    middle = np.median(days) if len(days) else np.inf
    delay = f"{middle:.0f} d" if np.isfinite(middle) else "-"
    return f"{raised:.1%}, {delay}" + (f", false {false:.1%}" if change else "")


def recorded(forecasts: Path, bars: list[str], model: str) -> None:
    """Print when the alarm is raised on forecasts of a backtest that are scaled down."""
    table = read_submitted(forecasts, [model])
    read = read_bars(Path(), bars, (), interval_of(Path(), bars))
    for minutes, replay in join_outcomes(table, read).replays.items():
        horizon = timedelta(minutes=minutes)
        at = datetime(9000, 1, 1, tzinfo=UTC)
        for factor in (1.0, 0.9, 0.85, 0.8, 0.7):
            record = record_of_forecasts(model, replay.panel, replay.forecasts[model], horizon)
            record.promised[:] *= factor
            tally = settle(Tally.begin(record), record, at, Rates(MOST, 0.5), timedelta(0))
            known = record.exceeded
            ratios = np.nanmean(known, axis=(0, 1)) / (1.0 - np.array(record.levels))
            first = _first_day(record, tally)
            print(
                f"{model}, {minutes} min, forecasts x {factor:g}: exceeded "
                f"{', '.join(f'{ratio:.2f}x' for ratio in ratios)} at "
                f"{', '.join(f'{level:g}' for level in record.levels)}; largest e-value "
                f"{tally.reached['too many']:.3g}, alarm {first}"
            )


def _first_day(record: Record, tally: Tally) -> str:
    """Say on which day the mean of the pooled e-values reached its limit."""
    streams = tally.shares.shape[1]
    rates = np.tile(MOST * (1.0 - np.array(record.levels)), len(record.sides))
    evidence = Evidence.none("too many", streams)
    for number, share in enumerate(tally.shares):
        evidence = evidence.settle(share, rates)
        if evidence.e_values.mean() >= 1.0 / LIMIT:
            return f"after {(number + 1) * BET_HOURS / 24:.0f} days"
    return f"never in {len(tally.shares) * BET_HOURS / 24:.0f} days"


def main() -> None:
    """Run the simulations, or the recorded forecasts where they are given."""
    parser = argparse.ArgumentParser(description="alarms")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--forecasts", type=Path)
    parser.add_argument("--bars", action="append", default=[])
    parser.add_argument("--model", default="margincast")
    chosen = parser.parse_args()
    if chosen.forecasts is None:
        simulated(chosen.runs)
    else:
        recorded(chosen.forecasts, chosen.bars, chosen.model)


if __name__ == "__main__":
    main()
