"""The moments of publications: forward only, and never ahead of the clock.

Responsible for the order in which margins may come into force, and for a way back when a clock was
wrong.
"""

from datetime import datetime, timedelta

from margincast.core.errors import InputError
from margincast.serving.publications.record import Kind, Record

CLOCKS_DIFFER = timedelta(minutes=1)
"""Most by which the clock of who made margins may be ahead of the clock here."""


def require_its_time(at: datetime, clock: datetime, kind: Kind, last: Record | None) -> None:
    """Check that margins of a moment may be published.

    Nothing could follow a publication of a moment that has not come. Where a clock that was ahead
    has let one through, a revert may go back before it.

    Args:
        at: the moment, UTC.
        clock: the time now, UTC.
        kind: of act.
        last: the publication they would follow; None for the first.

    Raises:
        InputError: the moment has not come yet, lies before that of the last publication, or is
            the one of a revert that a score would undo.
    """
    if at > clock + CLOCKS_DIFFER:
        raise InputError(
            f"these margins are of {at:%F %H:%M} UTC, but it is {clock:%F %H:%M} UTC now: margins "
            "are not published ahead of their time; nothing was published: give an earlier --at, "
            "or mend the clock"
        )
    if last is None:
        return
    follows = (
        f"these margins are of {at:%F %H:%M} UTC, publication {last.number:06} is of "
        f"{last.at:%F %H:%M} UTC"
    )
    if at < last.at and last.at > clock + CLOCKS_DIFFER:
        if kind == "revert":
            return
        raise InputError(
            f"{follows}, which has not come yet: a clock was wrong. Put an earlier one in force "
            "again from now on, and score again after that: margincast publications revert N "
            "--at now --reason TEXT"
        )
    if at < last.at:
        raise InputError(
            f"{follows}: margins are not published backwards; to put earlier ones in force again "
            "use margincast publications revert"
        )
    if at == last.at and kind == "publish" and last.reverts_to is not None:
        raise InputError(
            f"{follows}, by which {last.by} went back to {last.reverts_to:06}: margins of the "
            "same moment would undo that without a limit on their speed; score a later moment, "
            "such as --at now"
        )
