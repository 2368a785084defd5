"""What the whole market shows: all contracts at once, the leader, and a contract beside the leader.

A contract's tail widens when the market's does, often before its own bars show it. Cross-sections
read the panel of all contracts at one decision time, every contract known then with the same
weight. Functions over columns and windows read one contract's column beside the leader's
(``BTCUSDT``, say), row by row of the grid; they are known where both are.

Columns come from the set's other tables, and give the unit: of a column that is a number, a
cross-section is a number too. "A return" below is a column such as ``log_return_1h``; one grid step
is the natural length, since longer ones overlap from row to row.
"""

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.regression import correlation, residual_deviation, slope
from margincast.features.rolling import rolling_mean

LARGE_MOVE = 3.0
"""A move is large from this multiple of its own scale: the usual three standard deviations."""


def of_leader(column: str) -> str:
    """Name under which the leader's value of a column stands beside a contract's own."""
    return f"leader's {column}"


@feature("market", "fraction", argument="columns")
def market_median(column: str) -> pl.Expr:
    """Median of a column over the contracts known at the decision time."""
    return pl.col(column).median()


@feature("market", "fraction", argument="columns")
def leader(column: str) -> pl.Expr:
    """The leading contract's value of a column; unknown where it has none."""
    return pl.col(column).filter(pl.col("is_leader")).first()


@feature("market", "fraction", argument="columns")
def market_root_mean_square(column: str) -> pl.Expr:
    """Root of the mean square of a column over the contracts: of a return, the market's volatility.

    ``sqrt(mean(x^2))``, at least 0, from one moment alone: the cross-section stands in for a
    window. The same for a market that falls as for one that rises. Null where no contract has a
    value.
    """
    return _ordered(column).pow(2).mean().sqrt()


@feature("market", "fraction", argument="columns")
def market_dispersion(column: str) -> pl.Expr:
    """Standard deviation of a column over the contracts: how far they go their own ways.

    ``sqrt(mean((x - mean(x))^2))`` (population), at least 0; the same in a mirrored market. Null
    with fewer than two contracts.

    Source: cross-sectional return dispersion, Stivers and Sun (2010),
    doi:10.1017/S0022109010000384.
    """
    values = _ordered(column)
    return pl.when(values.count() > 1).then(values.std(ddof=0))


@feature("market", "number", argument="columns")
def breadth_of_falls(column: str) -> pl.Expr:
    """Share of contracts whose value is below zero; in [0, 1].

    Of a return: how much of the market falls together. Null where no contract has a value.
    """
    return (pl.col(column) < 0).mean()


@feature("market", "number", argument="pairs")
def breadth_of_large_moves(move: str, scale: str) -> pl.Expr:
    """Share of contracts whose move exceeds ``LARGE_MOVE`` times its own scale, either way.

    ``mean(|move| > 3 scale)``, in [0, 1]; the two columns are a return of one grid step and a
    volatility per square root of one bar, as ``columns = ["log_return_1h",
    "realised_volatility_7d"]``. Over contracts that have both; null where none has.
    """
    return (pl.col(move).abs() > LARGE_MOVE * pl.col(scale)).mean()


@feature("market", "number", argument="columns and windows")
def correlation_to_leader(column: str, window: Window) -> pl.Expr:
    """Pearson correlation of a return with the leader's, over the window; in [-1, 1].

    1 for the leader itself. Null with fewer rows known of both than the window asks for, or than
    three, and where either never varied.
    """
    return correlation(pl.col(column), pl.col(of_leader(column)), window)


@feature("market", "number", argument="columns and windows")
def beta_to_leader(column: str, window: Window) -> pl.Expr:
    """Slope of a return on the leader's, least squares with a constant over the window.

    1 for the leader itself; the same in a mirrored market. Null with fewer rows known of both than
    the window asks for, or than three, and where the leader never varied.

    Source: the market model, Sharpe (1964), doi:10.1111/j.1540-6261.1964.tb02865.x.
    """
    return slope(pl.col(column), pl.col(of_leader(column)), window)


@feature("market", "fraction", argument="columns and windows")
def residual_volatility(column: str, window: Window) -> pl.Expr:
    """Root of the mean squared residual of :func:`beta_to_leader`'s line; at least 0.

    What of a contract's volatility the leader does not explain; 0 for the leader itself. Null where
    beta is.
    """
    return residual_deviation(pl.col(column), pl.col(of_leader(column)), window)


@feature("market", "fraction", argument="columns and windows")
def leader_gap(column: str, window: Window) -> pl.Expr:
    """Mean over the window of the leader's value less the contract's own.

    Of a return over one grid step: the leader's last move that the contract has not made, or has
    made already (below zero). 0 for the leader itself; changes sign in a mirrored market. Null with
    fewer rows known of both than the window asks for.
    """
    return rolling_mean(pl.col(of_leader(column)) - pl.col(column), window)


@feature("market", "number", argument="columns and windows")
def lead_lag(column: str, window: Window) -> pl.Expr:
    """How much better the leader's last return foretells the contract's than the other way round.

    ``corr(own_t, leader_{t-1}) - corr(own_{t-1}, leader_t)`` over the window, t in grid steps; in
    [-2, 2], above 0 where the leader leads, 0 for the leader itself. The window's first pairs reach
    one row behind it. Null where either correlation is (see :func:`correlation_to_leader`).

    Source: Lo and MacKinlay (1990), When are contrarian profits due to stock market overreaction?,
    doi:10.1093/rfs/3.2.175.
    """
    own, leading = pl.col(column), pl.col(of_leader(column))
    follows = correlation(own, leading.shift(1), window)
    goes_before = correlation(own.shift(1), leading, window)
    return follows - goes_before


def _ordered(column: str) -> pl.Expr:
    """Known values in order of size: a sum over contracts must not hang on how they are dealt out.

    A grouped sum adds in the order in which threads meet the rows, and with it the last bits.
    """
    return pl.col(column).drop_nulls().sort()
