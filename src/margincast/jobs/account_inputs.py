"""What an account view is made of, read strictly: positions, collateral, levels and haircuts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from margincast.core.errors import InputError, did_you_mean
from margincast.core.types import SIDES, Side
from margincast.data.rows import FORMS, Row, read_rows
from margincast.margin.account import Collateral, Position, PositionTiers
from margincast.margin.collateral import account_haircut
from margincast.margin.liquidation_price import Requirement
from margincast.margin.rounding import exact

CURRENCY = "USD"
"""Notional, tiers and amounts of margin levels are in it."""
LEVEL_COLUMNS = (
    "symbol", "side", "tier", "tier_floor_usd", "tier_cap_usd", "effective_from", "mmr", "imr",
    "forecast", "liquidation_cost", "binding_rule", "status", "reason",
)  # fmt: skip
HAIRCUT_COLUMNS = ("asset", "haircut", "own_haircut", "other_haircut", "contract")


@dataclass(frozen=True)
class Published:
    """Margin levels of one contract's side.

    Attributes:
        tiers: what its margin is computed with.
        rows: the table's rows, one a tier.
    """

    tiers: PositionTiers
    rows: tuple[Mapping[str, object], ...]

    def row(self, notional_usd: Fraction) -> Mapping[str, object]:
        """Return the row of a notional's tier."""
        return self.rows[self.tiers.tier(notional_usd)]


@dataclass(frozen=True)
class AssetHaircut:
    """Haircuts of one asset, fractions: plain, and against longs in its own or another contract."""

    haircut: float
    own_haircut: float
    other_haircut: float
    contract: str | None
    note: str
    """Status and reason where the haircut is a fallback; empty otherwise."""


Levels = Mapping[tuple[str, Side], Published]


def read_levels(path: Path) -> Levels:
    """Read margin levels as ``margincast score`` writes them.

    The maintenance margin is that of ``mmr_in_force``, which differs from ``mmr`` while a change is
    only announced; a table without the column has nothing but rates in force.

    Raises:
        InputError: no table, a column is absent, tiers that contradict each other.
    """
    table = _table(path, LEVEL_COLUMNS, "margin levels")
    found: dict[tuple[str, Side], Published] = {}
    for (symbol, side), rows in table.groupby(["symbol", "side"], sort=False, observed=True):
        own = rows.sort_values("tier")
        own = own.assign(mmr_in_force=own.get("mmr_in_force", own["mmr"]))
        floors, caps = own["tier_floor_usd"].tolist(), own["tier_cap_usd"].tolist()
        try:
            maintenance = Requirement.of(floors, caps, own["mmr_in_force"].tolist())
        except InputError as error:
            raise InputError(f"{path}, {symbol} {side}: {error}") from None
        tiers = PositionTiers(maintenance, tuple(own["imr"].tolist()))
        records = cast("list[Mapping[str, object]]", own.to_dict(orient="records"))
        found[str(symbol), cast("Side", side)] = Published(tiers, tuple(records))
    return found


def read_marks(path: Path | None) -> dict[str, float]:
    """Read mark prices: ``symbol``, ``mark_price``.

    Raises:
        InputError: see :func:`~margincast.data.rows.read_rows`; or a contract stands twice.
    """
    marks: dict[str, float] = {}
    for row in read_rows(path, ("symbol", "mark_price")) if path is not None else ():
        symbol = row.text("symbol")
        if symbol in marks:
            raise row.problem("symbol", symbol, "each contract once")
        marks[symbol] = row.number_of("mark_price", above=0.0)
    return marks


def read_positions(path: Path, levels: Levels, marks: Mapping[str, float]) -> list[Position]:
    """Read positions: symbol, side, size and entry price, each contract's side once.

    Columns ``mark_price`` (else from ``marks``), ``isolated_margin_usd`` (else the position shares
    the account) and ``currency`` (nothing else than USD) may be there.

    Raises:
        InputError: an unknown contract or side, a size or price that is not positive, a position
            that stands twice, no mark price or two, another currency, a notional above the last
            tier.
    """
    needed = ("symbol", "side", "size", "entry_price")
    optional = ("mark_price", "isolated_margin_usd", "currency")
    known = sorted({symbol for symbol, _ in levels})
    found: dict[tuple[str, Side], Position] = {}
    for row in read_rows(path, needed, optional):
        symbol = row.text("symbol")
        side = cast("Side", row.text("side", SIDES))
        if symbol not in known:
            hint = did_you_mean(symbol, known) or f" ({', '.join(known[:8])}, ...)"
            raise row.problem("symbol", symbol, f"a contract of the margin levels{hint}")
        if (symbol, side) not in levels:
            raise row.problem("side", side, f"a side of {symbol} in the margin levels")
        if (symbol, side) in found:
            raise row.problem("symbol", symbol, f"one {side} position a contract; add them up")
        _require_currency(row)
        margin = None
        if "isolated_margin_usd" in row.cells:
            margin = row.number_of("isolated_margin_usd", at_least=0.0)
        position = Position(
            symbol,
            side,
            size=row.number_of("size", above=0.0),
            entry_price=row.number_of("entry_price", above=0.0),
            mark_price=_price(row, "mark_price", symbol, marks),
            tiers=levels[symbol, side].tiers,
            isolated_margin_usd=margin,
        )
        last = position.tiers.maintenance.caps_usd[-1]
        if position.notional_usd > last:
            raise row.problem(
                "size",
                row.cells["size"],
                f"a notional within the tiers of {symbol} {side}, which end at {float(last):,.0f} "
                f"USD; this one is {float(position.notional_usd):,.2f} USD",
            )
        found[symbol, side] = position
    return list(found.values())


def read_haircuts(path: Path | None) -> dict[str, AssetHaircut]:
    """Read haircuts as ``margincast haircuts`` writes them, or the same columns by hand.

    Raises:
        InputError: no table, a column is absent, an asset stands twice, a haircut outside [0, 1] or
            above one that is against a long.
    """
    if path is None:
        return {}
    found: dict[str, AssetHaircut] = {}
    for row in _haircut_rows(path):
        asset = row.text("asset")
        plain, own, other = (row.number_of(name, at_least=0.0) for name in HAIRCUT_COLUMNS[1:4])
        if asset in found:
            raise row.problem("asset", asset, "each asset once")
        if not plain <= other <= own <= 1.0:
            raise row.problem(
                "haircut",
                plain,
                f"haircut <= other_haircut = {other:g} <= own_haircut = {own:g} <= 1",
            )
        contract = row.text("contract") if "contract" in row.cells else None
        fell_back = row.cells.get("status") == "fallback"
        note = f"{asset}: haircut is a fallback, {row.cells.get('reason')}" if fell_back else ""
        found[asset] = AssetHaircut(plain, own, other, contract, note)
    return found


def read_collateral(
    path: Path | None,
    haircuts: Mapping[str, AssetHaircut],
    marks: Mapping[str, float],
    positions: Iterable[Position],
) -> list[Collateral]:
    """Read collateral: asset and amount, with the haircut of this account.

    ``price_usd`` may be absent for USD, and for an asset whose contract has a mark price. A
    negative amount is owed.

    Raises:
        InputError: an asset without a haircut, or twice; an amount of zero or not finite; no price
            or two; another currency.
    """
    if path is None:
        return []
    net: dict[str, Fraction] = {}
    for each in positions:
        if each.isolated_margin_usd is None:
            net[each.symbol] = net.get(each.symbol, Fraction(0)) + each.signed_usd
    longs = {symbol: max(notional, Fraction(0)) for symbol, notional in net.items()}
    known = [CURRENCY, *haircuts]
    found: dict[str, Collateral] = {}
    for row in read_rows(path, ("asset", "amount"), ("price_usd", "currency")):
        asset = row.text("asset")
        if asset not in known:
            hint = did_you_mean(asset, known) or f" ({', '.join(known)})"
            where = "" if haircuts else "; give --haircuts for other assets than USD"
            raise row.problem("asset", asset, f"an asset with a haircut{hint}{where}")
        if asset in found:
            raise row.problem("asset", asset, "each asset once; add amounts up")
        _require_currency(row)
        amount = row.number_of("amount")
        if amount == 0.0:
            raise row.problem("amount", amount, "an amount other than zero, or no row")
        rule = haircuts.get(asset, AssetHaircut(0.0, 0.0, 0.0, None, ""))
        price = _collateral_price(row, asset, rule.contract, marks)
        share = exact(rule.haircut)
        if amount > 0.0:
            own = longs.get(rule.contract, Fraction(0)) if rule.contract else Fraction(0)
            share = account_haircut(
                exact(amount) * exact(price),
                own,
                sum(longs.values(), Fraction(0)) - own,
                haircut=share,
                own_haircut=exact(rule.own_haircut),
                other_haircut=exact(rule.other_haircut),
            )
        found[asset] = Collateral(asset, amount, price, share, rule.contract)
    return list(found.values())


def read_scenarios(path: Path | None) -> dict[str, dict[str, float]]:
    """Read named scenarios: ``scenario``, ``symbol``, ``move`` (a simple fraction, -1 or more).

    Raises:
        InputError: see :func:`~margincast.data.rows.read_rows`; or a contract moves twice.
    """
    found: dict[str, dict[str, float]] = {}
    for row in read_rows(path, ("scenario", "symbol", "move")) if path is not None else ():
        moves = found.setdefault(row.text("scenario"), {})
        symbol = row.text("symbol")
        if symbol in moves:
            raise row.problem("symbol", symbol, "each contract once a scenario")
        moves[symbol] = row.number_of("move", at_least=-1.0)
    return found


def _price(row: Row, column: str, symbol: str, marks: Mapping[str, float]) -> float:
    if column in row.cells and symbol in marks:
        raise row.problem(
            column, row.cells[column], f"nothing, as the mark price of {symbol} is given apart"
        )
    if column not in row.cells and symbol not in marks:
        raise row.problem(column, None, f"a mark price of {symbol}, here or in --marks")
    return marks[symbol] if symbol in marks else row.number_of(column, above=0.0)


def _collateral_price(
    row: Row, asset: str, contract: str | None, marks: Mapping[str, float]
) -> float:
    if asset == CURRENCY:
        if row.cells.get("price_usd") is not None and row.number_of("price_usd") != 1.0:
            raise row.problem("price_usd", row.cells["price_usd"], "1 for USD, or nothing")
        return 1.0
    if contract is not None:
        return _price(row, "price_usd", contract, marks)
    return row.number_of("price_usd", above=0.0)


def _require_currency(row: Row) -> None:
    if row.cells.get("currency", CURRENCY) != CURRENCY:
        raise row.problem(
            "currency",
            row.cells["currency"],
            f"{CURRENCY}, in which margin levels are; convert prices and amounts first",
        )


def _table(path: Path, needed: tuple[str, ...], what: str) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{what}: {path} does not exist")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: {path} is no Parquet table: {error}") from None
    absent = [name for name in needed if name not in table]
    if absent:
        raise InputError(
            f"{path} has no column {', '.join(absent)}; a table of {what} has {', '.join(needed)}"
        )
    if table.empty:
        raise InputError(f"{path} has no rows")
    return table


def _haircut_rows(path: Path) -> list[Row]:
    if path.suffix.lower() in FORMS:
        return read_rows(path, HAIRCUT_COLUMNS[:4], ("contract", "status", "reason"))
    records = _table(path, HAIRCUT_COLUMNS, "haircuts").to_dict(orient="records")
    return [
        Row(path, number, {str(name): cell for name, cell in record.items() if _is_there(cell)})
        for number, record in enumerate(records, start=1)
    ]


def _is_there(cell: object) -> bool:
    return cell is not None and not (isinstance(cell, float) and bool(np.isnan(cell)))
