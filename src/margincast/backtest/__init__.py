"""Backtests: walk-forward forecasts on held-out time, and the tests that decide on trust.

Whether a margin would have held, at what cost, is answered here and nowhere else.
"""
