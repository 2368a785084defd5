"""The service: margins, forecasts, what-if and explanations over HTTP, and a page to look at.

It serves what was published and makes no margin of its own. FastAPI lives here only.
"""
