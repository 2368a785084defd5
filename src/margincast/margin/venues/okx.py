"""OKX position tiers: the rate of a position's tier, on the whole position.

Sources: "Get position tiers", "Get instruments" and "Get mark price" (okx.com/docs-v5,
``GET /api/v5/public/position-tiers``, ``.../instruments``, ``.../mark-price``) for the keys; the
venue's help article "Tiered Maintenance Margin Ratio System" (360040581412) for the arithmetic: a
position lies in the tier of its number of contracts, and pays that tier's rate on its whole value,
face value x contracts x mark price.
"""

from collections.abc import Sequence
from fractions import Fraction

from margincast.core.errors import InputError, did_you_mean
from margincast.margin.venues.imported import (
    USD_LIKE,
    Collected,
    Imported,
    ReadOptions,
    VenueMargin,
)
from margincast.margin.venues.record import Record
from margincast.margin.venues.tiers import checked_tiers

_LARGEST_STEP = 1
"""Tiers start at the size after the end of the one before: at most one contract later."""


def read(documents: Sequence[object], options: ReadOptions) -> Imported:
    """Read position tiers of linear swaps or futures.

    Sizes are contracts; they become USD by the instruments' face value and the mark price, so the
    edges hold at that price. The rates are the venue's, but a base schedule takes a tier's rate of
    the notional within it, the venue of the whole position: large positions pay less by the
    schedule, as the check that comes with the import shows.

    Args:
        documents: parsed responses: position tiers, instruments and mark prices, in any order.
        options: the instruments to read.

    Raises:
        InputError: missing keys, no instrument or mark price for a tier, a coin-margined
            instrument, a contract twice, or tiers with gaps.
        SpecError: unsorted tiers, or a rate that falls.
    """
    collected = Collected(options)
    tiers, instruments, prices = _sorted(documents)
    for owner, rows in tiers.items():
        for instrument in _of_owner(owner, instruments):
            symbol = instrument.text("instId")
            if collected.wants(symbol, owner):
                _collect(symbol, rows, _usd_a_contract(instrument, symbol, prices), collected)
    return collected.finish()


def _sorted(
    documents: Sequence[object],
) -> tuple[dict[str, list[Record]], dict[str, list[Record]], dict[str, Fraction]]:
    """Tell the rows of all responses apart: tiers and instruments by owner, and mark prices."""
    tiers: dict[str, list[Record]] = {}
    instruments: dict[str, list[Record]] = {}
    prices: dict[str, Fraction] = {}
    for number, document in enumerate(documents, start=1):
        for row in Record(document, f"file {number}").records("data", "row"):
            if "maxSz" in row.raw:
                tiers.setdefault(_owner(row), []).append(row)
            elif "ctVal" in row.raw:
                for key in {row.text("instId"), str(row.raw.get("instFamily", ""))} - {""}:
                    instruments.setdefault(key, []).append(row)
            elif "markPx" in row.raw:
                prices[row.text("instId")] = row.number("markPx")
            else:
                raise InputError(
                    f"{row.where} is none of position tiers (maxSz), instruments (ctVal) and mark "
                    f"prices (markPx); found: {', '.join(sorted(row.raw))}"
                )
    if not tiers:
        raise InputError("no position tiers in the files given: none has rows with 'maxSz'")
    return tiers, instruments, prices


def _owner(row: Record) -> str:
    """Tiers belong to an instrument, or to all of a family."""
    for key in ("instId", "instFamily", "uly"):
        if row.raw.get(key):
            return row.text(key)
    raise InputError(f"{row.where}: neither 'instId' nor 'instFamily' says whose tier it is")


def _of_owner(owner: str, instruments: dict[str, list[Record]]) -> list[Record]:
    if owner not in instruments:
        raise InputError(
            f"{owner}: tiers are in contracts, and no file says what a contract is worth"
            f"{did_you_mean(owner, instruments)}; give the response of public/instruments (ctVal) "
            "with --with"
        )
    return instruments[owner]


def _usd_a_contract(instrument: Record, symbol: str, prices: dict[str, Fraction]) -> Fraction:
    """Return what a contract is worth, USD."""
    kind, settled = instrument.text("ctType"), instrument.text("settleCcy")
    if kind != "linear" or settled not in USD_LIKE:
        raise InputError(
            f"{symbol} is {kind} and settles in {settled}; base schedules are in USD notional, so "
            "leave it out (--symbols names those to read)"
        )
    if symbol not in prices:
        raise InputError(
            f"{symbol}: tiers are in contracts of {instrument.text('ctVal')} "
            f"{instrument.text('ctValCcy')}, and no file has its mark price; give the response of "
            "public/mark-price with --with"
        )
    worth = instrument.number("ctVal") * instrument.number("ctMult") * prices[symbol]
    if worth == 0:
        raise InputError(f"{symbol}: a contract cannot be worth nothing; its ctVal or markPx is 0")
    return worth


def _collect(symbol: str, rows: list[Record], worth_usd: Fraction, collected: Collected) -> None:
    ordered = sorted(rows, key=lambda row: row.whole("tier"))
    floor = Fraction(0)
    made, table = [], []
    for number, row in enumerate(ordered, start=1):
        where = f"{symbol}, tier {number}"
        if row.whole("tier") != number:
            raise InputError(f"{where} is missing; found tier {row.whole('tier')} in its place")
        step = row.number("minSz") - floor
        if not 0 <= step <= _LARGEST_STEP:
            raise InputError(
                f"{where} starts at {float(row.number('minSz')):,.10g} contracts, the one before "
                f"ends at {float(floor):,.10g}; tiers must not overlap or leave a gap"
            )
        cap = row.number("maxSz")
        mmr, imr = row.number("mmr"), row.number("imr")
        made.append(
            {
                "floor_usd": float(floor * worth_usd),
                "cap_usd": float(cap * worth_usd),
                "mmr": float(mmr),
                "imr": float(imr),
            }
        )
        table.append((cap * worth_usd, mmr, imr))
        floor = cap
    collected.add(symbol, checked_tiers(made, symbol), _margin(table))
    collected.remark(
        "the venue takes a tier's rate of the whole position, a base schedule of the notional "
        "within the tier: by the schedule large positions pay less than on the venue, see the "
        "check; edges hold at the mark prices given"
    )


def _margin(table: list[tuple[Fraction, Fraction, Fraction]]) -> VenueMargin:
    """The venue's own arithmetic: caps in USD, and rates of the whole position."""
    caps, rates, initial = zip(*table, strict=True)
    return VenueMargin.of_brackets(
        caps_usd=caps, rates=rates, amounts_usd=[Fraction(0)] * len(table), initial=initial
    )
