"""Forecasters: from a panel of features to quantiles of the adverse excursion.

One protocol (``protocol``); ours is ``margincast`` (scale, quantile head, tail, calibration), the
peers are classical models under the same protocol, so that every comparison is like for like.
"""

import os

# OpenMP threads that wait by spinning slow a fit down fivefold and more as soon as anything else
# runs on the same cores; it is read once, when LightGBM is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
