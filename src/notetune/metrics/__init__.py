"""Metrics: ranking scores, intervals, calibration and the score table (numpy and scipy)."""
