"""Our statistics beside published ones, a row a number.

``records`` reads the shared golden records; ``exceedance_tests``, ``documentation``,
``shortfall_tests`` and ``score_comparison`` compute ours beside each. The command is
``python -m benchmarks.golden_table``; the same records are held to their tolerances one by one in
``tests/golden``.
"""
