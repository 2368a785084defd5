"""The full model table of finished backtests, as Markdown: docs/method/results.md is made of it.

Reads the ``summary.json`` of each backtest; computes nothing.

Run: ``python benchmarks/model_tables.py out/perp-1h out/perp-8h out/perp-24h``
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

OURS = "margincast"
SIDES = {"both": "both sides", "long": "long", "short": "short"}


def main() -> None:
    """Print the tables of every folder given."""
    parser = argparse.ArgumentParser(description="model tables of finished backtests")
    parser.add_argument("folders", type=Path, nargs="+", help="folders with a summary.json")
    for folder in parser.parse_args().folders:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        for record in summary.get("horizons", [summary]):
            print_tables(record)


def print_tables(record: Mapping[str, Any]) -> None:
    """Print one table a side, one of the years, and what concerns contracts."""
    cells = {(c["model"], c["side"], c["level"]): c for c in record["cells"]}
    levels = sorted({level for _, _, level in cells})
    models = sorted(record["models"], key=lambda model: model["pinball_ratio"])
    names = [model["model"] for model in models]
    sides = [side for side in SIDES if (OURS, side, levels[0]) in cells]
    print(f"\n## {record['description']}\n")
    print(f"{record['scored_decisions']:,} decisions, relative to `{record['reference']}`.\n")
    for side in sides:
        heads = [f"pinball {level:g} | exceeded {level:g}" for level in levels]
        print_row(
            SIDES[side], *heads, "pass", "forecast", "per exceedance", "worst day", "a day", "peak"
        )
        print("|---|" + "---|" * (2 * len(levels) + 6))
        for model in models:
            row = [cells[model["model"], side, level] for level in levels]
            print_row(f"`{model['model']}`", *map(figures, row), *costs(model, row[0]))
        print()
    years = sorted({g["name"] for g in record["groups"] if g["kind"] == "year"})
    groups = {(g["model"], g["name"], g["level"]): g for g in record["groups"]}
    others = sorted({g["name"] for g in record["groups"] if g["kind"] != "year"})
    print_row("exceeded", *[f"{y}: {', '.join(f'{v:g}' for v in levels)}" for y in years + others])
    print("|---|" + "---|" * len(years + others))
    for name in names:
        print_row(f"`{name}`", *[ratios(groups, name, year, levels) for year in years + others])


def print_row(*columns: str) -> None:
    """Print one row of a table."""
    print("| " + " | ".join(columns) + " |")


def figures(cell: Mapping[str, Any]) -> str:
    """Pinball ratio with its error, starred in the confidence set; exceedances with interval."""
    star = "\\*" if cell["in_confidence_set"] else ""
    low, high = number(cell["exceedance_ratio_low"]), number(cell["exceedance_ratio_high"])
    return (
        f"{cell['pinball_ratio']:.3f} ± {number(cell['pinball_ratio_error'], 3)}{star} | "
        f"{cell['exceedance_ratio']:.2f} [{low}, {high}]"
    )


def costs(model: Mapping[str, Any], cell: Mapping[str, Any]) -> Iterable[str]:
    """What the lowest level costs, and how jumpy the model is."""
    worst = cell["worst_day"] or {"day": "-", "mean_shortfall": 0.0}
    beyond = cell["shortfall_per_exceedance"]
    return (
        "-" if cell["kupiec_failed"] is None else f"{1 - cell['kupiec_failed']:.0%}",
        f"{cell['mean_forecast']:.2%}",
        "-" if beyond is None else f"{beyond:.2%}",
        f"{worst['day']}: {worst['mean_shortfall']:.2%}",
        f"{number(model['largest_one_day_rise'], 1)}x",
        f"{number(model['peak_to_trough'], 0)}x",
    )


def ratios(
    groups: Mapping[tuple[str, str, float], Mapping[str, Any]],
    name: str,
    group: str,
    levels: Iterable[float],
) -> str:
    """Exceedance ratios of one model and group at every level."""
    found = [groups.get((name, group, level)) for level in levels]
    return ", ".join("-" if g is None else number(g["exceedance_ratio"]) for g in found)


def number(value: float | None, digits: int = 2) -> str:
    """Return a figure as text; a dash where it cannot be told."""
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
