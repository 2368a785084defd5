"""Execution: refits, trials and features side by side, on this machine or on a Dask cluster."""
