"""Monitoring: whether the margins that are published keep what their level promises, since when."""
