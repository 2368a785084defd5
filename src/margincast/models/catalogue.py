"""The forecasters by name: ours and the peers, made from one training spec."""

from collections.abc import Callable, Mapping
from datetime import timedelta

from margincast.core.errors import InputError, did_you_mean
from margincast.core.types import Side
from margincast.models.filtered_historical import Filter, FilteredHistorical
from margincast.models.lightgbm_raw import LightGbmRaw
from margincast.models.margincast import MargincastForecaster
from margincast.models.protocol import Forecaster
from margincast.models.scale import HarScale
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
        InputError: no such forecaster; says which there are.
    """

    def historical(filter_name: Filter, history: timedelta | None) -> FilteredHistorical:
        scale = model.scale
        return FilteredHistorical(
            name=name,
            filter=filter_name,
            column=model.peers.ewma_column,
            har=HarScale(scale.columns, scale.seasonal_harmonics, scale.ridge),
            history=history,
            minimum_exceedances=model.peers.minimum_exceedances,
            sides=sides,
            levels=levels,
        )

    makers: Mapping[str, Callable[[], Forecaster]] = {
        OURS: lambda: MargincastForecaster(model, sides, levels, overlap, threads),
        "static": lambda: historical("none", None),
        "ewma_fhs": lambda: historical("column", model.peers.history),
        "har_fhs": lambda: historical("har", model.peers.history),
        "lightgbm_raw": lambda: LightGbmRaw(
            sides, levels, model.stride, model.minimum_rows, model.head.seed, threads
        ),
    }
    if name not in makers:
        hint = did_you_mean(name, makers) or f"; there are {', '.join(sorted(makers))}"
        raise InputError(f"no forecaster '{name}'{hint}")
    return makers[name]()


LOADERS: Mapping[str, type[Forecaster]] = {
    OURS: MargincastForecaster,
    "static": FilteredHistorical,
    "ewma_fhs": FilteredHistorical,
    "har_fhs": FilteredHistorical,
    "lightgbm_raw": LightGbmRaw,
}
"""Which class reads a saved model of each name; the only classes a bundle may name."""
