"""A bundle as an MLflow model, so that ``mlflow models predict`` and Spark give the same forecast.

A *model from code*: MLflow copies this file beside the bundle and runs it to load the model.
margincast itself never serves through it; it reads the bundle directly.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from margincast.core.types import FloatArray
from margincast.models.protocol import Panel, TailForecast, Unit
from margincast.serving.bundle import Bundle, installed_loaders, read_bundle
from margincast.serving.manifest import Manifest
from margincast.serving.signature import (
    FEATURE_SET_PARAMETER,
    LAYOUT_PARAMETER,
    LONG,
    WIDE,
    require_signature,
)


class BundleModel(PythonModel):
    """Forecasts of a bundle: decisions and their features in, forecasts out."""

    bundle: Bundle

    def load_context(self, context: PythonModelContext) -> None:
        """Verify and load the bundle.

        Raises:
            BundleError: any byte of it was changed, or the signature beside it is not its own.
        """
        directory = Path(context.artifacts["bundle"])
        self.bundle = read_bundle(directory, installed_loaders(directory))
        # MLflow keeps the bundle as MODEL/artifacts/bundle
        require_signature(directory.parents[1], self.bundle.manifest)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's calling convention
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return the forecasts, simple fractions of the decision price.

        Args:
            context: unused.
            model_input: ``symbol`` (text), ``ts`` (decision time, ISO 8601 text, UTC unless it
                says otherwise) and the features (float64), n rows.
            params: ``feature_set_hash``, SHA-256 of the feature set that the features were built
                with (``features.json`` says it): not given, they are taken for the bundle's own;
                ``layout`` of the answer, ``"long"`` (not given) or ``"wide"``.

        Returns:
            In the long layout n x horizons x sides x levels rows: symbol, ts, horizon_minutes,
            side, level, forecast and, for a model that has it, expected_shortfall. In the wide
            layout n rows (what a Spark UDF must answer): symbol, ts, and columns such as
            ``forecast_480m_long_0.99``. NaN where a feature is infinite.

        Raises:
            MlflowException: the features are of another set, a ``ts`` is no time, or there is no
                such layout; MLflow's server answers 400.
        """
        chosen = params or {}
        _require_feature_set(chosen, self.bundle.manifest)
        layout = chosen.get(LAYOUT_PARAMETER, LONG)
        if layout not in {LONG, WIDE}:
            raise MlflowException.invalid_parameter_value(
                f"there is no layout {layout!r}; layouts are {LONG!r} and {WIDE!r}"
            )
        try:
            instants = pd.to_datetime(model_input["ts"], utc=True, format="ISO8601")
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(
                f"column ts holds decision times as ISO 8601 text: {error}"
            ) from error
        frame = model_input.assign(ts=instants.astype("datetime64[us, UTC]"))
        panel, back = _panel(frame.reset_index(drop=True), self.bundle)
        forecaster = self.bundle.forecaster
        found = forecaster.predict(dict.fromkeys(forecaster.horizons_minutes, panel))
        ordered = {minutes: forecast.rows(back) for minutes, forecast in found.items()}
        arrange = _long if layout == LONG else _wide
        return arrange(model_input[["symbol", "ts"]], ordered)


def _long(decisions: pd.DataFrame, forecasts: Mapping[int, TailForecast]) -> pd.DataFrame:
    """A row a decision, horizon, side and level."""
    first = next(iter(forecasts.values()))
    each = len(first.sides) * len(first.levels)
    answer = pd.DataFrame(
        {
            name: np.repeat(decisions[name].to_numpy(dtype=object), len(forecasts) * each)
            for name in ("symbol", "ts")
        }
    )
    rows = len(decisions)
    answer["horizon_minutes"] = np.tile(np.repeat(np.array([*forecasts], float), each), rows)
    of_sides = np.repeat(np.array(first.sides, dtype=object), len(first.levels))
    answer["side"] = np.tile(of_sides, rows * len(forecasts))
    answer["level"] = np.tile(np.array(first.levels), rows * len(forecasts) * len(first.sides))
    for name, values in _values(forecasts).items():
        answer[name] = np.stack(values, axis=1).ravel()
    return answer


def _wide(decisions: pd.DataFrame, forecasts: Mapping[int, TailForecast]) -> pd.DataFrame:
    """A row a decision, a column a horizon, side and level."""
    columns = {
        f"{name}_{minutes}m_{side}_{level:g}": of_horizon[:, i, j]
        for name, values in _values(forecasts).items()
        for (minutes, forecast), of_horizon in zip(forecasts.items(), values, strict=True)
        for i, side in enumerate(forecast.sides)
        for j, level in enumerate(forecast.levels)
    }
    return pd.concat([decisions, pd.DataFrame(columns, index=decisions.index)], axis=1)


def _values(forecasts: Mapping[int, TailForecast]) -> dict[str, list[FloatArray]]:
    """What is answered, by name, a horizon each; shortfalls only where every horizon has them."""
    values = {"forecast": [one.quantiles for one in forecasts.values()]}
    beyond = [one.expected_shortfall for one in forecasts.values()]
    known = [shortfall for shortfall in beyond if shortfall is not None]
    return values | ({"expected_shortfall": known} if len(known) == len(beyond) else {})


def _require_feature_set(params: dict[str, Any], manifest: Manifest) -> None:
    """Refuse features of another set: columns of the same name may mean something else there."""
    own = manifest.metadata.feature_set_hash
    given = params.get(FEATURE_SET_PARAMETER, own)
    if given != own:
        raise MlflowException.invalid_parameter_value(
            f"the features were built with feature set {given}, this model (job "
            f"{manifest.metadata.job}) was trained on feature set {own}: build them with the set "
            "in the bundle (specs/features.json)"
        )


def _panel(
    frame: pd.DataFrame, bundle: Bundle
) -> tuple[Panel, "np.ndarray[tuple[int], np.dtype[np.intp]]"]:
    """Return decisions in the order of time, and where each row of ``frame`` went."""
    metadata = bundle.manifest.metadata
    order = np.lexsort((frame["symbol"].to_numpy(dtype=str), frame["ts"].to_numpy()))
    units: dict[str, Unit] = dict.fromkeys(metadata.feature_columns, "number")
    return Panel.of_decisions(frame.iloc[order], units, metadata.sides), np.argsort(order)


set_model(BundleModel())
