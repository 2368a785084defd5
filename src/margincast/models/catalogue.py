"""The forecasters by name: ours and the peers, made from one training spec."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from margincast.core.errors import InputError, did_you_mean
from margincast.core.types import Side
from margincast.models.caviar_forecaster import CaviarForecaster
from margincast.models.checks import require_levels
from margincast.models.filtered_historical import Filter, FilteredHistorical
from margincast.models.forest import QuantileRandomForest
from margincast.models.garch_historical import GarchHistorical, Tail
from margincast.models.har_quantile import HarQuantile
from margincast.models.lightgbm_raw import DEFAULTS, TUNED, LightGbmRaw
from margincast.models.margincast import MargincastForecaster
from margincast.models.protocol import Forecaster
from margincast.models.scale import HarScale
from margincast.models.sklearn_boosting import SklearnBoosting
from margincast.specs.training import Model

OURS = "margincast"


def make_forecaster(
    name: str,
    model: Model,
    sides: tuple[Side, ...],
    levels: tuple[float, ...],
    *,
    overlap: float,
    threads: int,
) -> Forecaster:
    """Make an unfitted forecaster.

    Args:
        name: ``margincast`` or a peer.
        model: ``[model]`` of the training spec.
        sides: sides to forecast.
        levels: increasing levels to forecast.
        overlap: consecutive decisions of a contract that share one horizon.
        threads: OpenMP threads.

    Raises:
        InputError: no such forecaster (says which there are), or levels that do not increase.
    """
    require_levels(levels)
    scale, peers = model.scale, model.peers

    def historical(
        filter_name: Filter, history: timedelta | None, column: str = peers.ewma_column
    ) -> FilteredHistorical:
        return FilteredHistorical(
            name=name,
            filter=filter_name,
            column=column,
            har=HarScale(scale.columns, scale.seasonal_harmonics, scale.ridge),
            history=history,
            minimum_exceedances=peers.minimum_exceedances,
            sides=sides,
            levels=levels,
        )

    def garch(*, asymmetric: bool, tail: Tail) -> GarchHistorical:
        return GarchHistorical(
            name=name,
            asymmetric=asymmetric,
            tail=tail,
            history=peers.history,
            minimum_exceedances=peers.minimum_exceedances,
            sides=sides,
            levels=levels,
            overlap=overlap,
        )

    def caviar(*, asymmetric: bool) -> CaviarForecaster:
        return CaviarForecaster(name, asymmetric, sides, levels, overlap)

    def har_quantile(*, logarithmic: bool, seasonal: bool) -> HarQuantile:
        harmonics = scale.seasonal_harmonics if seasonal else ()
        return HarQuantile(name, logarithmic, scale.columns, harmonics, sides, levels, overlap)

    raw: Mapping[str, Any] = {
        "name": name,
        "sides": sides,
        "levels": levels,
        "stride": model.stride,
        "minimum_rows": model.minimum_rows,
        "seed": model.head.seed,
        "threads": threads,
    }
    makers: Mapping[str, Callable[[], Forecaster]] = {
        OURS: lambda: MargincastForecaster(model, sides, levels, overlap, threads),
        "static": lambda: historical("none", None),
        "rolling_hs": lambda: historical("none", peers.history),
        "ewma_fhs": lambda: historical("column", peers.history),
        "parkinson_fhs": lambda: historical("column", peers.history, peers.parkinson_column),
        "har_fhs": lambda: historical("har", peers.history),
        "garch_t_fhs": lambda: garch(asymmetric=False, tail="empirical"),
        "gjr_t_fhs": lambda: garch(asymmetric=True, tail="empirical"),
        "garch_evt": lambda: garch(asymmetric=False, tail="generalised_pareto"),
        "caviar_sav": lambda: caviar(asymmetric=False),
        "caviar_as": lambda: caviar(asymmetric=True),
        "har_qr": lambda: har_quantile(logarithmic=False, seasonal=False),
        "har_qr_seasonal": lambda: har_quantile(logarithmic=False, seasonal=True),
        "har_qr_log": lambda: har_quantile(logarithmic=True, seasonal=False),
        "har_qr_log_seasonal": lambda: har_quantile(logarithmic=True, seasonal=True),
        "quantile_forest": lambda: QuantileRandomForest(**raw),
        "sklearn_gbq": lambda: SklearnBoosting(**raw),
        "lightgbm_raw": lambda: LightGbmRaw(**raw, settings=DEFAULTS),
        "lightgbm_raw_tuned": lambda: LightGbmRaw(**raw, settings=TUNED),
    }
    if name not in makers:
        hint = did_you_mean(name, makers) or f"; there are {', '.join(sorted(makers))}"
        raise InputError(f"no forecaster '{name}'{hint}")
    return makers[name]()


LOADERS: Mapping[str, type[Forecaster]] = {
    OURS: MargincastForecaster,
    **dict.fromkeys(
        ("static", "rolling_hs", "ewma_fhs", "parkinson_fhs", "har_fhs"), FilteredHistorical
    ),
    **dict.fromkeys(("garch_t_fhs", "gjr_t_fhs", "garch_evt"), GarchHistorical),
    **dict.fromkeys(("caviar_sav", "caviar_as"), CaviarForecaster),
    **dict.fromkeys(
        ("har_qr", "har_qr_seasonal", "har_qr_log", "har_qr_log_seasonal"), HarQuantile
    ),
    "quantile_forest": QuantileRandomForest,
    "sklearn_gbq": SklearnBoosting,
    **dict.fromkeys(("lightgbm_raw", "lightgbm_raw_tuned"), LightGbmRaw),
}
"""Which class reads a saved model of each name; the only classes a bundle may name."""
