"""Binance: the public archive, and recordings of its streams."""
