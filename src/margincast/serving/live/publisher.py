"""Numbered publications of live decisions.

Responsible for a live margin being on the record like any other. Where somebody published in the
meantime, by hand or by the nightly job, his publication stands, and the engine goes on from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from margincast.margin.override import Override
from margincast.serving.live.maker import Maker
from margincast.serving.publications.store import PublicationStore
from margincast.serving.scored import Scored


@dataclass
class Publisher:
    """Publishes the levels of decisions, and goes on from what others published.

    Attributes:
        store: of the policy.
        maker: that makes the levels.
        bundle_digest: identity of the present champion's bundle.
        by: who publishes.
        told: of a publication that was made by somebody else.
        follows: number of the publication that the maker goes on from.
    """

    store: PublicationStore
    maker: Maker
    bundle_digest: Callable[[], str]
    by: str
    told: Callable[[str], None]
    follows: int

    def __call__(self, scored: Scored, overrides: Sequence[Override]) -> int:
        """Publish; returns the number in force.

        Raises:
            PublishedMeanwhileError: somebody was faster; :meth:`caught_up` goes on from it.
            OSError: it cannot be written.
            InputError: it cannot be published.
        """
        made = self.store.publish(
            scored,
            policy=self.maker.policy,
            schedule=self.maker.schedule,
            overrides=overrides,
            by=self.by,
            reason="live decision",
            follows=self.follows,
            bundle_digest=self.bundle_digest(),
        )
        self.follows = made.number
        return made.number

    def caught_up(self) -> int | None:
        """Go on from what somebody else published since; returns its number, None for nothing.

        Raises:
            PublicationError: publications do not verify.
        """
        if self.store.last_number <= self.follows:
            return None
        latest = self.store.latest()
        assert latest is not None
        self.told(
            f"publication {latest.number} was made by {latest.record.by}; margins go on from it"
        )
        self.maker.go_on_from(latest.remembered)
        self.follows = latest.number
        return self.follows
