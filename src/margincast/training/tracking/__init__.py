"""Tracking: where a margin's evidence (parameters, metrics, tables, trials) is kept, in MLflow.

``tracker`` opens runs, ``run`` is one; ``store`` is what they are written to, ``spool`` what waits
while it cannot be reached, ``synchronise`` what brings it there later. ``study`` shows a tuning
study, ``origin`` says what a run was made from.
"""

from margincast.training.tracking.address import StoreUnreachableError, resolve_uri
from margincast.training.tracking.run import (
    MAXIMUM_METRICS,
    TRUNCATED_TAG,
    Run,
    flatten_parameters,
)
from margincast.training.tracking.store import EXPERIMENT_KIND_TAG, connect, store_errors
from margincast.training.tracking.synchronise import ERROR_TAG
from margincast.training.tracking.tracker import PastRun, Tracker

__all__ = [
    "ERROR_TAG",
    "EXPERIMENT_KIND_TAG",
    "MAXIMUM_METRICS",
    "TRUNCATED_TAG",
    "PastRun",
    "Run",
    "StoreUnreachableError",
    "Tracker",
    "connect",
    "flatten_parameters",
    "resolve_uri",
    "store_errors",
]
