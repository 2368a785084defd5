"""Scores of a forecast against what happened: pure functions on arrays, each with its source."""
