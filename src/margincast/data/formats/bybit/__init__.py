"""Bybit: order book archives and public trades."""
