"""Volatility of one contract's bars: the features the conditional scale stands on.

Every function is an expression over regular bars (one row a grid step, null where a bar is
missing); row t uses bars closed by t, and no more than a stated number of windows back. One file an
idea: ``realised`` and ``ranges`` (estimators), ``jumps``, ``moments``, ``moves``, ``large_moves``,
``term_structure``, ``seasonality`` and ``scale_free`` (the same over the contract's own scale).
"""

from margincast.features.volatility.jumps import (
    bipower_volatility,
    jump_share,
    jump_volatility,
    median_volatility,
)
from margincast.features.volatility.large_moves import (
    hill_tail_index,
    large_move_count,
    large_move_size,
    largest_fall,
    largest_rise,
)
from margincast.features.volatility.moments import (
    realised_kurtosis,
    realised_skewness,
)
from margincast.features.volatility.moves import (
    drawdown,
    log_return,
    log_volume_deviation,
    run_up,
)
from margincast.features.volatility.ranges import (
    garman_klass_volatility,
    log_range,
    parkinson_volatility,
    price_range,
    rogers_satchell_volatility,
    yang_zhang_volatility,
)
from margincast.features.volatility.realised import (
    downside_share,
    downside_volatility,
    ewma_memory,
    ewma_volatility,
    realised_volatility,
    upside_volatility,
)
from margincast.features.volatility.scale_free import (
    relative_bipower_volatility,
    relative_downside_volatility,
    relative_drawdown,
    relative_ewma_volatility,
    relative_garman_klass_volatility,
    relative_jump_volatility,
    relative_log_return,
    relative_median_volatility,
    relative_parkinson_volatility,
    relative_price_range,
    relative_realised_volatility,
    relative_rogers_satchell_volatility,
    relative_run_up,
    relative_upside_volatility,
    relative_yang_zhang_volatility,
)
from margincast.features.volatility.seasonality import (
    intraday_seasonality,
    weekly_seasonality,
)
from margincast.features.volatility.term_structure import (
    log_parkinson_volatility,
    log_realised_volatility,
    volatility_of_volatility,
    volatility_term_curvature,
    volatility_term_slope,
)

__all__ = [
    "bipower_volatility",
    "downside_share",
    "downside_volatility",
    "drawdown",
    "ewma_memory",
    "ewma_volatility",
    "garman_klass_volatility",
    "hill_tail_index",
    "intraday_seasonality",
    "jump_share",
    "jump_volatility",
    "large_move_count",
    "large_move_size",
    "largest_fall",
    "largest_rise",
    "log_parkinson_volatility",
    "log_range",
    "log_realised_volatility",
    "log_return",
    "log_volume_deviation",
    "median_volatility",
    "parkinson_volatility",
    "price_range",
    "realised_kurtosis",
    "realised_skewness",
    "realised_volatility",
    "relative_bipower_volatility",
    "relative_downside_volatility",
    "relative_drawdown",
    "relative_ewma_volatility",
    "relative_garman_klass_volatility",
    "relative_jump_volatility",
    "relative_log_return",
    "relative_median_volatility",
    "relative_parkinson_volatility",
    "relative_price_range",
    "relative_realised_volatility",
    "relative_rogers_satchell_volatility",
    "relative_run_up",
    "relative_upside_volatility",
    "relative_yang_zhang_volatility",
    "rogers_satchell_volatility",
    "run_up",
    "upside_volatility",
    "volatility_of_volatility",
    "volatility_term_curvature",
    "volatility_term_slope",
    "weekly_seasonality",
    "yang_zhang_volatility",
]
