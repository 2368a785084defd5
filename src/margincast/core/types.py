"""Typed aliases of the vocabulary: side, level, and the arrays the arithmetic works on."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Side = Literal["long", "short"]
"""The side of the position that is at risk: a long loses when the price falls."""

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Times = npt.NDArray[np.datetime64]
"""UTC without a time zone, as numpy keeps it."""

SIDES: tuple[Side, ...] = ("long", "short")
