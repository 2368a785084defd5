"""Faults injected into a running ``margincast live``: time to the fallback, and back.

A workspace is made, a model trained on ten simulated days that end now, and the engine started as
an operator would: a process of its own, the machine's clock, rows over its socket. A second
version, promoted in spite of its gate for a time, takes over in between: a champion change under
feed, and a failed gate once its time is over. Each fault is then injected from outside and mended
again; times are those at which the process says it. A fallback within one second is the promise; a
return waits for ``recovery.quiet`` (three seconds here) after the last sign of the fault, on
purpose.

Run: ``POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 python -m benchmarks.fault_injection``
(some five minutes, most of it training)
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.serving.live.folder import SOCKET, STATUS, LiveFolder
from margincast.serving.live.listener import send_rows

PROGRAM = (sys.executable, "-c", "from margincast.cli import main; main()")
CONTRACTS = ("SIM-BTC", "SIM-ETH")
MINUTE = timedelta(minutes=1)
BUDGET_SECONDS = 1.0
SILENCE_SECONDS = 2.0
QUIET_SECONDS = 3.0
LIVE = (
    f'watch.silence={{book="{SILENCE_SECONDS:.0f}s"}}',
    f'recovery={{quiet="{QUIET_SECONDS:.0f}s", good_decisions=0}}',
    "feed.queue_rows=2000",
)


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
    last_book: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send until the end."""
        while not self.ended.wait(0.4):
            now = datetime.now(UTC)
            rows = [row for symbol in CONTRACTS for row in self.sound(symbol, now)]
            minute = now.replace(second=0, microsecond=0)
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
        """Return a book of one level."""
        sizes = {"bid_size_0": 5.0, "ask_size_0": 5.0}
        row = {"table": "book", "symbol": symbol, "ts": now.isoformat()}
        return row | {"bid_price_0": bid, "ask_price_0": ask} | sizes


@dataclass(frozen=True)
class Case:
    """A fault: what is said, how it is injected and mended.

    ``counts_after`` seconds after the injection it is one; one that is not ``budgeted`` comes about
    by and by, and the time until it does is not told apart.
    """

    name: str
    said: str
    inject: Callable[[], object]
    mend: Callable[[], object]
    counts_after: float = 0.0
    budgeted: bool = True


def main() -> None:
    """Train, start, inject, and print the table."""
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        root = Path(folder)
        workspace, data = root / "workspace", root / "data"
        market = Market.until_now(root / "market")
        market.cut(data)
        _command("init", workspace)
        _train(workspace, data, root / "first", 10.0)
        _train(workspace, data, root / "second", 1e-9)
        known = market.cut(data)
        engine = _start(workspace, data, root / "live")
        feeder = Feeder(engine, market, known)
        feeding = threading.Thread(target=feeder.run, daemon=True)
        feeding.start()
        time.sleep(2 * QUIET_SECONDS)
        try:
            _swap(engine, workspace)
            rows = [
                _measured(engine, case)
                for case in _cases(Faults(engine, feeder, workspace / "mlruns"))
            ]
            rows.append(_stopped(engine))
            state = json.loads((engine.out / STATUS).read_text())
        finally:
            feeder.ended.set()
            feeding.join()
            engine.process.send_signal(signal.SIGTERM)
            engine.process.wait(20)
        _print(rows, state)


def _command(*arguments: object, code: int = 0) -> None:
    ended = subprocess.run(  # noqa: S603  # our own program
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if ended.returncode != code:
        raise SystemExit(f"margincast {arguments[0]} ended with {ended.returncode}: {ended.stderr}")


def _train(workspace: Path, data: Path, out: Path, pinball_ratio: float) -> None:
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    options = (
        "target.stride=1", "target.levels=[0.9, 0.95, 0.99]", "model.window=30d",
        "model.head.rounds=8", "model.head.min_data_factor=10.0",
        "model.tail.threshold_level=0.95", "model.calibration.folds=3", "tuning.trials=1",
        "tracking.explained_decisions=60", f"backtest.start={day - timedelta(days=4):%Y-%m-%d}",
        f"backtest.end={day - timedelta(days=3):%Y-%m-%d}", "backtest.refit_every=2d",
        'backtest.peers=["static", "ewma_fhs"]', f"gate.pinball_ratio_max={pinball_ratio}",
        ("gate.coverage=[{level=0.9, exceedance_ratio_min=0.0, exceedance_ratio_max=100.0, "
         "expected_exceedances_min=0.0}]"),
        "gate.battery.levels=[0.9]", "gate.battery.not_failed_min=0.0",
        "gate.procyclicality.largest_one_day_rise_max=1e6",
        "gate.procyclicality.peak_to_trough_max=1e6",
    )  # fmt: skip
    job = workspace / "training" / "demo.toml"
    sets = [part for text in options for part in ("--set", text)]
    passed = 0 if pinball_ratio > 1.0 else 1
    _command("train", job, "--data", data, "--out", out, *sets, code=passed)


def _start(workspace: Path, data: Path, out: Path) -> Engine:
    sets = [part for text in LIVE for part in ("--set", text)]
    arguments = ["live", str(workspace / "serving" / "live.toml"), "--data", str(data), "--out",
                 str(out), "--listen", *sets]  # fmt: skip
    process = subprocess.Popen(  # noqa: S603  # our own program
        [*PROGRAM, *arguments], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "COLUMNS": "400"},
    )  # fmt: skip
    engine = Engine(process, out)
    threading.Thread(target=engine.listen, daemon=True).start()
    if engine.wait("next decision", time.monotonic(), 120.0) is None:
        raise SystemExit(f"the engine did not start: {engine.said}")
    while not (out / SOCKET).exists():
        time.sleep(0.05)
    return engine


def _swap(engine: Engine, workspace: Path) -> None:
    """Promote the second version, in spite of its gate, for a time."""
    began = time.monotonic()
    _command(
        "promote", "demo/2", "--reason", "a change under feed", "--override", "--approver",
        "the benchmark", "--expires", _soon(120), "--workspace", workspace,
    )  # fmt: skip
    found = engine.wait("demo/2 makes the forecasts", began, 100.0)
    if found is None:
        raise SystemExit(f"the champion did not change: {engine.said}")
    state = json.loads((engine.out / STATUS).read_text())
    print(
        f"champion changed after {found[0]:.1f} s (loaded beside, taken at the next decision); "
        f"{state['dropped']} rows dropped, {sum(one['lines'] for one in state['refused'])} refused"
    )


def _soon(seconds: float) -> str:
    now = datetime.now(UTC)
    then = (now + timedelta(seconds=seconds)).replace(microsecond=0)
    over[0] = time.monotonic() + (then - now).total_seconds()
    return then.isoformat()


@dataclass(frozen=True)
class Faults:
    """What can be done to a running engine from outside.

    Attributes:
        engine: the engine.
        feeder: what it is fed by.
        runs: the workspace's ``mlruns``.
        senders: who send too much.
    """

    engine: Engine
    feeder: Feeder
    runs: Path
    senders: list[threading.Thread] = field(default_factory=list)

    def close(self) -> float:
        """Return the last price."""
        return self.feeder.market.close("SIM-BTC", datetime.now(UTC))

    def row(self, table: str, **changes: Callable[[], object]) -> Callable[[], None]:
        """Send a row that is sound but for some columns, and nothing after it."""

        def inject() -> None:
            self.feeder.paused = {"book", "trades", "mark"}
            time.sleep(0.5)  # what is under way would take the fault away at once
            sound = {one["table"]: one for one in self.feeder.sound("SIM-BTC", datetime.now(UTC))}
            made = {key: value() for key, value in changes.items()}
            injected[0] = time.monotonic()
            self.engine.send({**sound[table], **made})

        return inject

    def stall(self) -> None:
        """Send no more books; the silence begins with the last one."""
        self.feeder.paused.add("book")
        time.sleep(0.5)
        injected[0] = self.feeder.last_book

    def resume(self) -> None:
        """Send everything again."""
        self.feeder.paused = set()

    def flood(self) -> None:
        """Send more than can be taken in, over eight connections at a time."""
        close = self.close()
        book = self.feeder.book("SIM-BTC", datetime.now(UTC), close, 1.0001 * close)
        levels = {
            f"{side}_{what}_{level}": (close if what == "price" else 1.0)
            for side in ("bid", "ask")
            for what in ("price", "size")
            for level in range(1, 20)
        }
        rows = [book | levels] * 1_500
        senders = [threading.Thread(target=self.engine.send, args=rows) for _ in range(8)]
        self.senders.extend(senders)
        injected[0] = time.monotonic()
        for sender in senders:
            sender.start()

    def wait_for_senders(self) -> None:
        """Let them come to their end."""
        for sender in self.senders:
            sender.join()

    def fill(self) -> None:
        """Put a device that is full in the place where the next heartbeat is written."""
        full = self.engine.out / f".{STATUS}.new"
        while not full.is_symlink():
            full.unlink(missing_ok=True)
            with suppress(FileExistsError):
                full.symlink_to("/dev/full")
            time.sleep(0.01)

    def empty(self) -> None:
        """Make room."""
        (self.engine.out / f".{STATUS}.new").unlink()

    def tamper(self) -> None:
        """Change a byte of the champion's bundle on the disk."""
        for model in (self.runs / "last_good" / "demo").glob("*/model/*/model.json"):
            model.write_bytes(model.read_bytes() + b" ")

    def swap_words(self, one: bytes, other: bytes) -> None:
        """Change the ledger."""
        ledger = self.runs / "ledger.jsonl"
        ledger.write_bytes(ledger.read_bytes().replace(one, other))

    def wait_for_the_end(self) -> None:
        """Wait until the second version's time is over."""
        time.sleep(max(0.0, over[0] - time.monotonic()))
        injected[0] = over[0]

    def roll_back(self) -> None:
        """Give the champion before back his place."""
        _command("rollback", "demo", "--reason", "over", "--workspace", self.runs.parent)


def _cases(do: Faults) -> list[Case]:
    store, away = do.runs / "mlflow.db", do.runs / "away.db"

    def in_a_minute() -> str:
        return (datetime.now(UTC) + MINUTE).isoformat()

    def in_a_row(name: str, said: str, table: str, **changes: Callable[[], object]) -> Case:
        return Case(name, said, do.row(table, **changes), do.resume)

    return [
        in_a_row("crossed book", "crossed book", "book", bid_price_0=lambda: 2 * do.close()),
        in_a_row("NaN price", "not a number", "trades", price=lambda: "NaN"),
        in_a_row("spike against mark", "spike", "trades", price=lambda: 1.2 * do.close()),
        in_a_row("row from the future", "clock skew", "mark", ts=in_a_minute),
        Case("stale feed", "stale feed", do.stall, do.resume,
             SILENCE_SECONDS),
        Case("overload", "overload", do.flood, do.wait_for_senders, budgeted=False),
        Case("disk full", "disk full", do.fill, do.empty),
        Case("tampered bundle", "tampered bundle", do.tamper, lambda: None),
        Case("MLflow down", "MLflow down", lambda: store.rename(away), lambda: away.rename(store)),
        Case("ledger changed", "no champion", lambda: do.swap_words(b"under feed", b"under FEED"),
             lambda: do.swap_words(b"under FEED", b"under feed")),
        Case("failed gate (override over)", "failed gate", do.wait_for_the_end, do.roll_back),
    ]  # fmt: skip


over = [0.0]
"""When the time of the version that was promoted in spite of its gate is over."""
injected = [0.0]
"""When the row of the last case was sent, where it was not at once."""


@dataclass(frozen=True)
class Timed:
    """A line of the table."""

    name: str
    fell: float
    back: float
    reason: str
    budgeted: bool = True


def _measured(engine: Engine, case: Case) -> Timed:
    injected[0] = 0.0
    began = time.monotonic()
    case.inject()
    began = injected[0] or began
    fell = engine.wait(f"falls back: {case.said}", began, 10.0)
    if fell is None:
        raise SystemExit(f"{case.name}: no fallback; said: {engine.said[-5:]}")
    seconds = fell[0] - case.counts_after
    mended = time.monotonic()
    case.mend()
    back = engine.wait(f"is back after {case.said}", mended, 60.0)
    if back is None:
        state = (engine.out / STATUS).read_text()
        raise SystemExit(f"{case.name}: it did not recover; said: {engine.said[-5:]}; {state}")
    time.sleep(1.0)
    return Timed(case.name, seconds, back[0], fell[1].split("falls back: ")[1], case.budgeted)


def _stopped(engine: Engine) -> Timed:
    """Stop the process: the heartbeat that readers see grows old."""
    folder, longest = LiveFolder(engine.out), timedelta(seconds=BUDGET_SECONDS * 0.8)
    began = time.monotonic()
    engine.process.send_signal(signal.SIGSTOP)
    while (state := folder.read()) is None or state.is_alive(datetime.now(UTC), longest):
        time.sleep(0.01)
    fell = time.monotonic() - began
    engine.process.send_signal(signal.SIGCONT)
    back = time.monotonic()
    while (state := folder.read()) is None or not state.is_alive(datetime.now(UTC), longest):
        time.sleep(0.01)
    reason = "the heartbeat is old (as a reader sees it)"
    return Timed("process stopped", fell, time.monotonic() - back, reason)


def _print(rows: list[Timed], state: dict[str, Any]) -> None:
    print(f"{'fault':28}{'to fallback':>12}{'to recover':>12}  reason shown")
    for one in rows:
        print(f"{one.name:28}{one.fell:11.2f}s{one.back:11.2f}s  {one.reason[:90]}")
    worst = max(one.fell for one in rows if one.budgeted)
    verdict = "kept" if worst <= BUDGET_SECONDS else "EXCEEDED"
    print(f"slowest fallback {worst:.2f} s; budget {BUDGET_SECONDS:g} s: {verdict}")
    print(f"{state['decisions']} decisions, rows {state['rows']}, dropped {state['dropped']}")


if __name__ == "__main__":
    main()
