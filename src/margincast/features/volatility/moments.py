"""The shape of recent returns: skewness and kurtosis, which side and how heavy the tail is.

Pure numbers, the same for a price in any unit and for any volatility; row t uses bars closed by t.
Source: Amaya, Christoffersen, Jacobs and Vasquez (2015) doi:10.1016/j.jfineco.2015.02.009.
"""

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.rolling import rolling_mean
from margincast.features.volatility.returns import (
    LOG_RETURN,
    SQUARED_RETURN,
    moved,
    realised_variance,
)


@feature("bars", "number")
def realised_skewness(window: Window) -> pl.Expr:
    """Mean r^3 over (mean r^2)^1.5 in the window; negative where falls are the larger moves.

    Amaya, Christoffersen, Jacobs and Vasquez (2015) doi:10.1016/j.jfineco.2015.02.009. Within the
    root of the number of returns on either side of 0. Null where too few returns are known or
    nothing moved.
    """
    cubes = rolling_mean(SQUARED_RETURN * LOG_RETURN, window)
    variance = moved(realised_variance(window))
    return cubes / (variance * variance.sqrt())


@feature("bars", "number")
def realised_kurtosis(window: Window) -> pl.Expr:
    """Mean r^4 over (mean r^2)^2 in the window; 3 for normal returns of one volatility.

    Amaya, Christoffersen, Jacobs and Vasquez (2015) doi:10.1016/j.jfineco.2015.02.009. From 1 (all
    returns alike in size) to the number of returns (a single one). Null where too few returns are
    known or nothing moved.
    """
    fourths = rolling_mean(SQUARED_RETURN * SQUARED_RETURN, window)
    return fourths / moved(realised_variance(window)).pow(2)
