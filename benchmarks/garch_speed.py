"""What a GARCH peer costs: parameters and filters of 20 contracts x 5 years of hourly returns.

Both sides estimate the same returns of a simulated GARCH-t market. Ours also frees them of the
rhythm of the day, filters every contract and sums variances over an 8 h horizon; the bare side
calls ``arch`` once a contract and does nothing with the result. Budget: 60 s, whole.

Run: ``OMP_NUM_THREADS=1 python benchmarks/garch_speed.py``
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
from arch.univariate import arch_model

from margincast.core.types import FloatArray
from margincast.models.garch_filter import GarchFilter

BUDGET_SECONDS = 60.0
HOURS_PER_YEAR = 24 * 365
HORIZON_STEPS = 8


def main() -> None:
    """Fit both ways in turn and compare the fastest of each."""
    parser = argparse.ArgumentParser(description="GARCH peers against bare arch fits")
    parser.add_argument("--contracts", type=int, default=20, help="contracts to simulate")
    parser.add_argument("--years", type=float, default=5.0, help="length of each, in years")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    arguments = parser.parse_args()

    returns = _simulated_returns(round(arguments.years * HOURS_PER_YEAR), arguments.contracts)
    frame = _decisions(returns)
    worst = 0.0
    for name, asymmetric in (("GARCH", False), ("GJR-GARCH", True)):
        ours, bare, estimation = [], [], []
        for _ in range(arguments.repeats):
            bare.append(_bare(returns, asymmetric=asymmetric))
            started = time.process_time()
            fitted = GarchFilter(asymmetric, HORIZON_STEPS).fit(frame)
            estimation.append(time.process_time() - started)
            fitted.volatility(frame)
            ours.append(time.process_time() - started)
        worst = max(worst, min(ours))
        print(
            f"{name}-t: {min(ours):.1f} s ({min(ours) - min(estimation):.1f} s of it filtering), "
            f"bare arch {min(bare):.1f} s, ratio {min(ours) / min(bare):.2f}; "
            f"{len(fitted.not_converged)} estimation(s) did not converge"
        )
    kept = "kept" if worst <= BUDGET_SECONDS else "EXCEEDED"
    print(
        f"{arguments.contracts} contracts x {arguments.years:g} years: {worst:.1f} s, "
        f"budget {BUDGET_SECONDS:g} s ({kept})"
    )


def _bare(returns: FloatArray, *, asymmetric: bool) -> float:
    """Seconds that one plain ``arch`` fit a contract takes, in percent as its manual advises."""
    started = time.process_time()
    for series in 100 * returns.T:
        model = arch_model(series, vol="GARCH", p=1, o=int(asymmetric), q=1, dist="t")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            model.fit(disp="off", show_warning=False)
    return time.process_time() - started


def _simulated_returns(hours: int, contracts: int) -> FloatArray:
    """GARCH-t returns with the persistence of crypto hours, shape (hours, contracts)."""
    rng = np.random.default_rng(7)
    shocks = rng.standard_t(4, (hours, contracts)) / np.sqrt(2)
    returns = np.empty_like(shocks)
    long_run = (0.005 * np.linspace(1, 3, contracts)) ** 2
    alpha, beta = 0.07, 0.925
    variance = long_run.copy()
    for hour, shock in enumerate(shocks):
        returns[hour] = np.sqrt(variance) * shock
        variance = (1 - alpha - beta) * long_run + alpha * returns[hour] ** 2 + beta * variance
    return returns


def _decisions(returns: FloatArray) -> pd.DataFrame:
    hours, contracts = returns.shape
    ts = pd.date_range("2020-01-01", periods=hours, freq="h", tz="UTC", unit="us")
    return pd.DataFrame(
        {
            "symbol": np.tile([f"SIM-{number:02d}" for number in range(contracts)], hours),
            "ts": np.repeat(ts, contracts),
            "close": 100 * np.exp(np.cumsum(returns, axis=0)).ravel(),
        }
    )


if __name__ == "__main__":
    main()
