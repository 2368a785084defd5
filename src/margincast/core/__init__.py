"""Errors, units, time and typed aliases: what every other room may rely on (numpy at most)."""
