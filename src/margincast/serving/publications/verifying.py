"""Everything that was ever published, read again: what is missing, and what was changed.

Responsible for finding damage before it is asked for. A reader checks what it reads and a publisher
what it builds on; nobody else looks at an old publication until a revert or a replay needs it.
"""

from margincast.core.errors import PublicationError
from margincast.serving.publications.decisions import require_decisions
from margincast.serving.publications.store import PublicationStore


def damages(store: PublicationStore) -> tuple[str, ...]:
    """Say what of a policy's publications does not verify.

    Args:
        store: of the policy's publications, one that has read nothing yet: what is in memory says
            nothing of the disk.

    Returns:
        A sentence a publication that is missing or was changed, then what breaks the chain; empty
        where everything is as it was published.
    """
    found: dict[str, None] = {}
    sound: set[str] = set()
    try:
        for number in range(1, store.last_number + 1):
            try:
                require_decisions(store.read(number), sound)
            except PublicationError as error:
                found[str(error)] = None
        store.records()
    except PublicationError as error:
        found[str(error)] = None
    return tuple(found)
