"""Market data over the network: verified copies of a venue's public archive, and no numbers yet."""
