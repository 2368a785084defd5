"""Margins set by hand, as the ledger tells them: who set what, until when, and what holds now.

An override is a line of the same ledger that records promotions, so that it is hash-chained like
them, and ends by itself at the time that was given with it, or by another line. Nothing else keeps
a record: what holds at a moment is read from the lines each time.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from margincast.core.errors import InputError, did_you_mean
from margincast.core.types import SIDES
from margincast.margin.explanation import percent
from margincast.margin.override import ACTIONS, Override
from margincast.margin.rounding import exact
from margincast.margin.schedule import tiers_for
from margincast.serving.champion import moment_of_use
from margincast.serving.ledger import Ledger
from margincast.serving.ledger_line import LedgerEntry
from margincast.serving.scored import policy_hash
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy


@dataclass(frozen=True)
class RecordedOverride:
    """An override, and how it ended.

    Attributes:
        policy: name of the policy it is for.
        override: what was set.
        who: set it.
        ended: the line that ended it before its time; None where there is none.
    """

    policy: str
    override: Override
    who: str
    ended: LedgerEntry | None

    def in_force(self, moment: datetime) -> bool:
        """Whether it holds at a moment."""
        over = self.ended is not None and self.ended.instant <= moment
        return self.override.begins <= moment < self.override.expires and not over

    def holds_between(self, start: datetime, end: datetime) -> bool:
        """Whether it holds at any moment of a period, its end left out."""
        over = self.override.expires
        if self.ended is not None:
            over = min(over, self.ended.instant)
        return self.override.begins < end and over > start

    def state(self, moment: datetime) -> str:
        """Say whether it holds at a moment, in words."""
        if self.ended is not None and self.ended.instant <= moment:
            return f"ended by {self.ended.who} at {self.ended.instant:%F %H:%M} UTC"
        if moment >= self.override.expires:
            return f"expired at {self.override.expires:%F %H:%M} UTC: no effect any more"
        return "in force"


@dataclass(frozen=True)
class Wish:
    """What somebody asks to be set by hand; see :class:`~margincast.margin.override.Override`."""

    action: str
    mmr: float | None
    symbol: str | None
    side: str | None
    tier: int | None
    approver: str
    expires: datetime


def recorded_overrides(
    entries: Sequence[LedgerEntry], policy: str | None = None
) -> tuple[RecordedOverride, ...]:
    """Return all overrides ever set, oldest first.

    Args:
        entries: of the ledger, oldest first.
        policy: name of a policy; None for those of all.
    """
    ends = {
        int(entry.details["line"]): entry
        for entry in entries
        if entry.kind == "margin override end"
    }
    found = []
    for entry in entries:
        if entry.kind != "margin override" or policy not in {None, entry.details["policy"]}:
            continue
        details = entry.details
        override = Override(
            line=entry.number,
            action=details["action"],
            mmr=math.nan if details["mmr"] is None else float(details["mmr"]),
            symbol=details["symbol"],
            side=details["side"],
            tier=details["tier"],
            reason=entry.why,
            approver=details["approver"],
            begins=entry.instant,
            expires=datetime.fromisoformat(details["expires"]),
        )
        found.append(
            RecordedOverride(details["policy"], override, entry.who, ends.get(entry.number))
        )
    return tuple(found)


def overrides_at(
    entries: Sequence[LedgerEntry], policy: MarginPolicy, moment: datetime
) -> tuple[Override, ...]:
    """Return a policy's overrides in force at a moment, oldest first."""
    recorded = recorded_overrides(entries, policy.name)
    return tuple(one.override for one in recorded if one.in_force(moment))


def set_override(
    ledger: Ledger,
    policy: MarginPolicy,
    schedule: BaseSchedule,
    wish: Wish,
    *,
    contracts: Collection[str],
    who: str,
    why: str,
    now: datetime | None = None,
) -> LedgerEntry:
    """Set a margin by hand, on the record.

    Args:
        ledger: of the workspace.
        policy: the margin policy.
        schedule: its base schedule.
        wish: what is asked for.
        contracts: those that are known.
        who: sets it.
        why: the reason.
        now: the time; the clock's if not given.

    Raises:
        InputError: the wish cannot be met: over before it begins, approved by who asks, an unknown
            contract or tier, a rate off the grid, above the cap, or below what it may be.
        LedgerError: the ledger does not verify.
    """
    with ledger.writing() as writer:
        moment = moment_of_use(writer.entries, now)
        _require_leave(wish, who, moment)
        _require_subject(wish, schedule, contracts)
        _require_rate(wish, policy)
        rate = {"raise": "raised to", "fix": "fixed at", "lift": "without a speed limit on rises"}
        what = " ".join(
            text
            for text in (
                f"margin of {policy.name}:",
                wish.symbol or "all contracts",
                wish.side,
                None if wish.tier is None else f"tier {wish.tier}",
                rate[wish.action],
                None if wish.mmr is None else percent(wish.mmr),
                f"until {wish.expires:%F %H:%M} UTC",
            )
            if text is not None
        )
        return writer.append(
            kind="margin override",
            who=who,
            what=what,
            why=why,
            # what it changes: the policy and the schedule in force
            evidence_digest=policy_hash(policy, schedule),
            details={
                "policy": policy.name,
                "action": wish.action,
                "mmr": wish.mmr,
                "symbol": wish.symbol,
                "side": wish.side,
                "tier": wish.tier,
                "approver": wish.approver.strip(),
                "expires": wish.expires.isoformat(),
            },
            when=moment,
        )


def end_override(
    ledger: Ledger, line: int, *, who: str, why: str, now: datetime | None = None
) -> LedgerEntry:
    """End an override before its time.

    Args:
        ledger: of the workspace.
        line: of the ledger that set it.
        who: ends it.
        why: the reason.
        now: the time; the clock's if not given.

    Raises:
        InputError: no such override, or it is over already.
        LedgerError: the ledger does not verify.
    """
    with ledger.writing() as writer:
        moment = moment_of_use(writer.entries, now)
        recorded = {one.override.line: one for one in recorded_overrides(writer.entries)}
        if line not in recorded:
            running = [str(n) for n, one in recorded.items() if one.in_force(moment)]
            raise InputError(
                f"line {line} of the ledger sets no margin; overrides in force: "
                f"{', '.join(running) or 'none'} (margincast override list)"
            )
        found = recorded[line]
        if not found.in_force(moment):
            raise InputError(f"the override of line {line} is over: {found.state(moment)}")
        return writer.append(
            kind="margin override end",
            who=who,
            what=f"margin of {found.policy}: override of line {line} ended "
            f"({found.override.subject}, {found.override.text})",
            why=why,
            evidence_digest=writer.entries[line - 1].hash,
            details={"policy": found.policy, "line": line},
            when=moment,
        )


def _require_leave(wish: Wish, who: str, moment: datetime) -> None:
    if not wish.approver.strip():
        raise InputError("an override needs the name of who approves it (--approver)")
    if wish.approver.strip().casefold() == who.strip().casefold():
        raise InputError(
            f"an override is approved by another person than who asks for it; both are {who!r}"
        )
    if wish.expires <= moment:
        raise InputError(
            f"an override must end in the future, found {wish.expires:%F %H:%M} UTC; it is "
            f"{moment:%F %H:%M} UTC now"
        )


def _require_subject(wish: Wish, schedule: BaseSchedule, contracts: Collection[str]) -> None:
    if wish.side is not None and wish.side not in SIDES:
        raise InputError(f"{wish.side!r} is no side; sides are {', '.join(SIDES)}")
    if wish.symbol is not None and wish.symbol not in contracts:
        raise InputError(
            f"unknown contract {wish.symbol!r}{did_you_mean(wish.symbol, contracts)}; known are "
            "those that the base schedule names and those that the champion was trained on"
        )
    if wish.tier is None:
        return
    if wish.symbol is None:
        raise InputError("a tier is one of a contract; name the contract too")
    count = len(tiers_for(schedule, wish.symbol))
    if not 1 <= wish.tier <= count:
        raise InputError(f"{wish.symbol} has tiers 1 to {count}, found {wish.tier}")


def _require_rate(wish: Wish, policy: MarginPolicy) -> None:
    if wish.action not in ACTIONS:
        raise InputError(f"{wish.action!r} is no override; there are {', '.join(ACTIONS)}")
    if wish.action == "lift":
        if wish.mmr is not None:
            raise InputError("lifting the speed limit takes no rate")
        if policy.speed is None:
            raise InputError(f"policy {policy.name} has no speed limit to lift ([speed])")
        return
    if wish.mmr is None or not math.isfinite(wish.mmr):
        raise InputError("give the rate as a fraction, for example 0.05 for 5 %")
    limits, liquidation = policy.limits, policy.liquidation
    fees = liquidation.taker_fee_rate + liquidation.liquidation_fee_rate
    least = max(limits.mmr_floor, fees)
    if wish.mmr > limits.mmr_cap:
        raise InputError(
            f"an MMR of {percent(wish.mmr)} lies above limits.mmr_cap = {percent(limits.mmr_cap)} "
            f"of policy {policy.name}; rates are fractions: 0.05 is 5 %"
        )
    if wish.mmr < least:
        raise InputError(
            f"an MMR of {percent(wish.mmr)} lies below {percent(least)}, the larger of "
            f"limits.mmr_floor and the fees of liquidation of policy {policy.name}"
        )
    if (exact(wish.mmr) / exact(policy.rounding.mmr_step)).denominator != 1:
        raise InputError(
            f"an MMR must be a multiple of rounding.mmr_step = {policy.rounding.mmr_step:g}, found "
            f"{wish.mmr:g}"
        )
