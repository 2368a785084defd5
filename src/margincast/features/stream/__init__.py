"""The same features from the last events: what a margin is decided on while the market moves.

A stream takes bars, snapshots, trades and states one at a time and gives, at each decision, the
rows that a batch over the whole history would hold there. It is the batch's own code over the rows
that each feature is declared to look back to (:mod:`.bounds`); older ones are let go.
"""

from margincast.features.stream.feature_stream import FeatureStream

__all__ = ["FeatureStream"]
