"""Terminal tables of an account view."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.backtest.stress.sufficiency import Sufficiency
from margincast.jobs.console import output, say


def show(record: Mapping[str, Any], stress: list[Sufficiency]) -> None:
    """Print an account: pools, positions, collateral, stress, and what to know of the numbers."""
    output.print(_pool_table(record), _position_table(record["positions"]))
    if record["collateral"]:
        output.print(_collateral_table(record["collateral"]))
    output.print(_stress_table(stress))
    for note in record["notes"]:
        say(note)


def _pool_table(record: Mapping[str, Any]) -> Table:
    headings = (
        "unrealised",
        "equity",
        "initial",
        "maintenance",
        "margin\nratio",
        "all fall",
        "all rise",
    )
    table = _table(f"Account, levels of {record['levels_effective_from']} (USD)", "pool", headings)
    for each in record["pools"]:
        ratio = each["margin_ratio"]
        ended = each["is_below_maintenance"]
        table.add_row(
            each["name"],
            *(f"{each[name]:,.2f}" for name in ("unrealised_usd", "equity_usd")),
            *(f"{each[name]:,.2f}" for name in ("initial_usd", "maintenance_usd")),
            "-" if ratio is None else f"{ratio:.1%}",
            "liquidated" if ended else _move(each["common_move_down"]),
            "liquidated" if ended else _move(each["common_move_up"]),
            style="red" if ended else "yellow" if each["is_below_initial"] else None,
        )
    table.caption = (
        "margin ratio: maintenance over equity, liquidated at 100 %. all fall, all rise: the "
        "common move at which it is reached; never: no such move ends it"
    )
    return table


def _position_table(positions: list[dict[str, Any]]) -> Table:
    headings = (
        *("notional", "unrealised", "MMR", "maintenance", "initial", "mark"),
        *("liquidated\nbelow", "above", "margin"),
    )
    table = _table("Positions, the price of one contract moving alone", "position", headings)
    for each in positions:
        table.add_row(
            f"{each['symbol']} {each['side']}",
            *(f"{each[name]:,.2f}" for name in ("notional_usd", "unrealised_usd")),
            f"{each['mmr']:.2%}",
            *(f"{each[name]:,.2f}" for name in ("maintenance_usd", "initial_usd")),
            f"{each['mark_price']:,g}",
            *(_price_text(each, name) for name in ("below", "above")),
            str(each["status"]) if each["status"] != "ok" else str(each["binding_rule"]),
            style=None if each["status"] == "ok" else "yellow",
        )
    return table


def _price_text(position: Mapping[str, Any], name: str) -> str:
    price, move = position[f"liquidation_price_{name}"], position[f"distance_{name}"]
    return "-" if price is None else f"{price:,.6g} ({move:+.1%})"


def _collateral_table(assets: list[dict[str, Any]]) -> Table:
    headings = ("amount", "price", "value", "haircut", "counts for", "moves with")
    table = _table("Collateral", "asset", headings)
    for each in assets:
        table.add_row(
            each["asset"],
            f"{each['amount']:,g}",
            f"{each['price_usd']:,g}",
            f"{each['value_usd']:,.2f}",
            f"{each['haircut']:.2%}",
            f"{each['counted_usd']:,.2f}",
            each["moves_with"] or "nothing",
        )
    return table


def _stress_table(stress: list[Sufficiency]) -> Table:
    headings = ("loss", "equity after", "closing", "shortfall", "liquidated", "enough")
    table = _table("Stress, other conditions at their worst", "scenario", headings)
    for line in stress:
        table.add_row(
            line.scenario,
            f"{line.loss_usd:,.0f}",
            f"{line.equity_usd:,.0f}",
            f"{line.closing_cost_usd:,.0f}",
            f"{line.shortfall_usd:,.0f}",
            ", ".join(line.liquidated) or "-",
            "yes" if line.is_sufficient else "NO",
            style=None if line.is_sufficient else "red",
        )
    return table


def _table(title: str, first: str, headings: tuple[str, ...]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, padding=0)
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _move(value: float | None) -> str:
    return "never" if value is None else f"{value:+.1%}"
