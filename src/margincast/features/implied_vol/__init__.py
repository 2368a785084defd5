"""Implied volatility: what option markets charge for the moves to come.

Functions read the leader's regular bars with the states known at each close beside them; every
contract sees the leader's values.
"""
