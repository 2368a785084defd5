"""The errors a user can meet, each of which becomes one message and one exit code.

An error says what was found, what is allowed and what to do next. No number of the margin is
computed here; these are the reasons why one was not.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class MargincastError(Exception):
    """Base of all errors raised on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 2


class InputError(MargincastError):
    """The input (data, path or argument) cannot be used: says what, where, and what to do."""


class SpecError(InputError):
    """A TOML spec is wrong; carries every problem found, not only the first."""

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        count = len(self.problems)
        noun = "problem" if count == 1 else "problems"
        super().__init__(f"{source}: {count} {noun} in this spec:\n{lines}")

    def __reduce__(self) -> tuple[type["SpecError"], tuple[str, tuple[str, ...]]]:
        """Travel between processes whole."""
        return type(self), (self.source, self.problems)


class InsufficientHistoryError(InputError):
    """Too little history for a level; says how much there is and how much is needed."""


class BundleError(InputError):
    """A model bundle is incomplete, of another format, or was changed after it was written."""


class LedgerError(InputError):
    """The promotion ledger does not verify; names the first line that was changed."""


class PublicationError(InputError):
    """A publication is incomplete, of another format, or was changed after it was made."""


class CheckFailedError(MargincastError):
    """A gate or a check said no: the command worked, the answer is negative (exit code 1)."""

    exit_code = 1


class PublishedMeanwhileError(CheckFailedError):
    """Somebody else published first: the table does not follow what is in force now."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known name, or an empty string.

    >>> did_you_mean("horizn", ["horizon", "levels"])
    " (did you mean 'horizon'?)"
    """
    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
