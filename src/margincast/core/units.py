"""Units: fractions are the only unit inside; bps appear in names and at the edges.

A maintenance margin rate of 1.25 per cent is 0.0125 everywhere.
"""

BPS = 1e-4
MINUTES_PER_YEAR = 365 * 24 * 60
