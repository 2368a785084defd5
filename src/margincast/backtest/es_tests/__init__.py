"""Tests of expected-shortfall forecasts: is the loss beyond the margin as large as promised."""
