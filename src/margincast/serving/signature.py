"""The signature: which columns MLflow hands a bundle, and of which feature set they must be.

It is written when a bundle is logged and must still be there when the bundle is loaded. Column
names alone cannot tell one feature set from another that calls its columns the same; the set's
hash can, and is a parameter of the model.
"""

from pathlib import Path

from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from margincast.core.errors import BundleError
from margincast.serving.manifest import Manifest

FEATURE_SET_PARAMETER = "feature_set_hash"
LAYOUT_PARAMETER = "layout"
LONG, WIDE = "long", "wide"
"""Layouts of an answer: a row a decision, horizon, side and level; or a row a decision."""


def signature_of(manifest: Manifest) -> ModelSignature:
    """Return the MLflow signature of a bundle.

    ``symbol`` and ``ts`` are texts, every feature is a double: a column that happens to hold whole
    numbers would otherwise be refused the first time it has a gap. The parameter
    ``feature_set_hash`` says which set the features were built with; its default is the bundle's
    own, where everybody can read it. The outputs are those of the long layout.
    """
    doubles = dict.fromkeys(manifest.metadata.feature_columns, DataType.double)
    inputs = {"symbol": DataType.string, "ts": DataType.string, **doubles}
    outputs = {
        "symbol": DataType.string,
        "ts": DataType.string,
        "horizon_minutes": DataType.double,
        "side": DataType.string,
        "level": DataType.double,
        "forecast": DataType.double,
    }
    shortfall = ColSpec(DataType.double, "expected_shortfall", required=False)
    own = manifest.metadata.feature_set_hash
    return ModelSignature(
        inputs=Schema([ColSpec(kind, name) for name, kind in inputs.items()]),
        outputs=Schema([*(ColSpec(kind, name) for name, kind in outputs.items()), shortfall]),
        params=ParamSchema(
            [
                ParamSpec(FEATURE_SET_PARAMETER, DataType.string, own),
                ParamSpec(LAYOUT_PARAMETER, DataType.string, LONG),
            ]
        ),
    )


def require_signature(model: Path, manifest: Manifest) -> None:
    """Check that a folder that MLflow made of a bundle carries the bundle's own signature.

    Raises:
        BundleError: it carries another one, or none: features would be taken for what they are not.
    """
    try:
        found = Model.load(str(model / MLMODEL_FILE_NAME)).signature
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BundleError(f"{model / MLMODEL_FILE_NAME} cannot be read: {error}") from error
    if found != signature_of(manifest):
        raise BundleError(
            f"{model / MLMODEL_FILE_NAME} does not carry the signature of its bundle (job "
            f"{manifest.metadata.job}, {len(manifest.metadata.feature_columns)} features in "
            "float64); it was changed, or MLflow did not keep it: register the bundle again"
        )
