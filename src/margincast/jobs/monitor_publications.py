"""What was published, as far as a monitor needs it: the latest, and margins still to be judged.

Publications of years are not read every hour: those whose bets are settled are looked at only in
their records, which form one chain.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from margincast.core.errors import MargincastError
from margincast.core.time import parse_instant
from margincast.serving.monitoring.tally import Tally
from margincast.serving.publications.record import Record
from margincast.serving.publications.store import PublicationStore, store_of
from margincast.specs.serving import MarginPolicy


@dataclass(frozen=True)
class Publications:
    """What is known of a policy's publications at a moment.

    Attributes:
        levels: of the latest; None where nothing was published.
        published_at: when it was; None likewise.
        subject: policy and model that the latest is of.
        margins: first tiers of the publications of that subject that are still to be judged, the
            oldest first, with ``published_at``; None where there is none.
        problem: why publications cannot be read; empty where they can.
    """

    levels: pd.DataFrame | None = None
    published_at: datetime | None = None
    subject: str = ""
    margins: pd.DataFrame | None = None
    problem: str = ""


NOTHING_PUBLISHED = Publications()


def published_since(
    workspace: Path,
    policy: MarginPolicy,
    at: datetime,
    *,
    window: timedelta,
    before: Tally | None,
) -> Publications:
    """Read what was published up to a moment, as far as it is still to be judged.

    Args:
        workspace: the operator's folder.
        policy: the margin policy.
        at: the moment.
        window: of rolling coverage.
        before: tally of margins so far; None for none.
    """
    try:
        store = store_of(workspace, policy.name)
        records = [record for record in store.records() if record.published_at <= at]
        if not records:
            return NOTHING_PUBLISHED
        latest = store.read(records[-1].number)
        subject = _subject(latest.record)
        since = _since(before, subject, at - window - policy.model.horizon)
        own = [
            record
            for record in records
            if _subject(record) == subject and (since is None or record.at >= since)
        ]
        return Publications(
            latest.levels, latest.published_at, subject, _first_tiers(store, own, since)
        )
    except MargincastError as error:
        return Publications(problem=str(error))


def _subject(record: Record) -> str:
    return f"{record.policy} {record.origin.policy_hash[:12]} by {record.origin.model_version}"


def _since(before: Tally | None, subject: str, window_start: datetime) -> datetime | None:
    """Return the first decision that matters; None where all do, because nothing is settled."""
    if before is None or before.subject != subject or np.isnat(before.last):
        return None
    settled = parse_instant(str(before.last))
    return min(settled, window_start)


def _first_tiers(
    store: PublicationStore, records: list[Record], since: datetime | None
) -> pd.DataFrame | None:
    parts = []
    for record in records:
        levels = store.read(record.number).levels
        first = levels[levels["tier"] == 1].assign(published_at=record.published_at)
        # margins of earlier decisions were judged with the publications before
        parts.append(first if since is None else first[first["data_as_of"] >= since])
    return pd.concat(parts, ignore_index=True) if parts else None
