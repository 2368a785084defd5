"""Going back to an earlier publication: its margins in force again, under a new number.

Responsible for refusing to go back to margins that the policy in force today would not allow, and
for what the policy remembers of the act: the rates that are in force again, from that moment on.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from margincast.core.errors import CheckFailedError, InputError
from margincast.margin.background import Remembered
from margincast.margin.chain import Memory
from margincast.margin.explanation import percent
from margincast.margin.notice import InForce
from margincast.margin.override import Override, covering, least_rates
from margincast.serving.publications.publication import Publication
from margincast.serving.publications.store import PublicationStore
from margincast.serving.scored import Scored
from margincast.specs.serving import MarginPolicy

_MOST_NAMED = 5


def revert(
    store: PublicationStore,
    number: int,
    *,
    at: datetime | None,
    overrides: Sequence[Override],
    by: str,
    reason: str,
    now: datetime | None = None,
) -> Publication:
    """Put the margins of an earlier publication in force again.

    Args:
        store: of the policy's publications.
        number: of the one to go back to.
        at: moment from which they are in force; that of the last publication if not given.
        overrides: margins set by hand that are in force now.
        by: who reverts.
        reason: why.
        now: the time; the clock's if not given.

    Raises:
        CheckFailedError: the old margins break what holds today; see :func:`problems_of`.
        InputError: there is no such publication, or it is the one in force.
        PublicationError: one of the two does not verify.
    """
    old, last = store.read(number), store.latest()
    assert last is not None, "a publication was read"
    if old.number == last.number:
        raise InputError(f"publication {old.name} is the one in force; nothing to go back from")
    problems = problems_of(old, last, overrides)
    if problems:
        more = f"; and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
        raise CheckFailedError(
            f"publication {old.name} is not put in force again: "
            f"{'; '.join(problems[:_MOST_NAMED])}{more}. Nothing was published; score and publish "
            "instead"
        )
    moment = last.at if at is None else at.astimezone(UTC)
    return store.publish(
        reverted(old, last, moment),
        policy=old.policy,
        schedule=old.schedule,
        overrides=old.overrides,
        by=by,
        reason=reason,
        follows=last.number,
        kind="revert",
        reverts_to=old.number,
        bundle_digest=old.record.bundle_digest,
        now=now,
    )


def problems_of(
    old: Publication, last: Publication, overrides: Sequence[Override]
) -> tuple[str, ...]:
    """Say why an old publication may not follow the last one.

    Its rates must lie between what the policy and base schedule in force today allow: at least the
    floor, the multiplier's floor on the base schedule, the fees and the cost of liquidation as last
    published; at most the cap. It must have every contract that has margins today, with the same
    tiers, and may not lie below a margin set by hand that is in force. A contract that was delisted
    since does not come back.

    Args:
        old: to go back to.
        last: in force.
        overrides: margins set by hand that are in force now.
    """
    problems = [
        f"{symbol} has margins now and had none then"
        for symbol in sorted(set(last.symbols) - set(old.symbols))
    ]
    tiers = dict(zip(old.rows.symbols, old.rows.tiers, strict=True))
    edges = {
        symbol: [tier.cap_usd for tier in own]
        for symbol, own in zip(last.rows.symbols, last.rows.tiers, strict=True)
    }
    problems += [
        f"the tiers of {symbol} have changed since"
        for symbol, caps in edges.items()
        if symbol in tiers and [tier.cap_usd for tier in tiers[symbol]] != caps
    ]
    if problems:
        return tuple(problems)
    key = ["symbol", "side", "tier"]
    then = old.levels.set_index(key)["mmr"]
    mmr = then.loc[pd.MultiIndex.from_frame(last.levels[key])].to_numpy(np.float64)
    return _rates_refused(mmr, last, last.policy, overrides)


def _rates_refused(
    mmr: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    last: Publication,
    policy: MarginPolicy,
    overrides: Sequence[Override],
) -> tuple[str, ...]:
    rows, levels = last.rows, last.levels
    least = least_rates(rows.base_mmr, levels["liquidation_cost"].to_numpy(np.float64), policy)
    behind = covering(rows, overrides)
    by_hand = np.array([one.mmr for one in overrides] + [np.nan])[behind]
    found = []
    for row in np.flatnonzero((mmr < least) | (mmr > policy.limits.mmr_cap) | (mmr < by_hand)):
        level = levels.iloc[int(row)]
        which = f"{level['symbol']} {level['side']} tier {level['tier']} at {percent(mmr[row])}"
        if mmr[row] < least[row]:
            found.append(f"{which} lies below its floor of {percent(least[row])} today")
        elif mmr[row] > policy.limits.mmr_cap:
            found.append(f"{which} lies above the cap of {percent(policy.limits.mmr_cap)} today")
        else:
            line = overrides[int(behind[row])].line
            found.append(
                f"{which} lies below {percent(by_hand[row])}, set by hand (line {line} of the "
                "ledger); end that override first"
            )
    return tuple(found)


def reverted(old: Publication, last: Publication, at: datetime) -> Scored:
    """Return an old publication's margins as they are put in force again.

    The rates and all that is said of them stay; they are in force at the moment, without notice,
    and are what the policy remembers as published. Contracts that have no margins any more are left
    out.

    Args:
        old: to go back to.
        last: in force until then.
        at: the moment, UTC.
    """
    moment = np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us")
    listed = np.isin(old.symbols, last.symbols)
    rows = np.flatnonzero(listed[old.rows.contract])
    then = old.levels.iloc[rows].reset_index(drop=True)
    levels = then.assign(
        effective_from=pd.Series(pd.Timestamp(at), then.index).dt.as_unit("us"),
        mmr_in_force=then["mmr"],
    )
    inputs = old.inputs.contracts(np.flatnonzero(listed), rows)
    return Scored(
        {str(name): column for name, column in levels.items()},
        replace(inputs, background=replace(inputs.background, at=moment)),
        _after(then, last.remembered(old.rows).rows(rows), moment),
        old.origin,
    )


def _after(then: pd.DataFrame, before: Remembered, at: np.datetime64) -> Remembered:
    """Return what the policy remembers: the rates in force again, as if it had made them."""
    memory, mmr = before.memory, then["mmr"].to_numpy(np.float64)
    of_forecast = (then["status"] == "ok").to_numpy()
    limited = np.where(of_forecast, mmr, memory.limited)
    fees = before.fee_multiplier
    if "fee_multiplier" in then:
        fees = then["fee_multiplier"].to_numpy(np.float64)
    earlier = tuple((moment, rates) for moment, rates in memory.recent if moment < at)
    # a publication ahead of its time leaves nothing that is later than the revert
    limited_at = np.where(memory.limited_at > at, at, memory.limited_at)
    return Remembered(
        Memory(
            at,
            memory.buffer,
            limited,
            np.where(of_forecast, at, limited_at),
            mmr,
            (*earlier, (at, limited)),
        ),
        InForce(mmr, ()),
        fees,
    )
