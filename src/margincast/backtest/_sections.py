"""The report's tables of evidence: what the validation found, ready to be printed.

Words and numbers only; what they mean is decided where they were computed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from margincast.backtest.battery import verdicts_by_test
from margincast.backtest.checklist import Requirement
from margincast.backtest.validation import Validation

UNKNOWN = "\N{EN DASH}"


@dataclass(frozen=True)
class PrintedTable:
    """A table of text.

    Attributes:
        title: heading above it; empty to stand under the one before.
        caption: what it shows.
        columns: headings; the first names the rows.
        rows: cells in the order of the columns.
        words: positions of columns that hold words, not numbers.
    """

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset({0})


def tables_of(found: Validation, checklist: Sequence[Requirement]) -> list[PrintedTable]:
    """Return the tables in the order of the page."""
    return [
        _pooled(found),
        _by_test(found),
        _power(found),
        *([_published(found)] if len(found.published) else []),
        _stress(found, equal_mean=True),
        _stress(found, equal_mean=False),
        *_hypothetical(found.hypothetical),
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
                _number(row["statistic"], ".2f"),
                _p(row["p_value"]),
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
                _number(row["expected_exceedances"], ",.1f"),
                _number(row["power"], ".2f"),
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
                _percent(row["mean_margin"]),
                _percent(row["exceedance_share"], 3),
                _percent(row["shortfall_per_exceedance"]),
                _percent(row["fallback"], 1),
                _number(row["peak_to_trough"], ".1f"),
                _percent(row["largest_1_day_rise"], 0),
                _percent(row["largest_30_day_rise"], 0),
                f"{row['accounts'] - row['refused']:,}",
                f"{row['liquidations']:,}",
                f"{row['margin_induced']:,}",
                f"{row['bankruptcies']:,}",
            )
            for row in found.published.to_dict("records")
        ),
    )


def _stress(found: Validation, *, equal_mean: bool) -> PrintedTable:
    own = found.stress[found.stress["equal_mean"] == equal_mean]
    how = (
        f"every forecast scaled to the mean of {found.subject} over the whole period, so that all "
        "cost the same"
        if equal_mean
        else "forecasts as they are"
    )
    return PrintedTable(
        "Stress windows" if equal_mean else "",
        f"The lowest level, all contracts and sides; {how}.",
        (
            "Window",
            "Model",
            "Decisions",
            "Exceedances",
            "Mean loss beyond",
            "Worst",
            "Mean before",
            "Mean during",
            "Largest",
        ),
        tuple(
            (
                row["window"],
                row["model"],
                f"{row['decisions']:,}",
                f"{row['exceedances']:,}" if row["decisions"] else row["reason"],
                _percent(row["mean_shortfall"]),
                _percent(row["worst_shortfall"]),
                _percent(row["mean_margin_before"]),
                _percent(row["mean_margin_during"]),
                _percent(row["largest_margin_during"]),
            )
            for row in own.to_dict("records")
        ),
        frozenset({0, 1}),
    )


def _hypothetical(found: Mapping[str, pd.DataFrame]) -> list[PrintedTable]:
    tables = []
    if len(found.get("shocks", ())):
        tables.append(
            PrintedTable(
                "Hypothetical shocks",
                "Margins at the end of the test period; in every contract a long and a short of "
                "one per cent of a day's trading (an assumption, the same for all models). The "
                "leading contract moves by the shock, the others with it, each by one standard "
                "deviation of its own against the position. Loss beyond margin of the losing side, "
                "in the mildest and in the worst of the other conditions.",
                (
                    "Model",
                    "Shock",
                    "Loss",
                    "Worst loss",
                    "Volatility",
                    "Depth left",
                    "Correlation",
                ),
                tuple(
                    (
                        row["model"],
                        f"{row['price_move']:+.0%}",
                        _percent(row["loss"]),
                        _percent(row["worst_loss"]),
                        f"{row['volatility_factor']:g}x",
                        f"{row['depth_factor']:.0%}",
                        f"{row['correlation']:g}",
                    )
                    for row in found["shocks"].to_dict("records")
                ),
            )
        )
    if len(found.get("reverse_stress", ())):
        tables.append(
            PrintedTable(
                "Reverse stress",
                "The smallest move of the leading contract that exhausts the first margin, and "
                "then a fund of one per cent of all notional; the same positions.",
                ("Model", "Direction", "Depth left", "First margin", "Whose", "Fund", "Failing"),
                tuple(
                    (
                        row["model"],
                        row["direction"],
                        f"{row['depth_factor']:.0%}",
                        _percent(row["move_exhausting_margin"]),
                        row["first_to_fail"],
                        _percent(row["move_exhausting_fund"]),
                        f"{row['positions_failing']}",
                    )
                    for row in found["reverse_stress"].to_dict("records")
                ),
                frozenset({0, 1, 4}),
            )
        )
    if len(found.get("scaled_history", ())):
        tables.append(
            PrintedTable(
                "History, and more of it",
                "The worst move of every contract over one horizon in each window, as it was and "
                "made larger (on the logarithm of prices), against the margins of today.",
                ("Model", "Window", "Times", "Loss beyond margin"),
                tuple(
                    (
                        row["model"],
                        row["window"],
                        f"{row['factor']:g}x",
                        _percent(row["loss"]),
                    )
                    for row in found["scaled_history"].to_dict("records")
                ),
                frozenset({0, 1}),
            )
        )
    if len(found.get("cascade", ())):
        run = found["cascade"]
        tables.append(
            PrintedTable(
                "A liquidation cascade",
                f"The same simulated accounts (leverage 2 to 5, three in five of the notional "
                f"long) down the path of {run['contract'].iloc[0]} in {run['window'].iloc[0]}, "
                "under margins of one mean; liquidations press the price, which liquidates more. "
                "Money in parts of the open interest.",
                (
                    "Margin",
                    "Liquidated",
                    "By the margin",
                    "Bankrupt",
                    "Liquidated notional",
                    "Loss beyond equity",
                    "Least fund",
                    "Auto-deleveraged",
                    "Price pressed by",
                ),
                tuple(
                    (
                        row["schedule"],
                        f"{row['liquidations']:,}",
                        f"{row['margin_induced']:,}",
                        f"{row['bankruptcies']:,}",
                        _percent(row["liquidated_usd"], 1),
                        _percent(row["shortfall_usd"]),
                        _percent(row["fund_low_usd"]),
                        _percent(row["auto_deleveraged_usd"]),
                        _percent(row["largest_press"], 1),
                    )
                    for row in run.to_dict("records")
                ),
            )
        )
    return tables


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
                _number(row["exceedance_ratio"], ".2f"),
                _percent(row["mean_margin"]),
                _percent(row["shortfall_per_exceedance"]),
                _percent(row["share_of_draw"], 0),
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
                _percent(row["mean_margin"]),
                _number(row["peak_to_trough"], ".1f"),
                _number(row["volatility"], ".3f"),
                *(_percent(row[c], 0) for c in rises),
                *(_percent(row[c]) for c in days),
                *(_number(row[c], ".2f") for c in responses),
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
                *(_number(1e4 * row[part], ".3f") for part in parts),
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
            (f"{row['level']:g}", _p(row["p_value"]), ", ".join(row["superior"]) or "none")
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


def _number(value: float, form: str) -> str:
    return UNKNOWN if value is None or math.isnan(value) else format(value, form)


def _percent(value: float, digits: int = 2) -> str:
    if math.isinf(value):
        return "none"
    return UNKNOWN if pd.isna(value) else f"{100.0 * value:.{digits}f} %"


def _p(value: float) -> str:
    if math.isnan(value):
        return UNKNOWN
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
