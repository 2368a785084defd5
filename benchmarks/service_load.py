"""The service under load: latency at a constant arrival rate, errors, memory, start to ready.

Budgets: 500 requests a second at p99 below 10 ms on two cores that the caller shares, no error,
flat memory; ready within 5 s; ``--against-mlflow``: at least 20 times the throughput of ``mlflow
models serve`` with the bundle whose forecasts the margins rest on, both asked as fast as they
answer in the same run. Nine in ten requests ask for the margin of a position, the others for status
and steps. On a machine that others use too, look at the processor time a request.

Run: ``python -m benchmarks.service_load``, ``--minutes 10`` for a soak, ``--against-mlflow``
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
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
WORKERS = 2
FLAT = 1.05
"""Memory in the last tenth of a run over that in the second tenth."""


def main() -> None:
    """Serve, load, and print what was found beside its budget."""
    parser = argparse.ArgumentParser(description="the service under load")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--contracts", type=int, default=200)
    parser.add_argument("--against-mlflow", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out") / "service_load")
    arguments = parser.parse_args()
    seconds = arguments.seconds if arguments.minutes is None else 60.0 * arguments.minutes
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.against_mlflow:
            compare(folder, min(seconds, 20.0))
        else:
            load(folder, arguments.contracts, arguments.rate, seconds, arguments.out)


def load(folder: Path, contracts: int, rate: float, seconds: float, out: Path) -> None:
    """Measure latency at a constant rate."""
    symbols = [f"C{number:04}USDT" for number in range(contracts)]
    forecasts = np.random.default_rng(8).lognormal(-3.0, 0.4, (contracts, 2))
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
        f"processor time {used / found['answered'] * 1e6:.0f} us a request, "
        f"{100.0 * used / seconds:.0f} % of a core; load of the machine {os.getloadavg()[0]:.1f}"
    )
    tenth = max(1, len(table) // 10)
    early, late = (
        np.median([mb for _, mb in part]) for part in (table[tenth:][:tenth], table[-tenth:])
    )
    print(
        f"memory of {WORKERS} workers {early:.0f} MB early, {late:.0f} MB late: "
        f"{late / early:.3f}, budget {FLAT:g}: {kept(late / early, FLAT)}"
    )
    out.mkdir(parents=True, exist_ok=True)
    lines = ["seconds,megabytes", *(f"{at:.1f},{mb:.2f}" for at, mb in table)]
    (out / "memory.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plot(table, out / "memory.png")
    print(f"memory over time: {out / 'memory.png'}")


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
    forecasts = np.stack([predicted.at(side, 0.99) for side in ("long", "short")], axis=1)
    symbols = frame["symbol"].tolist()
    key = write_workspace(folder / "workspace", symbols, forecasts, TIERS)
    ours = folder / "ours.json"
    ours.write_text(json.dumps([get(f"/v1/margins/{symbol}?side=long", key) for symbol in symbols]))
    (folder / "mlflow").mkdir()
    model = save_pyfunc(folder / "bundle", folder / "mlflow")
    theirs = folder / "theirs.json"
    theirs.write_text(json.dumps(invocations(frame, bundle.manifest.metadata.feature_columns)))
    with serving(folder / "workspace", WORKERS) as (port, _, ready), mlflow(model) as other:
        print(f"ready after {ready:.2f} s")
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
    """Memory of a process's children over time, megabytes."""

    def __init__(self, parent: int) -> None:
        self._parent, self._table, self._ended = parent, list[tuple[float, float]](), False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> list[tuple[float, float]]:
        """Return seconds and megabytes."""
        self._ended = True
        self._thread.join()
        return self._table

    def _watch(self) -> None:
        started = time.perf_counter()
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._ended:
            pages = [
                int(Path(f"/proc/{number}/statm").read_text(encoding="ascii").split()[1])
                for number in children(self._parent)
            ]
            self._table.append((time.perf_counter() - started, sum(pages) * page / 1e6))
            time.sleep(1.0)


def plot(table: list[tuple[float, float]], path: Path) -> None:
    """Draw memory over time."""
    import matplotlib as mpl  # noqa: PLC0415  # slow to import

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415  # after the backend was chosen

    figure, axes = plt.subplots(figsize=(8, 3))
    axes.plot(*zip(*table, strict=True))
    axes.set(
        xlabel="seconds", ylabel="MB of all workers", ylim=(0, None), title="Memory under load"
    )
    figure.tight_layout()
    figure.savefig(path)


def kept(found: float, budget: float) -> str:
    """Say whether a budget is kept."""
    return "kept" if found <= budget else "NOT kept"


if __name__ == "__main__":
    main()
