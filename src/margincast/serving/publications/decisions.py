"""The decisions behind a publication, kept so that its forecasts can be made again by its bundle.

Responsible for everything a model was asked: features of all decisions since its fit, and what was
known to have followed. Nights share most of it, so it lies beside the publications, a piece of
time each, under the SHA-256 of its values; a publication names its pieces.
"""

import io
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from margincast.core.errors import InputError, PublicationError
from margincast.core.types import SIDES, FloatArray
from margincast.features.column_digest import digest_of_frame
from margincast.models.protocol import Panel
from margincast.serving.batch import latest_rows
from margincast.serving.bundle import Bundle
from margincast.serving.kept_forecasts import decisions_frame, pieces_of
from margincast.serving.publications.publication import DECISIONS, Publication

FOLDER = "decisions"
"""Beside the publications of a policy."""
_ABANDONED_AFTER_S = 3600.0
"""A file is written in less than a second."""


def keep_decisions(store: Path, panels: Mapping[int, Panel]) -> dict[str, Any]:
    """Write the pieces that are not there yet; on the disk when this returns.

    Args:
        store: folder of the publications.
        panels: per horizon in minutes, the same decisions.

    Returns:
        What names them, JSON-like.

    Raises:
        InputError: they cannot be written.
    """
    panel = next(iter(panels.values()))
    folder = store / FOLDER
    features = decisions_frame(panel)
    outcomes = {minutes: _outcomes(own) for minutes, own in panels.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(folder)
        pieces = [
            {
                "features": _kept(folder, features[piece]),
                "outcomes": {
                    str(minutes): _kept(folder, own[piece]) for minutes, own in outcomes.items()
                },
            }
            for piece in pieces_of(panel.decided)
        ]
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(
            f"the decisions behind the margins could not be written to {folder} "
            f"({error.strerror or error}); nothing was published, the publication before stays in "
            "force: make room or mend what is named, then run the same command again"
        ) from error
    return {"units": dict(panel.units), "sides": list(panel.outcomes), "pieces": pieces}


def decisions_of(publication: Publication) -> dict[int, Panel] | None:
    """Read the decisions behind a publication; None where it has none.

    Raises:
        PublicationError: a piece is missing or was changed.
    """
    if DECISIONS not in publication.record.files:
        return None
    told = publication.read_json(DECISIONS)
    folder = publication.folder.parent / FOLDER
    pieces = told["pieces"]

    def whole(names: list[str]) -> pl.DataFrame:
        return pl.concat(_read(folder, name, publication) for name in names)

    frame = whole([piece["features"] for piece in pieces]).to_pandas()
    frame = frame.assign(ts=frame["ts"].dt.tz_localize("UTC"))
    panels = {}
    for minutes in pieces[0]["outcomes"]:
        own = whole([piece["outcomes"][minutes] for piece in pieces])
        panels[int(minutes)] = Panel(
            frame,
            told["units"],
            {side: own[f"outcome_{side}"].to_numpy() for side in told["sides"]},
            own["log_range"].to_numpy(),
            own["label_end"].to_numpy().astype("datetime64[us]"),
        )
    return panels


def require_decisions(publication: Publication, sound: set[str]) -> None:
    """Check the decisions behind a publication, where it has any.

    Args:
        publication: the publication.
        sound: names of pieces that were checked already, which nights share; added to.

    Raises:
        PublicationError: a piece is missing or was changed.
    """
    if DECISIONS not in publication.record.files:
        return
    for piece in publication.read_json(DECISIONS)["pieces"]:
        for name in (piece["features"], *piece["outcomes"].values()):
            if name not in sound:
                _read(publication.folder.parent / FOLDER, name, publication)
                sound.add(name)


def forecasts_again(publication: Publication, bundle: Bundle) -> "tuple[FloatArray, int] | None":
    """Forecast the recorded decisions by the bundle that made the publication.

    Args:
        publication: of margins made by a model.
        bundle: its model.

    Returns:
        Forecasts at the policy's level and horizon, shape (contracts, sides), NaN where there was
        no decision, and the number of decisions asked about; None where none were recorded.

    Raises:
        PublicationError: a piece is missing or was changed.
    """
    panels = decisions_of(publication)
    if panels is None:
        return None
    wanted = publication.policy.model
    minutes = int(wanted.horizon.total_seconds() // 60)
    made = bundle.forecaster.predict(panels)[minutes]
    panel = panels[minutes]
    newest = latest_rows(panel.frame)
    symbols = panel.frame["symbol"].iloc[newest]
    found = np.full((len(publication.symbols), len(SIDES)), np.nan)
    place = np.searchsorted(publication.symbols, symbols.tolist())
    for number, side in enumerate(SIDES):
        if side in made.sides:
            found[place, number] = made.at(side, wanted.level)[newest]
    return found, len(panel)


def _outcomes(panel: Panel) -> pl.DataFrame:
    values = {f"outcome_{side}": values for side, values in panel.outcomes.items()}
    return pl.DataFrame(
        {**values, "log_range": panel.log_range, "label_end": panel.label_end},
        schema_overrides={"label_end": pl.Datetime("us")},
    )


def _kept(folder: Path, piece: pl.DataFrame) -> str:
    name = digest_of_frame(piece)
    path = folder / f"{name}.parquet"
    if not path.exists():
        partial = folder / f".{name}.{os.getpid()}-{secrets.token_hex(4)}"
        try:
            content = io.BytesIO()  # polars' own error of a full disk is none of the system's
            piece.write_parquet(content, compression="zstd", statistics=False)
            with partial.open("xb") as stream:
                stream.write(content.getbuffer())
                stream.flush()
                os.fsync(stream.fileno())
            partial.chmod(0o444)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return name


def _clear_leftovers(folder: Path) -> None:
    """Remove what killed publishers left; others may be writing right now."""
    for left in folder.glob(".*"):
        if time.time() - left.stat().st_mtime > _ABANDONED_AFTER_S:
            left.unlink(missing_ok=True)


def _read(folder: Path, name: str, publication: Publication) -> pl.DataFrame:
    path = folder / f"{name}.parquet"
    try:
        piece = pl.read_parquet(path, glob=False)
        sound = digest_of_frame(piece) == name
    except (OSError, pl.exceptions.PolarsError, TypeError):
        sound = False
    if not sound:
        raise PublicationError(
            f"publication {publication.name} of {publication.record.policy}: {FOLDER}/{path.name} "
            "is missing or was changed; restore it from a backup"
        )
    return piece
