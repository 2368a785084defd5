"""Tier tables of venues: what a venue's own file says about margin, read and written.

One module a venue, each pure: parsed text in, notional tiers and the venue's own arithmetic out,
and back. The first line of every module says which venue's margin it computes.
"""
