"""The report's page of every contract: its figures, and the tests it fails.

Words and numbers only, gathered from the evaluation and the validation.
"""

from dataclasses import dataclass

import pandas as pd

from margincast.backtest._printed import PrintedTable, number, percent
from margincast.backtest.battery import FALSE_DISCOVERY_RATE
from margincast.backtest.evaluation import Evaluation
from margincast.backtest.validation import Validation

MOST_CONTRACTS = 150
"""Pages in a report; of more contracts, those with most failures."""


@dataclass(frozen=True)
class ContractPage:
    """One contract.

    Attributes:
        symbol: its name.
        new_listing: whether it was listed around the test period.
        failures: tests failed alone, over sides and levels.
        headline: what stands out, in a line.
        table: figures a side and level.
    """

    symbol: str
    new_listing: bool
    failures: int
    headline: str
    table: PrintedTable


def contract_pages(evaluation: Evaluation, found: Validation) -> list[ContractPage]:
    """Return the contracts' pages by name."""
    own = evaluation.contracts[evaluation.contracts["model"] == found.subject]
    pages = [
        _page(str(symbol), figures, found.tests[found.tests["symbol"] == symbol])
        for symbol, figures in own.groupby("symbol", sort=True)
    ]
    most = sorted(pages, key=lambda page: -page.failures)[:MOST_CONTRACTS]
    return sorted(most, key=lambda page: page.symbol)


def _page(symbol: str, figures: pd.DataFrame, tests: pd.DataFrame) -> ContractPage:
    failed = tests[tests["verdict"] == "fail"]
    stands = failed[failed["adjusted_p"] < FALSE_DISCOVERY_RATE]
    rows = []
    for row in figures[figures["side"] != "both"].to_dict("records"):
        at = (failed["side"] == row["side"]) & (failed["level"] == row["level"])
        rows.append(
            (
                row["side"],
                f"{row['level']:g}",
                f"{row['decisions']:,}",
                f"{row['exceedances']:,}",
                number(row["exceedance_ratio"], ".2f"),
                percent(row["mean_forecast"]),
                percent(row["shortfall_per_exceedance"]),
                ", ".join(failed[at]["test"]) or "none",
            )
        )
    first = figures[figures["side"] == "both"].sort_values("level").iloc[0]
    headline = (
        f"{number(first['exceedance_ratio'], '.2f')} times the promised exceedances at "
        f"{first['level']:g}; {len(failed)} tests failed alone, {len(stands)} after adjustment"
    )
    return ContractPage(
        symbol,
        bool(first["new_listing"]),
        len(failed),
        headline,
        PrintedTable(
            "",
            f"{symbol} by side and level. Tests: failed by their own p-value; one in twenty fails "
            "by chance.",
            (
                "Side",
                "Level",
                "Decisions",
                "Exceedances",
                "Ratio",
                "Mean forecast",
                "Per exceedance",
                "Tests failed",
            ),
            tuple(rows),
            frozenset({0, 7}),
        ),
    )
