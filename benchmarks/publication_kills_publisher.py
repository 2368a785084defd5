"""A process that publishes a venue's table again and again, for ``publication_kills`` to kill.

Run: ``python -m benchmarks.publication_kills_publisher FOLDER``
"""

import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
from benchmarks.margin_levels import SERVING, schedule_of

from margincast.margin.background import Background, Remembered
from margincast.margin.level_inputs import LevelInputs
from margincast.margin.tier_rows import tier_rows
from margincast.serving.batch import levels_from
from margincast.serving.publications.store import PublicationStore
from margincast.serving.scored import Origin, Scored
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy


def main() -> None:
    """Publish until killed."""
    policy = load_spec(SERVING / "perp-8h.toml", MarginPolicy, ["limits.multiplier_cap=1000"])
    symbols = [f"C{number:04}USDT" for number in range(150)]
    schedule = schedule_of(symbols, 20, np.random.default_rng(1))
    store = PublicationStore(Path(sys.argv[1]))
    print("ready", flush=True)
    while True:
        last = store.latest()
        made = _scored(last.at if last is not None else None, symbols, policy, schedule)
        store.publish(
            made, policy=policy, schedule=schedule, overrides=(), by="benchmark",
            reason="to be killed", follows=0 if last is None else last.number,
        )  # fmt: skip


def _scored(
    last: object, symbols: list[str], policy: MarginPolicy, schedule: BaseSchedule
) -> Scored:
    """Return margins of the hour after the last one, forecasts drawn at random."""
    at = np.datetime64("2000-01-01", "us")
    if last is not None:
        at = np.datetime64(last.replace(tzinfo=None) + timedelta(hours=1), "us")  # type: ignore[attr-defined]
    rows = tier_rows(symbols, schedule, policy)
    unknown = np.full(len(rows), np.nan)
    remembered = Remembered.nothing(len(rows))
    inputs = LevelInputs.unknown(
        rows,
        np.full(len(symbols), "no data", dtype=object),
        Background.of(at, remembered, unknown, unknown),
        policy,
    )
    return levels_from(inputs, policy, schedule, Origin("none", "none", "none"), ())


if __name__ == "__main__":
    main()
