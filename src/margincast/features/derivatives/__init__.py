"""Derivatives features: what holding a position costs, how crowded it is, who is being liquidated.

Functions read a contract's regular bars with the states known at each close beside them
(:mod:`margincast.features.alignment`).
"""
