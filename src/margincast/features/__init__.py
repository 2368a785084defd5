"""Order-book and volatility features: what was known at a decision, and nothing later.

A feature is one function of its family's module (``volatility``, ``order_book``, ``trade_flow``,
``market``, ``calendar``) and one line of a TOML file in ``features/``; ``pipeline`` runs a set.
"""
