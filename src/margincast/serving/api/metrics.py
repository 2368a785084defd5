"""What the service counts about itself, for Prometheus, over all its workers.

With several workers each writes its numbers into files of ``PROMETHEUS_MULTIPROC_DIR``, and
whichever worker is asked adds them up. Source: prometheus_client, "Multiprocess Mode".
"""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0,
)  # fmt: skip
"""Edges of the latency histogram."""
STATUSES = ("ok", "fallback", "stale", "empty")


class Metrics:
    """Counters and gauges of one worker."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self.requests = Counter(
            "margincast_requests", "Answered requests.", ("route", "status"), registry=own
        )
        self.seconds = Histogram(
            "margincast_request_seconds",
            "From the end of a request's head to the end of its answer, streams apart.",
            ("route",),
            buckets=SECONDS,
            registry=own,
        )
        self.refused = Counter(
            "margincast_refused",
            "Requests refused before they reached a route.",
            ("why",),
            registry=own,
        )
        self.streams = Gauge(
            "margincast_streams", "Open streams.", multiprocess_mode="livesum", registry=own
        )
        self.publication = Gauge(
            "margincast_publication",
            "Number of the publication that the slowest worker serves.",
            multiprocess_mode="livemin",
            registry=own,
        )
        self.published_at = Gauge(
            "margincast_published_timestamp_seconds",
            "When that publication was made.",
            multiprocess_mode="livemin",
            registry=own,
        )
        self.contracts = Gauge(
            "margincast_contracts",
            "Contracts with margins.",
            multiprocess_mode="livemin",
            registry=own,
        )
        self.fallbacks = Gauge(
            "margincast_fallback_contracts",
            "Contracts of which a side is in fallback.",
            multiprocess_mode="livemax",
            registry=own,
        )
        self.status = Gauge(
            "margincast_status",
            "1 where the service is in this state in any worker.",
            ("status",),
            multiprocess_mode="livemax",
            registry=own,
        )
        self.resident = Gauge(
            "margincast_worker_resident_bytes",
            "Memory of each worker.",
            multiprocess_mode="liveall",
            registry=own,
        )
        self.unreadable = Counter(
            "margincast_unreadable_publications", "Looks that found a damaged one.", registry=own
        )

    def show_status(self, status: str) -> None:
        """Set the one status that holds."""
        for name in STATUSES:
            self.status.labels(name).set(float(name == status))

    def text(self) -> bytes:
        """Return what all workers counted, in the text format of Prometheus."""
        if FOLDER_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # ships no types here
        return generate_latest(together)


def forget_dead_workers() -> None:
    """Drop the gauges of workers that are gone; what they counted stays counted."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        return
    for path in Path(folder).glob("gauge_live*_*.db"):
        number = path.stem.rpartition("_")[2]
        if number.isdigit() and not Path("/proc", number).exists():
            mark_process_dead(int(number), folder)  # type: ignore[no-untyped-call]  # likewise


def resident_bytes() -> int:
    """Return the memory this process holds."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
