"""The report's tables of stress: what happened, at equal cost, and what has not happened."""

from collections.abc import Mapping

import pandas as pd

from margincast.backtest._printed import PrintedTable, percent
from margincast.backtest.validation import Validation


def stress_windows(found: Validation, *, equal_mean: bool) -> PrintedTable:
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
                percent(row["mean_shortfall"]),
                percent(row["worst_shortfall"]),
                percent(row["mean_margin_before"]),
                percent(row["mean_margin_during"]),
                percent(row["largest_margin_during"]),
            )
            for row in own.to_dict("records")
        ),
        frozenset({0, 1}),
    )


def hypothetical_tables(found: Mapping[str, pd.DataFrame]) -> list[PrintedTable]:
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
                        percent(row["loss"]),
                        percent(row["worst_loss"]),
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
                        percent(row["move_exhausting_margin"]),
                        row["first_to_fail"],
                        percent(row["move_exhausting_fund"]),
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
                        percent(row["loss"]),
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
                        percent(row["liquidated_usd"], 1),
                        percent(row["shortfall_usd"]),
                        percent(row["fund_low_usd"]),
                        percent(row["auto_deleveraged_usd"]),
                        percent(row["largest_press"], 1),
                    )
                    for row in run.to_dict("records")
                ),
            )
        )
    return tables
