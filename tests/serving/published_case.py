"""A workspace with a service and publications, made by the real policy arithmetic and store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from tests.serving.levels_case import CHECKOUT, POLICY, SCHEDULE, SYMBOLS

from margincast.margin.background import Background, Remembered
from margincast.margin.beside_maintenance import InitialInputs
from margincast.margin.level_inputs import LevelInputs
from margincast.margin.levels import costs_of
from margincast.margin.tier_rows import tier_rows
from margincast.serving.batch import levels_from
from margincast.serving.publications.publication import Publication
from margincast.serving.publications.store import PublicationStore
from margincast.serving.scored import Origin, policy_hash

FORECASTS = ((0.012, 0.0041, 0.0054), (0.013, 0.0039, 0.006), (0.011, 0.0052, 0.0061))
ORIGIN = Origin("demo/1", "2" * 64, policy_hash(POLICY, SCHEDULE))
FOLDER = Path("publications") / "demo"


def publish(
    workspace: Path,
    forecasts: tuple[float, ...],
    *,
    at: datetime,
    now: datetime | None = None,
    reason: str = "the nightly one",
) -> Publication:
    """Publish margins of the simulated contracts; a forecast of NaN leads to a fallback."""
    store = PublicationStore(workspace / FOLDER)
    last = store.latest()
    rows = tier_rows(SYMBOLS, SCHEDULE, POLICY)
    moment = np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us")
    past = Remembered.nothing(len(rows)) if last is None else last.remembered(rows)
    unknown = np.full(len(rows), np.nan)
    costs, reasons = costs_of(rows, POLICY, {})
    long = np.array(forecasts)
    inputs = LevelInputs(
        rows.symbols,
        np.stack([long, 0.9 * long], axis=1),
        np.where(np.isnan(long), np.datetime64("NaT"), moment - np.timedelta64(60, "s")),
        np.array(["" if one > 0 else "no trade for an hour" for one in forecasts], dtype=object),
        costs,
        reasons,
        Background.of(moment, past, unknown, unknown),
        InitialInputs.unknown(len(SYMBOLS), POLICY),
    )
    return store.publish(
        levels_from(inputs, POLICY, SCHEDULE, ORIGIN, ()),
        policy=POLICY,
        schedule=SCHEDULE,
        overrides=(),
        by="nightly",
        reason=reason,
        follows=0 if last is None else last.number,
        now=now or at,
    )


def service_workspace(
    folder: Path, *, newest: datetime, forecasts: tuple[tuple[float, ...], ...] = FORECASTS
) -> Path:
    """Write a workspace whose service serves some publications, a day apart."""
    for name in ("features", "training", "serving", "mlruns"):
        (folder / name).mkdir(parents=True)
    text = (CHECKOUT / "serving" / "service.toml").read_text(encoding="utf-8")
    text = text.replace("publications/perp-8h", "publications/demo")
    (folder / "serving" / "service.toml").write_text(text, encoding="utf-8")
    for number, one in enumerate(forecasts, start=1 - len(forecasts)):
        publish(folder, one, at=newest + timedelta(days=number))
    return folder
