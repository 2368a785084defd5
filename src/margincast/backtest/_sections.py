"""The report's tables of evidence: what the validation found, ready to be printed.

Words and numbers only; what they mean is decided where they were computed.
"""

from collections.abc import Sequence

from margincast.backtest._printed import PrintedTable, number, p_value, percent
from margincast.backtest._stress_sections import hypothetical_tables, stress_windows
from margincast.backtest.battery import verdicts_by_test
from margincast.backtest.checklist import Requirement
from margincast.backtest.validation import Validation


def tables_of(found: Validation, checklist: Sequence[Requirement]) -> list[PrintedTable]:
    """Return the tables in the order of the page."""
    return [
        _pooled(found),
        _by_test(found),
        _power(found),
        *([_published(found)] if len(found.published) else []),
        stress_windows(found, equal_mean=True),
        stress_windows(found, equal_mean=False),
        *hypothetical_tables(found.hypothetical),
        _regimes(found),
        _procyclicality(found),
        _scores(found),
        _superior(found),
        _checklist(checklist),
    ]


def _pooled(found: Validation) -> PrintedTable:
    return PrintedTable(
        "All contracts together",
        "Tests that count a day, all contracts and overlapping horizons in it, as one observation, "
        "and let five neighbouring days depend on each other. Dynamics: whether an exceedance can "
        "be foretold from the contract's last outcome or from how high the forecast is.",
        ("Test", "Model", "Level", "Statistic", "p", "Exceedances", "Answer"),
        tuple(
            (
                row["test"],
                row["model"],
                f"{row['level']:g}",
                number(row["statistic"], ".2f"),
                p_value(row["p_value"]),
                f"{row['exceedances']:,}",
                _answer(row["verdict"], row["reason"]),
            )
            for row in found.pooled.to_dict("records")
        ),
        frozenset({0, 1, 6}),
    )


def _by_test(found: Validation) -> PrintedTable:
    counts = verdicts_by_test(found.tests)
    return PrintedTable(
        "Every test on every contract and side",
        f"{found.subject}, decisions whose outcomes do not overlap, p-values from simulated "
        "exceedances of the same number of decisions. Failed: after Benjamini-"
        "Hochberg over the contracts and sides of a test; alone: by its own p-value, of which one "
        "in twenty fails by chance; no power: could not have seen 1.5 times the exceedances.",
        ("Test", "Level", "Series", "Failed", "Alone", "No power"),
        tuple(
            (
                row["test"],
                f"{row['level']:g}",
                f"{row['series']:,}",
                f"{row['failed']:,}",
                f"{row['failed_alone']:,}",
                f"{row['no_power']:,}",
            )
            for row in counts.to_dict("records")
        ),
    )


def _power(found: Validation) -> PrintedTable:
    return PrintedTable(
        "What the sample could have shown",
        "The exact one-sided binomial test at 5 %. All together: as many independent decisions as "
        "the panel is worth, days counted together.",
        ("Sample", "Level", "Decisions", "Expected exceedances", "Power at 1.5x", "In words"),
        tuple(
            (
                row["sample"],
                f"{row['level']:g}",
                f"{row['sample_size']:,}",
                number(row["expected_exceedances"], ",.1f"),
                number(row["power"], ".2f"),
                row["sentence"],
            )
            for row in found.power.to_dict("records")
        ),
        frozenset({0, 5}),
    )


def _published(found: Validation) -> PrintedTable:
    return PrintedTable(
        "The published margin",
        f"What the policy would have published from {found.subject}, beside the base schedule and "
        "the forecast alone. A loss is the adverse excursion and what closing costs. Steadiness: "
        "medians over contracts and sides of a daily margin. Liquidated: of the same simulated "
        "accounts, a fifth each at leverage 2, 3, 5, 10 and 20; by the margin: they would have "
        "been closed in time under the margin they entered with.",
        (
            "Margin",
            "Tier",
            "Mean",
            "Losses beyond",
            "Per exceedance",
            "Fallback",
            "Peak to trough",
            "Rise, 1 d",
            "Rise, 30 d",
            "Accounts let in",
            "Liquidated",
            "By the margin",
            "Bankrupt",
        ),
        tuple(
            (
                row["margin"],
                f"{row['tier']}",
                percent(row["mean_margin"]),
                percent(row["exceedance_share"], 3),
                percent(row["shortfall_per_exceedance"]),
                percent(row["fallback"], 1),
                number(row["peak_to_trough"], ".1f"),
                percent(row["largest_1_day_rise"], 0),
                percent(row["largest_30_day_rise"], 0),
                f"{row['accounts'] - row['refused']:,}",
                f"{row['liquidations']:,}",
                f"{row['margin_induced']:,}",
                f"{row['bankruptcies']:,}",
            )
            for row in found.published.to_dict("records")
        ),
    )


def _regimes(found: Validation) -> PrintedTable:
    return PrintedTable(
        "Calm and turbulent times",
        f"{found.subject}; decisions by terciles of their own contract's volatility of the last "
        "seven days, known at the decision.",
        (
            "Regime",
            "Side",
            "Level",
            "Decisions",
            "Exceedance ratio",
            "Mean forecast",
            "Per exceedance",
            "Share of all loss beyond",
        ),
        tuple(
            (
                row["regime"],
                row["side"],
                f"{row['level']:g}",
                f"{row['decisions']:,}",
                number(row["exceedance_ratio"], ".2f"),
                percent(row["mean_margin"]),
                percent(row["shortfall_per_exceedance"]),
                percent(row["share_of_draw"], 0),
            )
            for row in found.regimes.to_dict("records")
        ),
        frozenset({0, 1}),
    )


def _procyclicality(found: Validation) -> PrintedTable:
    rises = [c for c in found.procyclicality if str(c).startswith("largest_")]
    days = [c for c in found.procyclicality if str(c).startswith("days_above_")]
    responses = [c for c in found.procyclicality if str(c).startswith("response_")]
    return PrintedTable(
        "Procyclicality",
        "Medians over contracts and sides of a daily margin at the lowest level: largest over "
        "smallest, standard deviation of its daily changes, largest rises, and the share of days "
        "with a rise above a size (Bank of England, Financial Stability Paper 29). Response: the "
        "largest rise of the margin in the last year over that of volatility, over as many days; 1 "
        "follows volatility one for one.",
        (
            "Model",
            "Mean",
            "Peak to trough",
            "Volatility",
            *(f"Rise, {str(c).split('_')[1]} d" for c in rises),
            *(f"Days above +{float(str(c).split('_')[2]):.0%}" for c in days),
            *(f"Response, {str(c).split('_')[1]} d" for c in responses),
        ),
        tuple(
            (
                row["model"],
                percent(row["mean_margin"]),
                number(row["peak_to_trough"], ".1f"),
                number(row["volatility"], ".3f"),
                *(percent(row[c], 0) for c in rises),
                *(percent(row[c]) for c in days),
                *(number(row[c], ".2f") for c in responses),
            )
            for row in found.procyclicality.to_dict("records")
        ),
    )


def _scores(found: Validation) -> PrintedTable:
    parts = ("score", "miscalibration", "discrimination", "uncertainty")
    return PrintedTable(
        "Where the loss comes from",
        "Mean pinball loss in basis points = miscalibration - discrimination + uncertainty "
        "(isotonic quantile regression; decisions whose outcomes do not overlap). A sharp and "
        "honest forecast has little of the first and much of the second.",
        ("Model", "Side", "Level", "Loss", "Miscalibration", "Discrimination", "Uncertainty"),
        tuple(
            (
                row["model"],
                row["side"],
                f"{row['level']:g}",
                *(number(1e4 * row[part], ".3f") for part in parts),
            )
            for row in found.scores.to_dict("records")
        ),
        frozenset({0, 1}),
    )


def _superior(found: Validation) -> PrintedTable:
    return PrintedTable(
        "Is any model better?",
        f"Hansen's test that no model has a smaller daily pinball loss than {found.subject}, and "
        "the models that Romano and Wolf's stepwise test finds better.",
        ("Level", "p", "Better"),
        tuple(
            (f"{row['level']:g}", p_value(row["p_value"]), ", ".join(row["superior"]) or "none")
            for row in found.superior.to_dict("records")
        ),
        frozenset({0, 2}),
    )


def _checklist(checklist: Sequence[Requirement]) -> PrintedTable:
    return PrintedTable(
        "Regulatory checklist",
        "Delegated Regulation (EU) 153/2013, articles 24 to 28, and principle 6 of the Principles "
        "for financial market infrastructures: in our words, filled from this backtest.",
        ("Rule", "Asks", "Measured", "Answer"),
        tuple((one.rule, one.asks, one.measured, one.answer) for one in checklist),
        frozenset({0, 1, 2, 3}),
    )


def _answer(verdict: str, reason: str) -> str:
    return f"{verdict}: {reason}" if reason else verdict
