"""Implied volatility: what option markets charge for the moves to come.

Functions read the leader's regular bars with the states known at each close beside them; every
contract sees the leader's values. ``index`` reads an index of implied volatility; ``options`` reads
a chain's surface: ``svi`` fits a smile, ``smiles`` a snapshot, ``surface`` makes constant
maturities of all.
"""

from margincast.features.implied_vol.index import (
    implied_less_realised,
    implied_volatility,
    implied_volatility_change,
    implied_volatility_rank,
    log_implied_over_realised,
    log_implied_volatility,
    variance_risk_premium,
)
from margincast.features.implied_vol.options import (
    atm_less_realised,
    atm_term_slope,
    atm_volatility,
    butterfly_25_delta,
    log_atm_over_realised,
    log_atm_volatility,
    relative_butterfly_25_delta,
    relative_skew_25_delta,
    skew_25_delta,
)
from margincast.features.implied_vol.surface import (
    surface_findings,
    surface_states,
    tenors_in,
)

__all__ = [
    "atm_less_realised",
    "atm_term_slope",
    "atm_volatility",
    "butterfly_25_delta",
    "implied_less_realised",
    "implied_volatility",
    "implied_volatility_change",
    "implied_volatility_rank",
    "log_atm_over_realised",
    "log_atm_volatility",
    "log_implied_over_realised",
    "log_implied_volatility",
    "relative_butterfly_25_delta",
    "relative_skew_25_delta",
    "skew_25_delta",
    "surface_findings",
    "surface_states",
    "tenors_in",
    "variance_risk_premium",
]
