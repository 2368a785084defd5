"""Tests of quantile forecasts: does the margin promise what it says, one series at a time."""
