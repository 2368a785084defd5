"""margincast: tail forecasts of crypto moves, turned into maintenance margin.

Importing the package loads nothing heavy; every room imports what it needs.
"""

__version__ = "0.1.0"
