"""Simulated markets whose conditional quantiles are known, and how near a forecast comes to them.

``laws`` holds the law of one hour's excursion in units of its volatility, ``processes`` the
markets, ``bars`` turns them into bars and panels, ``study`` walks forecasters through them,
``recovery`` breaks the volatility under their feet, ``report`` prints what was found. The command
is ``python -m benchmarks.oracle_study``.
"""
