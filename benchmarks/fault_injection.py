"""Faults injected into a running ``margincast live``: time to the fallback, and back.

A workspace is made, a model trained on ten simulated days that end now, and the engine started as
an operator would: a process of its own, the machine's clock, rows over its socket. A second
version, promoted in spite of its gate for a time, takes over in between: a champion change under
feed, and a failed gate once its time is over. Each fault is then injected from outside and mended
again; times are those at which another process, looking as a worker of the service does, sees the
fallback in the margins, and all contracts well again. What it sees is held against the base
schedule and the margins before. A fallback within one second is the promise; a return waits for
``recovery.quiet`` (three seconds here) after the last sign of the fault, on purpose. The clock of
the machine cannot be set from here: ``tests/end_to_end/test_live.py`` turns one.

Run: ``POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 python -m benchmarks.fault_injection``
(some eight minutes)
"""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.fault_case import (
    MINUTE,
    PROGRAM,
    Engine,
    Feeder,
    Market,
    Onlooker,
    Shown,
    all_well,
    fell_back,
    is_safe,
)

from margincast.serving.live.folder import SOCKET, STATUS

BUDGET_SECONDS = 1.0
SILENCE_SECONDS = 2.0
FROZEN_SECONDS = 3.0
QUIET_SECONDS = 3.0
HEARTBEAT = timedelta(seconds=0.8)
"""When the onlooker takes the engine for gone (``live.longest_silence_milliseconds``)."""
LIVE = (
    f'watch.silence={{book="{SILENCE_SECONDS:.0f}s"}}',
    f'watch.unchanged={{book="{FROZEN_SECONDS:.0f}s"}}',
    f'recovery={{quiet="{QUIET_SECONDS:.0f}s", good_decisions=0}}',
    "feed.queue_rows=2000",
)


@dataclass(frozen=True)
class Case:
    """A fault: what is said, how it is injected and mended.

    ``counts_after`` seconds after the injection it is one; one that is not ``budgeted`` comes about
    by and by, and the time until it does is not told apart.
    """

    name: str
    word: str
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
        eyes = Onlooker.of(engine.out, HEARTBEAT)
        time.sleep(2 * QUIET_SECONDS)
        try:
            _swap(engine, workspace)
            faults = Faults(engine, feeder, workspace / "mlruns")
            rows = [_measured(eyes, case) for case in _cases(faults)]
            rows += [_stopped(eyes, engine), _killed(eyes, feeder, workspace, data)]
            engine = feeder.engine
            rows.append(_implausible(market, workspace, root))
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


def _start(workspace: Path, data: Path, out: Path, *more: str) -> Engine:
    sets = [part for text in (*LIVE, *more) for part in ("--set", text)]
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
        "the benchmark", "--expires", _soon(300), "--workspace", workspace,
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
        self.feeder.paused, self.feeder.frozen = set(), False

    def freeze(self) -> None:
        """Send the same book for ever."""
        self.feeder.frozen = True
        time.sleep(0.5)
        injected[0] = time.monotonic()

    def silence_all(self) -> None:
        """Send nothing at all; the silence begins with the last book."""
        self.feeder.paused = {"book", "trades", "mark", "bars"}
        time.sleep(0.5)
        injected[0] = self.feeder.last_book

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

    def moved(by: timedelta) -> Callable[[], str]:
        def at() -> str:
            return (datetime.now(UTC) + by).isoformat()

        return at

    def in_a_row(name: str, word: str, table: str, **changes: Callable[[], object]) -> Case:
        return Case(name, word, do.row(table, **changes), do.resume)

    hour = timedelta(hours=1)
    return [
        in_a_row("crossed book", "crossed book", "book", bid_price_0=lambda: 2 * do.close()),
        in_a_row("NaN price", "not a number", "trades", price=lambda: "NaN"),
        in_a_row("price of zero", "not a number", "trades", price=lambda: 0.0),
        in_a_row("negative mark", "not a number", "mark", mark_price=lambda: -1.0),
        in_a_row("negative volume", "not a number", "trades", size=lambda: -1.0),
        in_a_row("empty side of a book", "broken row", "book", ask_size_0=lambda: 0.0),
        in_a_row("spike against mark", "spike", "trades", price=lambda: 1.2 * do.close()),
        in_a_row("row from the future", "clock skew", "mark", ts=moved(MINUTE)),
        in_a_row("rows an hour late", "stale feed", "mark", ts=moved(-hour)),
        Case("stale feed", "stale feed", do.stall, do.resume, SILENCE_SECONDS),
        Case("no row of anything", "stale feed", do.silence_all, do.resume, SILENCE_SECONDS),
        Case("frozen feed", "stale feed", do.freeze, do.resume, FROZEN_SECONDS),
        Case("overload", "overload", do.flood, do.wait_for_senders, budgeted=False),
        # a heartbeat that cannot be written is all that others see of a full disk
        Case("disk full", "engine stopped", do.fill, do.empty),
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
    """A line of the table; ``safe``: no fallback lay below what it took the place of."""

    name: str
    fell: float
    back: float
    reason: str
    safe: bool
    budgeted: bool = True


def _measured(eyes: Onlooker, case: Case) -> Timed:
    injected[0] = 0.0
    if eyes.wait(lambda _: all_well(eyes.now), 0.0, time.monotonic() + 60.0) is None:
        raise SystemExit(f"before {case.name}: {eyes.now['SIM-BTC', 'long', 1]}")
    began = time.monotonic()
    case.inject()
    began = injected[0] or began
    fell = eyes.wait(fell_back(case.word), began, 10.0)
    if fell is None:
        raise SystemExit(f"{case.name}: no fallback; shown: {eyes.now['SIM-BTC', 'long', 1]}")
    mended = time.monotonic()
    case.mend()
    back = eyes.wait(all_well, mended, 90.0)
    if back is None:
        raise SystemExit(
            f"{case.name}: it did not recover; shown: {eyes.now['SIM-BTC', 'long', 1]}"
        )
    time.sleep(1.0)
    return _timed(case.name, fell, back[0], late=case.counts_after, budgeted=case.budgeted)


def _timed(
    name: str,
    fell: tuple[float, Shown, Shown],
    back: float,
    *,
    late: float = 0.0,
    budgeted: bool = True,
) -> Timed:
    seconds, shown, before = fell
    reason = shown["SIM-BTC", "long", 1][3].removeprefix("last margin kept: ")
    return Timed(name, seconds - late, back, reason, is_safe(shown, before), budgeted)


def _stopped(eyes: Onlooker, engine: Engine) -> Timed:
    """Stop the process for three seconds: its heartbeat grows old."""
    began = time.monotonic()
    engine.process.send_signal(signal.SIGSTOP)
    fell = eyes.wait(fell_back("engine stopped"), began, 10.0)
    time.sleep(max(0.0, began + 3.0 - time.monotonic()))
    engine.process.send_signal(signal.SIGCONT)
    goes_on = time.monotonic()
    back = eyes.wait(all_well, goes_on, 60.0)
    assert fell is not None
    assert back is not None
    if back[0] < QUIET_SECONDS:
        raise SystemExit(f"it came back {back[0]:.2f} s after it had stood still, without quiet")
    return _timed("process stopped for 3 s", fell, back[0])


def _killed(eyes: Onlooker, feeder: Feeder, workspace: Path, data: Path) -> Timed:
    """Kill the process and start it again: no margin comes back before it has been quiet."""
    began = time.monotonic()
    feeder.engine.process.kill()
    fell = eyes.wait(fell_back("engine stopped"), began, 10.0)
    feeder.engine.process.wait()
    feeder.done = feeder.market.cut(data)
    feeder.engine = _start(workspace, data, feeder.engine.out)
    started = time.monotonic()
    back = eyes.wait(all_well, started, 60.0)
    assert fell is not None
    assert back is not None
    if back[0] < 0.9 * QUIET_SECONDS:
        raise SystemExit(f"a new start ended a fallback after {back[0]:.2f} s, without quiet")
    return _timed("process killed, started again", fell, back[0])


def _implausible(market: Market, workspace: Path, root: Path) -> Timed:
    """Start an engine for whose policy no forecast is plausible; it notices at its decision."""
    data, out = root / "later", root / "implausible"
    known = market.cut(data)
    engine = _start(workspace, data, out, "policy.forecast.largest_plausible=1e-9")
    feeder = Feeder(engine, market, known)
    feeding = threading.Thread(target=feeder.run, daemon=True)
    feeding.start()
    began = time.monotonic()
    try:
        fell = engine.wait("falls back: no usable forecast", began, 100.0)
    finally:
        feeder.ended.set()
        feeding.join()
        engine.process.send_signal(signal.SIGTERM)
        engine.process.wait(20)
    assert fell is not None
    reason = fell[1].split("falls back: ")[1]
    seconds = began + fell[0] - feeder.last_bars
    return Timed("out-of-range forecast", seconds, float("nan"), reason, safe=True)


def _print(rows: list[Timed], state: dict[str, Any]) -> None:
    print(f"{'fault':30}{'to fallback':>12}{'to recover':>12}  reason shown")
    for one in rows:
        print(f"{one.name:30}{one.fell:11.2f}s{one.back:11.2f}s  {one.reason[:110]}")
    worst = max(one.fell for one in rows if one.budgeted)
    verdict = "kept" if worst <= BUDGET_SECONDS else "EXCEEDED"
    print(f"slowest fallback {worst:.2f} s; budget {BUDGET_SECONDS:g} s: {verdict}")
    low = [one.name for one in rows if not one.safe]
    print(f"fallbacks below the base schedule or the margin before: {', '.join(low) or 'none'}")
    print(f"{state['decisions']} decisions, rows {state['rows']}, dropped {state['dropped']}")


if __name__ == "__main__":
    main()
