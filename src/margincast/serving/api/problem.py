"""Problem details (RFC 9457): how the service says no.

Responsible for every refusal having one form and saying what was found, what is allowed and what
to do, and never where a file lies or which line of code it was.
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

MEDIA_TYPE = b"application/problem+json"
Headers = Sequence[tuple[bytes, bytes]]


class Refusal(Exception):  # noqa: N818  # an answer, not an error of the program
    """A request that is not answered with what it asks for.

    Args:
        status: of HTTP, 4xx or 503.
        detail: what was found and what is allowed.
        headers: of the answer, beside those of all answers.
        problems: each problem of a body or query, where there are several.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Headers = (),
        problems: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.headers, self.problems = tuple(headers), tuple(problems)

    @property
    def body(self) -> bytes:
        """The problem document."""
        document: dict[str, object] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.problems:
            document["problems"] = self.problems
        return json.dumps(document, separators=(",", ":")).encode()
