"""Margin: pure arithmetic from a tail forecast to the published margin, each step with its reason.

Responsible for everything between the quantile forecast and the rate a position is charged.
"""
