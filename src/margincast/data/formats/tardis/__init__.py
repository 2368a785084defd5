"""Tardis: downloadable CSV files."""
