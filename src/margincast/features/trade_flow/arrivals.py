"""Whether trades came evenly or in bursts: clustered arrivals are what cascades are made of.

Trades that arrive independently at a steady rate (a Poisson process) give 1 for both functions,
evenly spaced ones less, bursts more. Times are those at which trades were known. How many came is
:func:`~margincast.features.trade_flow.activity.trade_count`.
"""

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.rolling import rolling_mean


@feature("trades", "number")
def count_fano_factor(window: Window) -> pl.Expr:
    """Variance over mean of the number of trades in the window's intervals; at least 0.

    The sample variance (divided by one less than the number of known intervals). Null with fewer
    than two known intervals and where nothing was traded.

    Source: Fano (1947), Ionization yield of radiations, doi:10.1103/PhysRev.72.26; for trades as a
    measure of self-excitation, Hardiman and Bouchaud (2014), doi:10.1103/PhysRevE.90.062807.
    """
    count = pl.col("trade_count")
    known = count.is_not_null().cast(pl.Float64).rolling_sum(window.rows, min_samples=1)
    mean = rolling_mean(count, window)
    # whole numbers and their squares are summed exactly
    variance = (rolling_mean(count.pow(2), window) - mean.pow(2)).clip(0) * known / (known - 1)
    return pl.when((known > 1) & (mean > 0)).then(variance / mean)


@feature("trades", "number")
def duration_variation(window: Window) -> pl.Expr:
    """Standard deviation over mean of the time between trades in the window; at least 0.

    Over the durations between consecutive trades of the same interval: across intervals a duration
    cannot be told from a hole in the feed, so long ones are missing where trades are rare. Null
    where the window has fewer than two durations and where all trades came at once.

    Source: the dispersion of durations in Engle and Russell (1998), Autoregressive conditional
    duration, doi:10.2307/2999632.
    """
    number = rolling_mean(pl.col("durations"), window)
    total = pl.col("durations").rolling_sum(window.rows, min_samples=window.minimum)
    mean = rolling_mean(pl.col("duration_seconds"), window) / number
    square = rolling_mean(pl.col("duration_squares"), window) / number
    deviation = (square - mean.pow(2)).clip(0).sqrt()
    return pl.when((total > 1) & (mean > 0)).then(deviation / mean)
