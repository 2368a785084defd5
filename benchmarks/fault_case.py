"""A running ``margincast live``, a market whose minutes are those of the clock, and who looks on.

Responsible for a fault being timed where a client of the service would notice it: in the margins
that another process reads, not in what the engine says of itself.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.serving.live.folder import SOCKET, LiveFolder
from margincast.serving.live.listener import send_rows
from margincast.serving.live.reader import LiveReader
from margincast.serving.snapshot import Snapshot

PROGRAM = (sys.executable, "-c", "from margincast.cli import main; main()")
CONTRACTS = ("SIM-BTC", "SIM-ETH")
MINUTE = timedelta(minutes=1)


@dataclass
class Engine:
    """A running ``margincast live`` and what it said, with times."""

    process: subprocess.Popen[str]
    out: Path
    said: list[tuple[float, str]] = field(default_factory=list)

    def listen(self) -> None:
        """Note every line, with its time."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append((time.monotonic(), line.strip()))

    def wait(self, text: str, since: float, longest: float) -> tuple[float, str] | None:
        """Return when a text was said after a time, and the line; None where it was not."""
        while time.monotonic() - since < longest:
            for at, line in tuple(self.said):
                if at >= since and text in line:
                    return at - since, line
            time.sleep(0.005)
        return None

    def send(self, *rows: dict[str, Any]) -> None:
        """Send rows over the socket."""
        send_rows(
            self.out / SOCKET, b"\n".join(json.dumps(row).encode() for row in rows) + b"\n", 60.0
        )


@dataclass
class Market:
    """A simulated market whose minutes are those of the clock."""

    folder: Path
    bars: dict[str, pl.DataFrame]

    @classmethod
    def until_now(cls, folder: Path) -> "Market":
        """Simulate from ten days ago to tomorrow."""
        start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        parameters = MarketParameters(contracts=select_contracts(list(CONTRACTS)))
        made = simulate_market(parameters, days=12, seed=1, start=start - timedelta(days=10))
        write_market(made, folder)
        bars = made.bars.partition_by("symbol", as_dict=True)
        return cls(folder, {str(key[0]): frame for key, frame in bars.items()})

    def cut(self, target: Path) -> datetime:
        """Write what is known by now into a folder; returns the close of the last bar."""
        now = datetime.now(UTC)
        for path in sorted(self.folder.rglob("*.parquet")):
            later = MINUTE if path.parent.name == "bars" else timedelta(0)
            to = target / path.relative_to(self.folder)
            to.parent.mkdir(parents=True, exist_ok=True)
            pl.read_parquet(path).filter(pl.col("ts") + later <= now).write_parquet(to)
        return now.replace(second=0, microsecond=0)

    def close(self, symbol: str, at: datetime) -> float:
        """Return the close of the last whole minute."""
        known = self.bars[symbol].filter(pl.col("ts") + MINUTE <= at)
        return float(known["close"][-1])

    def bar(self, symbol: str, opened: datetime) -> dict[str, Any]:
        """Return the bar that opens at a minute, as a row of the feed."""
        row = self.bars[symbol].row(by_predicate=pl.col("ts") == opened, named=True)
        return {"table": "bars", **row, "ts": opened.isoformat()}


@dataclass
class Feeder:
    """Sends what the market shows, twice a second, and each bar after its close."""

    engine: Engine
    market: Market
    done: datetime
    paused: set[str] = field(default_factory=set)
    frozen: bool = False
    last_book: float = 0.0
    last_bars: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send until the end."""
        while not self.ended.wait(0.4):
            now = datetime.now(UTC)
            rows = [row for symbol in CONTRACTS for row in self.sound(symbol, now)]
            minute = now.replace(second=0, microsecond=0)
            if self.done < minute:
                self.last_bars = time.monotonic()
            while self.done < minute:
                rows += [self.market.bar(symbol, self.done) for symbol in CONTRACTS]
                self.done += MINUTE
            try:
                self.engine.send(*(row for row in rows if row["table"] not in self.paused))
                if "book" not in self.paused:
                    self.last_book = time.monotonic()
            except OSError:
                continue  # the engine is stopped, which is one of the faults

    def sound(self, symbol: str, now: datetime) -> list[dict[str, Any]]:
        """Return a row of every table at a moment."""
        close, ts = self.market.close(symbol, now), now.isoformat()
        return [
            {"table": "mark", "symbol": symbol, "ts": ts, "mark_price": close},
            {"table": "trades", "symbol": symbol, "ts": ts, "price": close, "size": 1.0,
             "side": "buy"},
            self.book(symbol, now, close, close * 1.0001),
        ]  # fmt: skip

    def book(self, symbol: str, now: datetime, bid: float, ask: float) -> dict[str, Any]:
        """Return a book of one level; sizes change with every book of a feed that lives."""
        size = 5.0 if self.frozen else 5.0 + now.microsecond / 1e6
        sizes = {"bid_size_0": size, "ask_size_0": size}
        row = {"table": "book", "symbol": symbol, "ts": now.isoformat()}
        return row | {"bid_price_0": bid, "ask_price_0": ask} | sizes


Shown = dict[tuple[str, str, int], tuple[float, float, str, str]]
"""By contract, side and tier: rate, base rate, status and reason."""


@dataclass
class Onlooker:
    """Reads the live folder as a worker of the service does, and keeps what it saw.

    Attributes:
        reader: of the folder.
        seen: times and margins, oldest first.
    """

    reader: LiveReader
    seen: list[tuple[float, Shown]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, folder: Path, longest: timedelta) -> "Onlooker":
        """Look on from now on, in a thread."""
        one = cls(LiveReader(LiveFolder(folder), longest))
        threading.Thread(target=one.run, daemon=True).start()
        return one

    def run(self) -> None:
        """Look every five milliseconds."""
        while not self.ended.wait(0.005):
            try:
                found = self.reader.look(datetime.now(UTC), time.monotonic())
            except (OSError, ValueError):
                continue  # between two files; the next look tells
            if found is not None:
                self.seen.append((time.monotonic(), _shown(found)))

    @property
    def now(self) -> Shown:
        """What is shown now."""
        return self.seen[-1][1]

    def wait(
        self, told: Callable[[Shown], bool], since: float, longest: float
    ) -> tuple[float, Shown, Shown] | None:
        """Return when something was shown after a time, what it was, and what before it."""
        while time.monotonic() - since < longest:
            seen = tuple(self.seen)
            for number, (at, shown) in enumerate(seen):
                if at >= since and told(shown):
                    return at - since, shown, seen[max(0, number - 1)][1]
            time.sleep(0.005)
        return None


def _shown(snapshot: Snapshot) -> Shown:
    return {
        (symbol, str(side), row["tier"]): (
            row["mmr"], row["base_mmr"], row["status"], row["reason"],
        )
        for symbol, sides in snapshot.contracts.items()
        for side, levels in sides.items()
        for row in levels.rows
    }  # fmt: skip


def fell_back(word: str, symbol: str = "SIM-BTC") -> Callable[[Shown], bool]:
    """Tell whether a contract is in fallback for a reason."""
    return lambda shown: all(
        status == "fallback" and word in reason
        for (name, *_), (_, _, status, reason) in shown.items()
        if name == symbol
    )


def all_well(shown: Shown) -> bool:
    """Tell whether no contract that the feed tells of is in fallback."""
    return all(
        status == "ok" for (name, *_), (_, _, status, _) in shown.items() if name in CONTRACTS
    )


def is_safe(now: Shown, before: Shown) -> bool:
    """Say whether fallbacks lie at or above the base schedule and what was shown before."""
    return all(
        mmr >= max(base, before[key][0])
        for key, (mmr, base, status, _) in now.items()
        if status == "fallback"
    )
