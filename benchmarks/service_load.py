"""The service under load: latency at a constant arrival rate, errors, memory, start to ready.

Budgets: 500 requests a second at p99 below 10 ms on two cores that the caller shares, no error,
flat memory; ready within 5 s; ``--against-mlflow``: at least 20 times the throughput of ``mlflow
models serve`` with the bundle whose forecasts the margins rest on, both asked as fast as they
answer in the same run. Nine in ten requests ask for the margin of a position, the others for status
and steps. On a machine that others use too, look at the processor time a request.

Run: ``python -m benchmarks.service_load``, ``--minutes 10 --plot memory.svg`` for a soak,
``--against-mlflow``
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.bundle_load import CONTRACTS, WORKSPACE, panel_of, write
from benchmarks.service_case import get, serving, wait_for, write_workspace

from margincast.models.catalogue import LOADERS
from margincast.serving.bundle import read_bundle
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob

RATE = 500.0
P99_SECONDS, READY_SECONDS, TIMES = 0.010, 5.0, 20.0
TIERS = 20
LEVEL = 0.99
WORKERS = 2
FLAT = 1.05
"""Memory in the last tenth of a run over that in the second tenth."""
Line = list[tuple[float, float]]
"""Seconds and megabytes."""


def main() -> None:
    """Serve, load, and print what was found beside its budget."""
    parser = argparse.ArgumentParser(description="the service under load")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--contracts", type=int, default=200)
    parser.add_argument("--against-mlflow", action="store_true")
    parser.add_argument("--plot", type=Path, default=None, metavar="FILE.svg")
    parser.add_argument("--out", type=Path, default=Path("out") / "service_load")
    arguments = parser.parse_args()
    seconds = arguments.seconds if arguments.minutes is None else 60.0 * arguments.minutes
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.against_mlflow:
            compare(folder, min(seconds, 20.0))
        else:
            load(folder, arguments, seconds)


def load(folder: Path, arguments: argparse.Namespace, seconds: float) -> None:
    """Measure latency at a constant rate."""
    rate, out = arguments.rate, arguments.out
    drawn = arguments.plot or out / "memory.svg"
    symbols = [f"C{number:04}USDT" for number in range(arguments.contracts)]
    forecasts = np.random.default_rng(8).lognormal(-3.0, 0.4, (len(symbols), 2))
    key = write_workspace(folder / "workspace", symbols, forecasts, TIERS)
    requests = folder / "requests.json"
    requests.write_text(json.dumps(questions(symbols, key)))
    with serving(folder / "workspace", WORKERS) as (port, process, ready):
        print(
            f"ready after {ready:.2f} s, budget {READY_SECONDS:g} s: {kept(ready, READY_SECONDS)}"
        )
        caller(port, requests, rate=rate, seconds=3.0)
        memory, before = Memory(process.pid), processor_seconds(process.pid)
        found = caller(port, requests, rate=rate, seconds=seconds)
        used, table = processor_seconds(process.pid) - before, memory.stop()
    errors = {status: n for status, n in found["statuses"].items() if status != "200"}
    wanted = int(rate * seconds)
    print(
        f"{found['answered']:,} of {wanted:,} requests answered at {rate:g} a second over "
        f"{seconds:g} s; errors: {errors or 'none'}"
    )
    for name in ("p50", "p99", "p99.9", "max"):
        budget = f", budget {P99_SECONDS * 1e3:g} ms: {kept(found[name], P99_SECONDS)}"
        print(f"{name} {found[name] * 1e3:.2f} ms{budget if name == 'p99' else ''}")
    print(
        f"the caller itself was {found['behind_p99'] * 1e3:.2f} ms late at p99, which is part of "
        f"the above, and took {100.0 * found['cores']:.0f} % of a core"
    )
    print(
        f"processor time {used / found['answered'] * 1e6:.0f} us a request, "
        f"{100.0 * used / seconds:.0f} % of a core; load of the machine {os.getloadavg()[0]:.1f}"
    )
    for number, one in table.items():
        tenth = max(1, len(one) // 10)
        early, late = (
            np.median([mb for _, mb in part]) for part in (one[tenth:][:tenth], one[-tenth:])
        )
        print(
            f"memory of worker {number}: {early:.1f} MB early, {late:.1f} MB late: "
            f"{late / early:.3f}, budget {FLAT:g}: {kept(late / early, FLAT)}"
        )
    if len(table) != WORKERS:
        print(f"{len(table)} workers were seen, {WORKERS} are meant to run: NOT kept")
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"{number},{at:.1f},{mb:.2f}" for number, one in table.items() for at, mb in one]
    text = "\n".join(["worker,seconds,megabytes", *lines]) + "\n"
    (out / "memory.csv").write_text(text, encoding="utf-8")
    drawn.parent.mkdir(parents=True, exist_ok=True)
    plot(table, drawn, f"{rate:g} requests a second over {seconds / 60:g} minutes")
    print(f"memory over time: {drawn}")


def compare(folder: Path, seconds: float) -> None:
    """Measure throughput beside ``mlflow models serve`` of the same bundle, in turns."""
    from margincast.serving.mlflow_model import save_pyfunc  # noqa: PLC0415  # slow to import

    job = load_spec(WORKSPACE / "training" / "perp-8h.toml", TrainingJob)
    write(job, folder / "bundle", horizons=1)
    bundle = read_bundle(folder / "bundle", LOADERS)
    panel = panel_of(job, CONTRACTS, hours=200)
    frame = panel.frame.groupby("symbol", sort=True).tail(1).sort_values("symbol")
    (minutes,) = bundle.forecaster.forecasters
    newest = panel.rows(frame.index.to_numpy())
    predicted = bundle.forecaster.predict({minutes: newest})[minutes]
    forecasts = np.stack([predicted.at(side, LEVEL) for side in ("long", "short")], axis=1)
    symbols = frame["symbol"].tolist()
    key = write_workspace(folder / "workspace", symbols, forecasts, TIERS)
    ours = folder / "ours.json"
    ours.write_text(json.dumps([get(f"/v1/margins/{symbol}?side=long", key) for symbol in symbols]))
    (folder / "mlflow").mkdir()
    model = save_pyfunc(folder / "bundle", folder / "mlflow")
    theirs = folder / "theirs.json"
    theirs.write_text(json.dumps(invocations(frame, bundle.manifest.metadata.feature_columns)))
    print(
        f"{len(symbols)} contracts, one a request, {WORKERS} workers each, asked as fast as they "
        "answer over 16 connections, in turns\n"
        "service: looks up the margins of a contract's side, all tiers, which were made of the "
        "bundle's forecasts when they were published; checks key and rate\n"
        "mlflow: computes the forecasts of the same contract from its row of features with the "
        "same bundle, at every request; makes no margin, checks no key"
    )
    with serving(folder / "workspace", WORKERS) as (port, _, ready), mlflow(model) as other:
        print(f"ready after {ready:.2f} s")
        require_same_forecasts(port, key, symbols, other, theirs)
        rates: dict[str, list[float]] = {"service": [], "mlflow": []}
        for _ in range(2):
            for name, where, requests in (("service", port, ours), ("mlflow", other, theirs)):
                found = caller(where, requests, rate=0.0, seconds=seconds / 2)
                assert set(found["statuses"]) == {"200"}, found["statuses"]
                rates[name].append(found["per_second"])
                print(
                    f"{name}: {found['per_second']:,.0f} a second, p99 {found['p99'] * 1e3:.1f} ms"
                )
    ratio = max(rates["service"]) / max(rates["mlflow"])
    print(f"ratio {ratio:.0f}, budget at least {TIMES:g}: {kept(TIMES, ratio)}")


def require_same_forecasts(
    port: int, key: str, symbols: list[str], other: int, requests: Path
) -> None:
    """Check that both sides answer from one bundle: the forecast of each of some contracts.

    Raises:
        AssertionError: they do not.
    """
    for symbol, request in list(zip(symbols, json.loads(requests.read_text()), strict=True))[:5]:
        asked = urllib.request.Request(  # our own service
            f"http://127.0.0.1:{port}/v1/margins/{symbol}?side=long",
            headers={"authorization": f"Bearer {key}"},
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310  # likewise
            served = json.load(answer)["sides"][0]["forecast"]
        asked = urllib.request.Request(  # likewise
            f"http://127.0.0.1:{other}/invocations",
            data=request.partition("\r\n\r\n")[2].encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310  # likewise
            rows = json.load(answer)["predictions"]
        found = [row["forecast"] for row in rows if row["side"] == "long" and row["level"] == LEVEL]
        assert found == [served], (symbol, found, served)
    print("both give the same forecasts")


def questions(symbols: list[str], key: str) -> list[str]:
    """Return requests of all kinds, in turn."""
    found = []
    for number, symbol in enumerate(symbols):
        notional = 1_000 * (number + 1)
        side = ("long", "short")[number % 2]
        found.append(get(f"/v1/margins/{symbol}?side={side}&notional_usd={notional}", key))
        if number % 20 == 9:
            found.append(get("/v1/status", key))
        if number % 20 == 19:
            found.append(get(f"/v1/explain/{symbol}?side={side}", key))
    return found


def invocations(frame: Any, columns: tuple[str, ...]) -> list[str]:  # noqa: ANN401  # a frame
    """Return requests for forecasts of one row each, as MLflow takes them."""
    requests = []
    names = ["symbol", "ts", *columns]
    for row in frame.to_dict(orient="records"):
        values = [row["symbol"], row["ts"].isoformat(), *(row[name] for name in columns)]
        body = json.dumps({"dataframe_split": {"columns": names, "data": [values]}})
        head = f"POST /invocations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n"
        requests.append(f"{head}content-type: application/json\r\n\r\n{body}")
    return requests


def caller(port: int, requests: Path, *, rate: float, seconds: float) -> dict[str, Any]:
    """Run the caller in a process of its own."""
    command = [
        sys.executable, "-m", "benchmarks.service_client", str(port), str(requests),
        "--rate", str(rate), "--seconds", str(seconds),
    ]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # ours
    found = json.loads(answer.stdout)
    assert isinstance(found, dict)
    return found


class mlflow:  # noqa: N801  # a context manager, used like a function
    """``mlflow models serve`` with as many workers as the service has; gives its port."""

    def __init__(self, model: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        command = [
            sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--workers",
            str(WORKERS), "-p", str(self._port), "--env-manager", "local",
        ]  # fmt: skip
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(  # noqa: S603  # our own command
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, "PATH": path},
        )  # fmt: skip

    def __enter__(self) -> int:
        wait_for(f"http://127.0.0.1:{self._port}/ping")
        return self._port

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, 15)
        self._process.wait(timeout=30)


def children(parent: int) -> list[int]:
    """Return the processes that a process started."""
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
    return [int(number) for number in text.split()]


def processor_seconds(parent: int) -> float:
    """Return the processor time that a process's children used."""
    ticks = 0
    for number in children(parent):
        fields = Path(f"/proc/{number}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Memory:
    """Memory of each worker over time, megabytes."""

    def __init__(self, parent: int) -> None:
        self._parent, self._table, self._ended = parent, dict[int, Line](), False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> "dict[int, Line]":
        """Return seconds and megabytes, by worker."""
        self._ended = True
        self._thread.join()
        return self._table

    def _watch(self) -> None:
        started = time.perf_counter()
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._ended:
            for number in children(self._parent):
                with contextlib.suppress(OSError):  # it ended meanwhile
                    # multiprocessing keeps a process of its own beside the workers
                    if b"spawn_main" not in Path(f"/proc/{number}/cmdline").read_bytes():
                        continue
                    pages = int(Path(f"/proc/{number}/statm").read_text().split()[1])
                    point = (time.perf_counter() - started, pages * page / 1e6)
                    self._table.setdefault(number, []).append(point)
            time.sleep(1.0)


def plot(table: "dict[int, Line]", path: Path, title: str) -> None:
    """Draw the memory of each worker over time."""
    import matplotlib as mpl  # noqa: PLC0415  # slow to import

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415  # after the backend was chosen

    figure, axes = plt.subplots(figsize=(8, 3))
    for place, one in enumerate(table.values(), start=1):
        seconds, megabytes = zip(*one, strict=True)
        axes.plot([at / 60 for at in seconds], megabytes, label=f"worker {place}")
    largest = max(megabytes for one in table.values() for _, megabytes in one)
    limits = (0, 1.2 * largest)
    axes.set(xlabel="minutes", ylabel="resident memory, MB", ylim=limits, title=title)
    axes.legend(loc="lower right")
    figure.tight_layout()
    # no date, no random names: the same measurement gives the same file
    mpl.rcParams["svg.hashsalt"] = "margincast"
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def kept(found: float, budget: float) -> str:
    """Say whether a budget is kept."""
    return "kept" if found <= budget else "NOT kept"


if __name__ == "__main__":
    main()
