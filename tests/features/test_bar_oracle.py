"""The fast bar features equal their plain pandas twins, and bars to come move no bit of them."""

import os
import runpy
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from margincast.features import market
from margincast.features.library import LIBRARY, Window
from margincast.features.plan import FAMILIES
from margincast.features.sharing import select_sharing

HOUR = timedelta(hours=1)
COUNT = 1500
DECAYS = (0.9, 0.97)
WORKSPACE = Path(__file__).resolve().parents[2]
PLAIN = runpy.run_path(str(WORKSPACE / "benchmarks" / "plain_bar_features.py"))["PlainBars"]
assert FAMILIES  # their import fills the library

ROOTS = (
    "upside_volatility", "downside_volatility", "jump_volatility", "rogers_satchell_volatility",
    "residual_volatility",
)  # fmt: skip
"""Roots of a variance that may be zero in a market that moves: compared before the root.

A zero is the rounding of the variances before it, whose root is not so small.
"""


def simulated_bars(symbol, seed, gaps):
    """Hourly bars of changing volatility, heavy tails and opening jumps; some missing, in runs."""
    rng = np.random.default_rng(seed)
    calm = np.exp(np.cumsum(rng.normal(0, 0.01, COUNT)))
    path = 100 * np.exp(np.cumsum(rng.standard_t(4, (COUNT, 5)) * 0.002 * calm[:, None]))
    path = path.reshape(COUNT, 5)
    missing = np.convolve(rng.random(COUNT) < gaps, np.ones(3), mode="full")[:COUNT] > 0
    columns = {
        "open": path[:, 0],
        "high": path.max(axis=1),
        "low": path.min(axis=1),
        "close": path[:, -1],
        "volume": rng.lognormal(3, 1, COUNT),
    }
    frame = pl.DataFrame({"symbol": [symbol] * COUNT, **columns})
    here = pl.Series(~missing)
    return frame.with_columns(pl.when(here).then(pl.col(name)).alias(name) for name in columns)


def functions(family, *arguments):
    return sorted(
        name
        for (of, name), function in LIBRARY.items()
        if of == family and function.argument in arguments
    )


def windows_of(name, share):
    days = (28,) if name in {"intraday_seasonality", "weekly_seasonality"} else ()
    hours = [24 * length for length in days] or ([336] if name == "hill_tail_index" else [6, 24])
    return [Window.over(length * HOUR, HOUR, share) for length in hours]


def bar_columns(share):
    """Name, function and argument of every column of the family bars."""
    for name in functions("bars", "windows"):
        for window in windows_of(name, share):
            yield f"{name}_{window.label}", name, window
    for name in functions("bars", "values"):
        for decay in DECAYS:
            yield f"{name}_{decay:g}", name, decay


def assert_equal(found, expected, name):
    rounding = 1e-12
    if name.endswith(ROOTS):
        found, expected = found**2, expected**2
        rounding = 1e-12 if name.startswith("relative") else 1e-15
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=rounding, err_msg=name)


@pytest.mark.parametrize(("share", "gaps"), [(1.0, 0.0), (0.8, 0.01), (0.5, 0.05)])
def test_every_bar_feature_equals_plain_pandas(share, gaps):
    frames = [simulated_bars(f"C{seed}", seed, gaps) for seed in range(3)]
    columns = list(bar_columns(share))
    expressions = [LIBRARY["bars", name].build(over).alias(label) for label, name, over in columns]
    fast = pl.concat(select_sharing(frame, (), expressions) for frame in frames)
    panel = pd.concat([frame.to_pandas() for frame in frames], ignore_index=True)
    plain = PLAIN(panel, "C0").functions()
    decided = panel["close"].notna().to_numpy()
    for label, name, over in columns:
        found = fast[label].fill_null(np.nan).to_numpy()[decided]
        assert not np.isnan(found).all(), label
        assert_equal(found, plain[name](over).to_numpy()[decided], name)


@pytest.mark.parametrize(("share", "gaps"), [(1.0, 0.0), (0.5, 0.03)])
def test_every_feature_beside_the_leader_equals_plain_pandas(share, gaps):
    frames = [simulated_bars(f"C{seed}", seed + 10, gaps) for seed in range(2)]
    panel = pd.concat([frame.to_pandas() for frame in frames], ignore_index=True)
    plain = PLAIN(panel, "C0").against_leader()
    returns = [frame.select(pl.col("close").log().diff().alias("r")) for frame in frames]
    leader = returns[0]["r"].alias(market.of_leader("r"))
    names = functions("market", "columns and windows")
    for window in (Window.over(length * HOUR, HOUR, share) for length in (6, 48)):
        expressions = [
            LIBRARY["market", name].build("r", window).alias(name)
            for name in names
        ]  # fmt: skip
        beside = [own.with_columns(leader) for own in returns]
        fast = pl.concat(select_sharing(frame, (), expressions) for frame in beside)
        for name in names:
            found = fast[name].fill_null(np.nan).to_numpy()
            expected = plain[name](window).to_numpy()
            assert_equal(found, expected, name)


IN_ANOTHER_PROCESS = """
import hashlib, sys
import numpy as np
import polars as pl
from margincast.features.library import LIBRARY, Window
from margincast.features.plan import FAMILIES
from margincast.features.sharing import select_sharing

frame = pl.read_parquet(sys.argv[1])
expressions = []
for (family, name), function in sorted(LIBRARY.items()):
    if family == "bars" and function.argument == "values":
        expressions.append(function.build(0.94).alias(name))
    if family == "bars" and function.argument == "windows":
        rows = 672 if name.endswith("seasonality") else 24
        label = "28d" if rows == 672 else "1d"
        expressions.append(function.build(Window(rows, rows // 2, label)).alias(name))
print(pl.thread_pool_size())
for length in map(int, sys.argv[2:]):
    for later in (frame, frame.fill_null(strategy="forward").fill_null(strategy="backward")):
        # what comes after row 800 has gaps or has none, and ends here or there
        bars = pl.concat([frame.head(800), later.slice(800, length - 800)])
        features = select_sharing(bars, (), expressions).head(800)
        known = features.select(pl.all().fill_null(float("nan"))).to_numpy()
        print(hashlib.sha256(np.ascontiguousarray(known).tobytes()).hexdigest())
"""


def test_no_bit_hangs_on_later_rows_nor_on_the_number_of_threads(tmp_path):
    many = pl.concat([simulated_bars(f"C{seed}", seed, 0.02) for seed in range(90)])
    many.drop("symbol").write_parquet(tmp_path / "bars.parquet")
    # around the sizes at which engines cut tables: powers of two, and none
    lengths = [800, 801, 1024, 1500, 4097, 16_385, 65_537, 131_073]
    digests = set()
    for threads in ("1", "2"):
        ran = subprocess.run(  # noqa: S603  # this interpreter and the script above
            [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path / "bars.parquet"),
             *map(str, lengths)],
            env={**os.environ, "POLARS_MAX_THREADS": threads},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        used, *found = ran.stdout.split()
        assert used == threads
        assert len(found) == 2 * len(lengths)
        digests |= set(found)
    assert len(digests) == 1
