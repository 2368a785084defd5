"""Small stores with known faults, written as an ingest writes them."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from margincast.data.formats.format import Batch
from margincast.data.ingestion.staging import PartWriter, QuarantineWriter
from margincast.data.schemas import TIMESTAMP
from margincast.data.store import MANIFEST, Record, Store

START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def start():
    return START


@pytest.fixture
def write_store(tmp_path):
    """Write sources, each ``(table, venue, frame with symbol)``, into a store."""

    def write(*sources, name="store", **told):
        root = tmp_path / name
        (root / MANIFEST).mkdir(parents=True)
        store = Store(root)
        for number, (table, venue, frame) in enumerate(sources):
            identity = f"{number:016x}"
            quarantine = QuarantineWriter(root / "_quarantine" / f"{identity}.parquet")
            writer = PartWriter(root, identity, quarantine)
            writer.add(Batch(table, venue, frame.cast({"ts": TIMESTAMP})))
            writer.finish()
            quarantine.close()
            store.write_record(
                Record(
                    identity=identity,
                    source=f"source-{number}.csv",
                    digest="0" * 64,
                    size_bytes=1,
                    modified_ns=1,
                    format="test",
                    settings={"table": table, "venue": venue, "symbol": None},
                    records={"translated": len(frame)},
                    rejected=told.get("rejected", {}),
                    quarantined=dict(quarantine.reasons),
                    events=told.get("events", {}),
                    tables=writer.counts(),
                    parts=tuple(writer.parts),
                    ingested_at=START,
                    version="0",
                )
            )
        return store

    return write


@pytest.fixture
def make_bars():
    """Bars of a random walk of known step; ``volatility`` a bar."""

    def make(rows, *, seed=1, symbol="ABC", interval="1h", volatility=0.005, price=100.0, at=START):
        random = np.random.default_rng(seed)
        close = price * np.exp(np.cumsum(random.normal(0, volatility, rows)))
        opened = np.concatenate([[price], close[:-1]])
        step = {"1h": timedelta(hours=1), "5m": timedelta(minutes=5), "1d": timedelta(days=1)}
        return pl.DataFrame(
            {
                "symbol": symbol,
                "ts": [at + number * step[interval] for number in range(rows)],
                "open": opened,
                "high": np.maximum(opened, close) * 1.001,
                "low": np.minimum(opened, close) * 0.999,
                "close": close,
                "volume": random.lognormal(3, 0.5, rows),
            },
            schema_overrides={"ts": TIMESTAMP},
        )

    return make
