"""The simulated market: its law, its tables, the true quantiles, and faults of its feed."""
