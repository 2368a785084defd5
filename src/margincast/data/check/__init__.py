"""What is wrong with a store's data: a margin is no better than the prices it was computed from."""
