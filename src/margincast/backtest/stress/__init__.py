"""Stress: what a margin does on the worst days there were, and on worse ones.

History's windows apart from the rest, hypothetical shocks, the smallest move that breaks the
margin and the fund, and cascades in which margin, liquidations and prices drive each other.
"""
