"""Write a bundle as an MLflow model, so that other tools can forecast by MLflow's own means.

``mlflow models predict``, ``mlflow models serve`` and Spark read what is written here; see
:mod:`~margincast.serving.pyfunc` for how they load it.
"""

import shutil
import warnings
from pathlib import Path

import mlflow.pyfunc

from margincast.serving import pyfunc
from margincast.serving.manifest import verify_bundle
from margincast.serving.signature import require_signature, signature_of


def save_pyfunc(bundle_directory: Path, folder: Path) -> Path:
    """Write ``folder/model``: the bundle as an MLflow model from code; returns its path.

    Requirements are stated, not inferred: inferring them would run the model in a new process.

    Raises:
        BundleError: the bundle does not verify, or MLflow did not keep its signature.
    """
    manifest = verify_bundle(bundle_directory)
    staged = folder / "bundle"
    shutil.copytree(bundle_directory, staged)
    with warnings.catch_warnings():
        # the signature is stated; an example would only be run to guess it
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        mlflow.pyfunc.save_model(
            str(folder / "model"),
            python_model=pyfunc.__file__,
            artifacts={"bundle": str(staged)},
            signature=signature_of(manifest),
            pip_requirements=[f"margincast=={manifest.libraries['margincast']}"],
        )
    require_signature(folder / "model", manifest)
    return folder / "model"
