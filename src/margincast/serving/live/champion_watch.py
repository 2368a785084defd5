"""Who is champion now, and whether he may be believed: looked at while margins are made.

Responsible for the faults of the model: none, one without leave, a changed bundle, a registry that
does not answer; and for having the next champion ready beside the present one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from margincast.core.errors import BundleError, LedgerError, MargincastError
from margincast.serving.champion import Champion, FailedGateError
from margincast.serving.live.faults import Fault
from margincast.serving.live.model import LiveModel
from margincast.serving.manifest import verify_bundle
from margincast.training.tracking import StoreUnreachableError

Resolve = Callable[[], Champion]
Load = Callable[[Champion], LiveModel]
"""Loads a champion and lets it go through the past; its errors say why it cannot be followed."""

PATIENCE_US = 300_000
"""Time that a registry which is well may take for an answer, beside the outage that is allowed."""
TRIED_AGAIN_US = 60_000_000
"""After so long a champion that could not be loaded is tried again."""


@dataclass
class ChampionWatch:
    """The present champion and the faults of it.

    Attributes:
        resolve: asks registry and ledger.
        load: makes a model that can be followed.
        longest_outage: time for which MLflow may be unreachable.
        told: of what is wrong in full, with the folders that a margin's reason does not name.
        serving: the champion that margins are made with.
        next: one that was loaded and waits to take its place.
        faults: what was wrong at the last look.
    """

    resolve: Resolve
    load: Load
    longest_outage: timedelta
    told: Callable[[str], None]
    serving: Champion | None = None
    next: LiveModel | None = None
    faults: dict[Fault, str] = field(default_factory=dict)
    _down_since_us: int | None = None
    _detail: str = ""
    _asked_us: int | None = None
    _refused: tuple[Champion, int, MargincastError] | None = None

    def faults_at(self, now_us: int) -> dict[Fault, str]:
        """Return what is wrong now, also while the registry lets a look wait for its answer."""
        asked_us = self._asked_us
        if asked_us is None or now_us - asked_us <= self._longest_us + PATIENCE_US:
            return self.faults
        return {Fault.STORE_DOWN: "the registry does not answer", **self.faults}

    @property
    def _longest_us(self) -> int:
        return self.longest_outage // timedelta(microseconds=1)

    def look(self, now_us: int) -> None:
        """Look once; what is found stands until the next look."""
        faults: dict[Fault, str] = {}
        detail = ""
        try:
            if self.serving is not None:
                # before the registry is asked: it would fetch a changed bundle anew, silently
                verify_bundle(self.serving.bundle_directory, self.serving.version.bundle_digest)
            self._asked_us = now_us
            found = self.resolve()
            self._asked_us = None
            detail = found.reason
            self._down(now_us, faults, down=found.from_last_good)
            if self.serving is None or found.version != self.serving.version:
                model = self._loaded(found, now_us)
                # the digest that is recorded must not be that of the model before
                self.serving = found
                self.next = model
        except FailedGateError as error:
            faults[Fault.FAILED_GATE] = detail = str(error)
        except BundleError as error:
            detail = str(error)
            faults[Fault.TAMPERED_BUNDLE] = "its files are not those that were registered"
            self._fetch_again()
        except StoreUnreachableError as error:
            detail = str(error)
            self._down(now_us, faults, down=True)
        except LedgerError as error:
            detail = str(error)
            faults[Fault.NO_CHAMPION] = "the ledger does not verify"
        except MargincastError as error:
            faults[Fault.NO_CHAMPION] = detail = str(error)
        except OSError as error:
            detail = str(error)
            faults[Fault.NO_CHAMPION] = f"its files cannot be read: {error.strerror}"
        self._asked_us = None
        if detail != self._detail and detail:
            self.told(detail)
        self._detail = detail
        self.faults = faults

    def _down(self, now_us: int, faults: dict[Fault, str], *, down: bool) -> None:
        if not down:
            self._down_since_us = None
            return
        if self._down_since_us is None:
            self._down_since_us = now_us
        if now_us - self._down_since_us >= self._longest_us:
            faults[Fault.STORE_DOWN] = "the registry does not answer"

    def _loaded(self, found: Champion, now_us: int) -> LiveModel:
        """Load a champion; one that cannot be is not tried at every look, which is much work."""
        refused = self._refused
        if refused is not None and refused[0].version == found.version:
            _, since_us, error = refused
            if now_us - since_us < TRIED_AGAIN_US:
                raise error
        try:
            model = self.load(found)
        except MargincastError as error:
            self._refused = (found, now_us, error)
            raise
        self._refused = None
        return model

    def _fetch_again(self) -> None:
        """Have a changed bundle replaced by the registry's, if that one is whole."""
        try:
            self.resolve()
        except MargincastError:
            return  # the next look says what is wrong
