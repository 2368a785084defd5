"""Training: targets, splits, tuning, tracking and the run that yields a gated model.

MLflow reads its switches once, while it is imported, so they are set here: this file runs before
any module of this room, and of the rooms above it, can import MLflow. A value the operator has
already set in the environment wins.
"""

import os

_MLFLOW_SWITCHES = {
    # since 3.2 MLflow reports usage to its makers, from a thread started at import
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # INFO announces every table it creates in a new store
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # bundles are small: one progress bar a file hides the output that matters
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # a server's address after every run, on standard output, among the results
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # a server that restarts is waited for (a dozen seconds); one that is gone is not, by default
    # for four minutes an operation: from then on the spool takes over
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}

for _name, _value in _MLFLOW_SWITCHES.items():
    os.environ.setdefault(_name, _value)
