"""Freshness: whether what margins are made of, and the margins themselves, are of today."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import pandas as pd

from margincast.core.time import format_duration
from margincast.serving.monitoring.alarm import Check
from margincast.specs.monitor import Freshness

_NAMED = 3


def data_check(
    newest: Mapping[str, datetime],
    at: datetime,
    max_age: timedelta,
    limits: Freshness,
    subject: str,
) -> Check:
    """Check the age of every contract's newest data.

    Args:
        newest: time of the newest decision by contract.
        at: the moment.
        max_age: older data is stale, by the policy.
        limits: share of stale contracts that is allowed.
        subject: what is watched.
    """
    old = {symbol: at - seen for symbol, seen in newest.items() if at - seen > max_age}
    if not newest:
        return Check("data too old", subject, 1.0, limits.stale_contracts_max, "no data at all")
    text = (
        f"{len(old)} of {len(newest)} contracts have no data of the last "
        f"{format_duration(max_age)}; the newest of all is of {max(newest.values()):%F %H:%M} UTC"
    )
    if old:
        longest = sorted(old, key=lambda symbol: (-old[symbol], symbol))[:_NAMED]
        text += f"; the oldest: {', '.join(longest)}"
    return Check("data too old", subject, len(old) / len(newest), limits.stale_contracts_max, text)


def publication_checks(
    levels: pd.DataFrame | None,
    published_at: datetime | None,
    at: datetime,
    *,
    problem: str,
    limits: Freshness,
    subject: str,
) -> list[Check]:
    """Check the latest publication.

    Args:
        levels: its margin levels; None where nothing has been published.
        published_at: when; None likewise.
        at: the moment.
        problem: why publications cannot be read; empty where they can.
        limits: what raises an alarm.
        subject: what is watched.
    """
    hour = timedelta(hours=1)
    allowed = limits.publication_age_max / hour
    readable = Check(
        "publications unreadable",
        subject,
        float(bool(problem)),
        0.0,
        problem or "every record follows the one before it, and the latest publication verifies",
    )
    if levels is None or published_at is None:
        nothing = "nothing has been published" if not problem else "publications cannot be read"
        return [
            readable,
            Check("publication too old", subject, None, allowed, nothing),
            Check("fallback", subject, None, limits.fallback_max, nothing),
        ]
    fallback = levels["status"] == "fallback"
    age = (at - published_at) / hour
    text = f"{int(fallback.sum())} of {len(levels)} published margins are a fallback"
    if fallback.any():
        text += f"; most often: {levels.loc[fallback, 'reason'].value_counts().index[0]}"
    return [
        readable,
        Check(
            "publication too old",
            subject,
            age,
            allowed,
            f"the latest was published at {published_at:%F %H:%M} UTC, {age:.1f} hours ago",
        ),
        Check("fallback", subject, float(fallback.mean()), limits.fallback_max, text),
    ]
