"""The answers about margins, as bytes: made once a snapshot and contract, then only handed out.

Responsible for what a caller reads of a table of margin levels, and for a request costing
microseconds. The levels of a side that did not change from one snapshot to the next are not
written again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from margincast.core.errors import InputError
from margincast.core.types import Side
from margincast.margin.account import PositionTiers
from margincast.margin.liquidation_price import Requirement
from margincast.margin.maintenance import maintenance_amounts
from margincast.margin.rounding import exact
from margincast.serving.snapshot import Header, Row, SideLevels, Snapshot, number_or_none

Json = dict[str, Any]


class View:
    """A snapshot as it is answered from.

    Args:
        snapshot: the margins.
        before: the view of the snapshot before, whose unchanged parts are taken over.
    """

    def __init__(self, snapshot: Snapshot, before: "View | None" = None) -> None:
        self.snapshot = snapshot
        header = snapshot.header
        self.etag = f'"{header.version}{_mark(header)}"'.encode()
        self.publication: Json = {
            "number": header.number,
            "revision": header.revision,
            "published_at": written(header.published_at),
        }
        self._head = encode(self.publication)
        self._bodies: dict[tuple[str, str], bytes] = {}
        self._sides: dict[SideLevels, bytes] = {}
        self._tiers: dict[SideLevels, Both] = {}
        if before is not None:
            own = {side for sides in snapshot.contracts.values() for side in sides.values()}
            kept = before._sides.items()  # noqa: SLF001  # the same class
            self._sides = {side: text for side, text in kept if side in own}
            known = before._tiers.items()  # noqa: SLF001  # likewise
            self._tiers = {side: both for side, both in known if side in own}

    def margins(self, symbol: str, side: str = "", notional_usd: str = "") -> bytes | None:
        """Return the margins of a contract, or None where it is unknown.

        Args:
            symbol: the contract.
            side: long or short; empty: both.
            notional_usd: of a position, as a decimal; empty: none is asked about.

        Raises:
            InputError: the position lies above the last tier.
        """
        if notional_usd:
            sides = self.sides(symbol, side)
            positions = [position_of(one, self._both(one), notional_usd) for one in sides]
            return self._body(symbol, sides, encode(positions)) if sides else None
        body = self._bodies.get((symbol, side))
        if body is None:
            sides = self.sides(symbol, side)
            if not sides:
                return None
            body = self._bodies[symbol, side] = self._body(symbol, sides, b"[]")
        return body

    def sides(self, symbol: str, side: str = "") -> list[SideLevels]:
        """Return the sides of a contract that are asked for; none where it is unknown."""
        found = self.snapshot.contracts.get(symbol, {})
        return [one for name, one in found.items() if side in ("", name)]

    def table(self, symbols: Iterable[str], side: str = "", tier: int | None = None) -> bytes:
        """Return the levels of several known contracts as a list.

        Args:
            symbols: the contracts.
            side: long or short; empty: both.
            tier: only this tier, of sides that have it; None: all.
        """

        def of_side(levels: SideLevels) -> bytes:
            return self._side(levels) if tier is None else encode(side_of(levels, tier))

        entries = (
            b'{"symbol":%b,"sides":[%b]}'
            % (encode(symbol), b",".join(of_side(one) for one in self.sides(symbol, side)))
            for symbol in symbols
        )
        return b"[%b]" % b",".join(entries)

    def _body(self, symbol: str, sides: Iterable[SideLevels], positions: bytes) -> bytes:
        return b'{"symbol":%b,"publication":%b,"sides":[%b],"positions":%b}' % (
            encode(symbol),
            self._head,
            b",".join(self._side(one) for one in sides),
            positions,
        )

    def _both(self, levels: SideLevels) -> "Both":
        """Return the tiers of a side, made exact once."""
        both = self._tiers.get(levels)
        if both is None:
            both = self._tiers[levels] = Both.of(levels)
        return both

    def _side(self, levels: SideLevels) -> bytes:
        text = self._sides.get(levels)
        if text is None:
            text = self._sides[levels] = encode(side_of(levels))
        return text


def _mark(header: Header) -> str:
    """Return what tells snapshots of one version apart: live engines count anew when they start."""
    if not header.revision and not header.problem:
        return ""
    text = f"{header.published_at.isoformat()} {header.problem}"
    return "-" + hashlib.blake2s(text.encode(), digest_size=4).hexdigest()


def side_of(levels: SideLevels, tier: int | None = None) -> Json:
    """Return what a caller reads of a contract's side, of all tiers or of one."""
    first = levels.rows[0]
    return {
        "side": levels.side,
        "status": "fallback" if levels.is_fallback else "ok",
        "forecast": number_or_none(first["forecast"]),
        "data_as_of": written(first["data_as_of"]),
        "model_version": first["model_version"],
        "tiers": [_tier(row) for row in levels.rows if tier in (None, row["tier"])],
    }


def _tier(row: Row) -> Json:
    return {
        "tier": row["tier"],
        "floor_usd": row["tier_floor_usd"],
        "cap_usd": row["tier_cap_usd"],
        "mmr": row["mmr"],
        "imr": row["imr"],
        "max_leverage": row["max_leverage"],
        "maintenance_amount_usd": row["maintenance_amount"],
        "multiplier": row["multiplier"],
        "effective_from": written(row["effective_from"]),
        "mmr_in_force": row["mmr_in_force"],
        "base_mmr": row["base_mmr"],
        "binding_rule": row["binding_rule"],
        "reason": row["reason"],
    }


@dataclass(frozen=True)
class Both:
    """A side's tiers as the account arithmetic takes them.

    Attributes:
        published: by the rates of the publication, charged from ``effective_from`` on.
        in_force: by those that are charged until then.
    """

    published: PositionTiers
    in_force: PositionTiers

    @classmethod
    def of(cls, levels: SideLevels) -> "Both":
        """Make the tiers of a side exact."""
        floors, caps, imrs = (
            levels.values(name) for name in ("tier_floor_usd", "tier_cap_usd", "imr")
        )
        made = []
        for rates in (levels.values("mmr"), levels.values("mmr_in_force")):
            amounts = maintenance_amounts(floors, rates)
            requirement = Requirement(
                *(tuple(map(exact, values)) for values in (caps, rates, amounts))
            )
            made.append(PositionTiers(requirement, tuple(imrs)))
        return cls(*made)


def position_of(levels: SideLevels, both: Both, notional_usd: str) -> Json:
    """Return the margin of one position of a given notional.

    The initial margin takes the whole notional at the rate of its tier. ``in_force`` is charged
    until the tier's ``effective_from``, by the rates that stood before this publication.

    Args:
        levels: of the contract's side.
        both: its tiers.
        notional_usd: a decimal, zero or more.

    Raises:
        InputError: the notional lies above the last tier.
    """
    notional = Fraction(notional_usd)
    number = both.published.tier(notional)
    return {
        "side": levels.side,
        "notional_usd": float(notional),
        "tier": number + 1,
        "maintenance_margin_usd": float(both.published.maintenance.at(notional)),
        "initial_margin_usd": float(both.published.initial_usd(notional)),
        "maintenance_margin_in_force_usd": float(both.in_force.maintenance.at(notional)),
        "effective_from": written(levels.rows[number]["effective_from"]),
    }


def position_row(levels: SideLevels, notional_usd: float) -> Row:
    """Return the row of the tier in which a notional lies.

    Raises:
        InputError: it lies above the last tier.
    """
    for row in levels.rows:
        if notional_usd <= row["tier_cap_usd"]:
            return row
    raise InputError(
        f"a notional of {notional_usd:,.2f} USD lies above the last tier, which ends at "
        f"{levels.rows[-1]['tier_cap_usd']:,.0f} USD"
    )


def written(time: datetime | None) -> str | None:
    """Write a UTC time as JSON holds it (RFC 3339), or None."""
    return None if time is None else time.isoformat().replace("+00:00", "Z")


def encode(value: object) -> bytes:
    """Write JSON; a number that is none is an error here, not an answer."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def forecasts_of(levels: SideLevels) -> Json:
    """Return the forecast behind a side's levels."""
    first = levels.rows[0]
    return {
        "symbol": levels.symbol,
        "side": levels.side,
        "forecast": number_or_none(first["forecast"]),
        "data_as_of": written(first["data_as_of"]),
        "model_version": first["model_version"],
        "status": "fallback" if levels.is_fallback else "ok",
    }


def changes_of(now: Mapping[Side, SideLevels]) -> list[Json]:
    """Return what a listener is told of a contract: its rates, tier after tier."""
    return [
        {
            "side": side,
            "status": "fallback" if levels.is_fallback else "ok",
            "reason": levels.rows[0]["reason"],
            "forecast": number_or_none(levels.rows[0]["forecast"]),
            "mmrs": levels.values("mmr"),
            "imrs": levels.values("imr"),
            "multipliers": levels.values("multiplier"),
            "effective_from": [written(row["effective_from"]) for row in levels.rows],
        }
        for side, levels in now.items()
    ]
