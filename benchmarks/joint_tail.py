"""How often collateral is beyond its forecast when a position is beyond its own: ``joint_tail``.

    python benchmarks/joint_tail.py FORECASTS --bars DIR [--bars DIR] [--level 0.99]

Of a backtest's long-side forecasts and what followed. For every contract as collateral it prints
the smallest, median and largest share over the other contracts as position, of decisions that both
have, and the share that independence would have.
"""

import argparse
from pathlib import Path

import numpy as np

from margincast.backtest.submitted import join_outcomes, read_submitted
from margincast.data.bars import interval_of, read_bars
from margincast.margin.collateral import joint_tail_share

FEWEST = 100
"""Exceedances of the position below which a pair says nothing."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("forecasts", type=Path)
    parser.add_argument("--bars", action="append", required=True)
    parser.add_argument("--model", default="margincast")
    parser.add_argument("--level", type=float, default=0.99)
    arguments = parser.parse_args()
    bars = read_bars(Path(), arguments.bars, (), interval_of(Path(), arguments.bars))
    found = join_outcomes(read_submitted(arguments.forecasts, [arguments.model]), bars)
    replay = next(iter(found.replays.values()))
    forecast = replay.forecasts[arguments.model].at("long", arguments.level)
    beyond = replay.panel.frame[["symbol", "ts"]].assign(
        beyond=np.where(
            np.isfinite(forecast) & np.isfinite(replay.panel.outcomes["long"]),
            replay.panel.outcomes["long"] > forecast,
            np.nan,
        )
    )
    wide = beyond.pivot_table(index="ts", columns="symbol", values="beyond")
    print(f"level {arguments.level:g}; independence: {1 - arguments.level:.2g}")
    for asset in wide:
        shares = []
        for position in wide.columns.drop(asset):
            pair = wide[[asset, position]].dropna().to_numpy() == 1.0
            if pair[:, 1].sum() >= FEWEST:
                shares.append(joint_tail_share(pair[:, 1], pair[:, 0]))
        if shares:
            low, middle, high = np.quantile(shares, [0.0, 0.5, 1.0])
            print(f"{asset:24} {low:.2f} {middle:.2f} {high:.2f}  ({len(shares)} positions)")


if __name__ == "__main__":
    main()
