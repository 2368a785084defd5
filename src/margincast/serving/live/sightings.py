"""What the feed shows of each contract, and which faults that is.

Responsible for every fault that rows show, or that their absence does: silence, a crossed book, a
price far from the mark, times that do not fit the clock. The next sound row of a table takes its
fault away. The features get every row that a file could hold, and judge it by the rules that files
are judged by; kept from them, and counted, is only what has no place in a file.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from margincast.core.time import format_duration
from margincast.serving.live.events import TIMES, Event, Refusal
from margincast.serving.live.faults import Fault
from margincast.serving.live.row_faults import row_fault
from margincast.specs.live import Longest, Watch

_MICROSECOND = timedelta(microseconds=1)
WATCHED = tuple(Longest.model_fields)


@dataclass
class _Contract:
    last_us: dict[str, int] = field(default_factory=dict)
    changed_us: dict[str, int] = field(default_factory=dict)
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    mark: float | None = None
    mid: float | None = None
    shown: dict[tuple[str, Fault], str] = field(default_factory=dict)


@dataclass
class Sightings:
    """The last rows of every contract.

    Attributes:
        watch: what is a fault.
        interval: of a bar, which comes after its close.
        contracts: that are expected to be heard of.
        since_us: when watching began; silence counts from here.
        withheld: rows kept from the features, by contract and fault.
    """

    watch: Watch
    interval: timedelta
    contracts: Collection[str]
    since_us: int
    withheld: Counter[tuple[str, Fault]] = field(default_factory=Counter)
    _seen: dict[str, _Contract] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seen = {symbol: _Contract() for symbol in self.contracts}

    def see(self, event: Event, now: datetime, now_us: int) -> bool:
        """Look at a row; returns whether it may be given to the features.

        Args:
            event: the row.
            now: the clock's time.
            now_us: time of a clock that only goes forward.
        """
        one = self._seen.setdefault(event.symbol, _Contract())
        one.last_us[event.table] = now_us
        self._compare(one, event, now_us)
        fault = self._ahead(event, now) or row_fault(
            event, one.mark, one.mid, self.watch, now - self._due(event)
        )
        for key in [key for key in one.shown if key[0] == event.table]:
            del one.shown[key]
        if fault is None:
            # only what is sound is a measure for what comes next
            if event.table == "mark":
                one.mark = event.row["mark_price"]
            if event.table == "book":
                one.mid = (event.row["bid_price_0"] + event.row["ask_price_0"]) / 2.0
            return True
        kind, text = fault
        one.shown[event.table, kind] = text
        of_no_file = kind in {Fault.CLOCK_SKEW, Fault.NOT_A_NUMBER}
        if of_no_file or (kind is Fault.BROKEN_ROW and event.table == "bars"):
            self.withheld[event.symbol, kind] += 1
            return False
        return True

    def refuse(self, refusal: Refusal) -> None:
        """Look at a line that was refused; a contract it names has that fault until a sound row."""
        one = self._seen.get(refusal.symbol)
        if one is not None:
            one.shown[refusal.table, refusal.fault] = f"{refusal.table}: {refusal.reason}"

    def faults(self, now_us: int) -> dict[str, dict[Fault, str]]:
        """Return what is wrong now, by contract."""
        found = {
            symbol: self._of_contract(symbol, one, now_us) for symbol, one in self._seen.items()
        }
        return {symbol: faults for symbol, faults in found.items() if faults}

    def _of_contract(self, symbol: str, one: _Contract, now_us: int) -> dict[Fault, str]:
        faults = {fault: text for (_, fault), text in one.shown.items()}
        if symbol not in self.contracts:
            return faults
        frozen = self._longer(self.watch.unchanged, one.changed_us, now_us)
        if frozen is not None:
            faults[Fault.STALE_FEED] = f"the rows of {frozen[0]} say the same for {frozen[1]}"
        silent = self._longer(self.watch.silence, one.last_us, now_us)
        if silent is not None:
            faults[Fault.STALE_FEED] = f"no row of {silent[0]} for {silent[1]}"
        return faults

    def _longer(
        self, longest: Longest | None, since_us: Mapping[str, int], now_us: int
    ) -> tuple[str, str] | None:
        """Return a table whose time is longer than allowed, and the time in words."""
        for table in WATCHED:
            limit: timedelta | None = getattr(longest, table, None)
            if limit is None:
                continue
            if now_us - since_us.get(table, self.since_us) > limit // _MICROSECOND:
                return table, f"more than {format_duration(limit)}"
        return None

    def _compare(self, one: _Contract, event: Event, now_us: int) -> None:
        """Note when a row says something else than the one before it, its times left out."""
        if self.watch.unchanged is None or event.table not in WATCHED:
            return
        says = {name: value for name, value in event.row.items() if name not in TIMES}
        if says != one.said.get(event.table):
            one.said[event.table] = says
            one.changed_us[event.table] = now_us

    def _due(self, event: Event) -> datetime:
        """Return from when on a row can have come."""
        return event.ts + (self.interval if event.table == "bars" else timedelta(0))

    def _ahead(self, event: Event, now: datetime) -> tuple[Fault, str] | None:
        ahead = max(event.row.get("received_at", event.ts), event.ts) - now
        if ahead <= self.watch.clock_skew:
            return None
        return Fault.CLOCK_SKEW, (
            f"a row of {event.table} is {ahead.total_seconds():.1f} s ahead of the clock; at most "
            f"{format_duration(self.watch.clock_skew)} is allowed"
        )
