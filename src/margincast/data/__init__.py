"""Market data in: schemas, readers, the quality report, and the simulated market."""
