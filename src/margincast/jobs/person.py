"""Who acts: the name that goes into the ledger beside every change of who sets margins."""

import getpass
import os


def acting_person(who: str | None = None) -> str:
    """Name the person or service that runs a command; containers may have a number only."""
    if who is not None and who.strip():
        return who.strip()
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
