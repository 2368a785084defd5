"""How often every backtest rejects: true margins (size), and wrong ones (power).

``series`` simulates margins and outcomes whose law is known, ``panel`` many contracts that crash
together, ``catalogue`` lists the tests, ``study`` counts rejections, ``report`` prints them. The
command is ``python -m benchmarks.size_and_power``.
"""
