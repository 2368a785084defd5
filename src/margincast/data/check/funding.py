"""Funding: what a position pays while it is held; a wrong rate is a wrong cost of carrying it."""

import polars as pl

from margincast.data.check.contract import StoredTable
from margincast.data.check.coverage import NOT_READ
from margincast.data.check.finding import CheckFinding
from margincast.data.check.tally import Tally

FUNDING_CAP = 0.0075
"""Rate of one interval beyond which a funding is told; a fraction of notional.

Venues cap each contract at a share of its maintenance margin rate: Binance clamps it to a multiple
of that ratio ("Introduction to Binance Futures Funding Rates") and lists each contract's own cap
(``GET /fapi/v1/fundingInfo``); in stress it sets other ones, 3 % among them. Three quarters of a
maintenance margin rate of 1 %, usual for large contracts, is a bound that calls for a look.
"""

CLOCK_TOLERANCE_SECONDS = 60
"""Venues stamp a funding some milliseconds, some of them seconds, after the hour."""


class FundingRates:
    """Finds rates beyond the cap and times off the hour."""

    def __init__(self, table: StoredTable, cap: float = FUNDING_CAP) -> None:
        self.table = table
        self.beyond = Tally(f"funding rate beyond +-{cap:.2%} an interval", NOT_READ, "warning")
        self.off = Tally("funding off the full hour", NOT_READ, "warning")
        self._cap = cap

    def add(self, block: pl.DataFrame) -> None:
        """Take a block of fundings."""
        rates, times = block["funding_rate"].cast(pl.Float64), block["ts"]
        self.beyond.add(times, rates.abs() > self._cap, rates)
        self.off.add(times, seconds_off_hour(times) > CLOCK_TOLERANCE_SECONDS, rates)

    def findings(self) -> list[CheckFinding]:
        """Say what was found."""
        rows = self.table.rows
        return [self.beyond.finding(self.table, rows), self.off.finding(self.table, rows)]


def seconds_off_hour(times: pl.Series) -> pl.Series:
    """Distance of each time from the nearest full hour, seconds."""
    nearest = times.dt.round("1h")
    return (times - nearest).dt.total_microseconds().abs() / 1e6
