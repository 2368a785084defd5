"""Derivatives features: what holding a position costs, how crowded it is, who is being liquidated.

Functions read a contract's regular bars with the states known at each close beside them
(:mod:`margincast.features.alignment`). One file a question: ``funding`` (the price of leverage),
``basis`` (distance from mark and index), ``open_interest`` (how much could be liquidated),
``liquidations`` (how much is being) and ``crowding`` (how much of it is on one side). But for the
logarithms of USD no value hangs on the size of a contract, so that one model serves many. What no
table holds, or what no longer stands, leaves a value null.
"""

from margincast.features.derivatives import (
    basis,
    crowding,
    funding,
    liquidations,
    open_interest,
)

__all__ = ["basis", "crowding", "funding", "liquidations", "open_interest"]
