"""A bundle as an MLflow model, so that ``mlflow models predict`` and Spark give the same forecast.

A *model from code*: MLflow copies this file beside the bundle and runs it to load the model.
margincast itself never serves through it; it reads the bundle directly.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from margincast.models.protocol import Panel, Unit
from margincast.serving.bundle import Bundle, installed_loaders, read_bundle


class BundleModel(PythonModel):
    """Forecasts of a bundle: a row a decision in, a row a decision, horizon, side and level out."""

    bundle: Bundle

    def load_context(self, context: PythonModelContext) -> None:
        """Verify and load the bundle; raises BundleError if any byte was changed."""
        directory = Path(context.artifacts["bundle"])
        self.bundle = read_bundle(directory, installed_loaders(directory))

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's calling convention
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002 - MLflow's calling convention
    ) -> pd.DataFrame:
        """Return the forecasts, simple fractions of the decision price.

        Args:
            context: unused.
            model_input: ``symbol`` (text), ``ts`` (decision time, ISO 8601 text, UTC unless it
                says otherwise) and the features (float64), n rows.
            params: unused.

        Returns:
            n x horizons x sides x levels rows: symbol, ts, horizon_minutes, side, level, forecast
            and, for a model that has it, expected_shortfall; NaN where a feature is infinite.
        """
        instants = pd.to_datetime(model_input["ts"], utc=True, format="ISO8601")
        frame = model_input.assign(ts=instants.astype("datetime64[us, UTC]"))
        panel, back = _panel(frame.reset_index(drop=True), self.bundle)
        forecaster = self.bundle.forecaster
        horizons = forecaster.horizons_minutes
        found = forecaster.predict(dict.fromkeys(horizons, panel))
        forecasts = [found[minutes].rows(back) for minutes in horizons]
        sides, levels = forecasts[0].sides, forecasts[0].levels
        each, rows = len(sides) * len(levels), len(panel)
        answer = pd.DataFrame(
            {
                name: np.repeat(model_input[name].to_numpy(dtype=object), len(horizons) * each)
                for name in ("symbol", "ts")
            }
        )
        answer["horizon_minutes"] = np.tile(np.repeat(np.array(horizons, float), each), rows)
        of_sides = np.repeat(np.array(sides, dtype=object), len(levels))
        answer["side"] = np.tile(of_sides, rows * len(horizons))
        answer["level"] = np.tile(np.array(levels), rows * len(horizons) * len(sides))
        answer["forecast"] = np.stack([one.quantiles for one in forecasts], axis=1).ravel()
        beyond = [one.expected_shortfall for one in forecasts]
        known = [shortfall for shortfall in beyond if shortfall is not None]
        if len(known) == len(beyond):
            answer["expected_shortfall"] = np.stack(known, axis=1).ravel()
        return answer


def _panel(
    frame: pd.DataFrame, bundle: Bundle
) -> tuple[Panel, "np.ndarray[tuple[int], np.dtype[np.intp]]"]:
    """Return decisions in the order of time, and where each row of ``frame`` went."""
    metadata = bundle.manifest.metadata
    order = np.lexsort((frame["symbol"].to_numpy(dtype=str), frame["ts"].to_numpy()))
    units: dict[str, Unit] = dict.fromkeys(metadata.feature_columns, "number")
    return Panel.of_decisions(frame.iloc[order], units, metadata.sides), np.argsort(order)


set_model(BundleModel())
