"""Tuning: which head forecasts best, found on time before the test period and on nothing of it.

A study belongs to a target group: all horizons, sides and levels of one job, which share one head.
"""
