"""Delisting: which contracts have no margins any more.

Responsible for a contract going off only once nothing comes of it. A name that stands in the base
schedule's ``delisted`` while its data is fresh is a contradiction: what still trades must not be
left without a margin, so it keeps its own and that is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from margincast.core.time import format_duration
from margincast.specs.schedule import BaseSchedule


@dataclass(frozen=True)
class Delisting:
    """What ``delisted`` means at a moment.

    Attributes:
        gone: contracts without margins.
        trading: time of the newest data of those that still have some, and so keep their margins.
        max_age: age up to which data is fresh.
    """

    gone: tuple[str, ...]
    trading: Mapping[str, datetime]
    max_age: timedelta

    def describe(self) -> tuple[str, ...]:
        """Say who is gone and who is not yet, a line each; none where nobody is delisted."""
        lines = []
        if self.gone:
            what = "contract" if len(self.gone) == 1 else "contracts"
            lines.append(f"{len(self.gone)} {what} delisted: {', '.join(self.gone)}")
        lines += [
            f"{symbol} is delisted by the base schedule but has data of {newest:%F %H:%M} UTC: it "
            "keeps its margins; take it off the list, or stop its data: it goes once that lies "
            f"more than {format_duration(self.max_age)} behind the other contracts'"
            for symbol, newest in self.trading.items()
        ]
        return tuple(lines)


def delisting_at(
    schedule: BaseSchedule, newest: Mapping[str, datetime], latest: datetime, max_age: timedelta
) -> Delisting:
    """Return who is delisted at a moment.

    Args:
        schedule: the base schedule.
        newest: time of the newest data by contract, as far as there is any.
        latest: the newest of all; an outage of the whole feed takes nobody off.
        max_age: data that lies further behind is stale, by the policy.
    """
    named = sorted(schedule.delisted)
    trading = {
        name: newest[name] for name in named if name in newest and latest - newest[name] <= max_age
    }
    return Delisting(tuple(name for name in named if name not in trading), trading, max_age)
